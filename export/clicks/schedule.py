"""A click model trained again and again, each time into a new version of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import SetupError, StoppressError
from encoders.click_versions import SERVING_FILE, new_version, prune
from encoders.manifest import MANIFEST_FILE


def check_versions(folder: Path) -> None:
    """Raise :class:`SetupError` where ``folder`` cannot hold versions."""
    if (folder / MANIFEST_FILE).exists():
        raise SetupError(f"{folder} is a click model itself: name another folder, in which each training makes its own")
    if folder.exists() and not folder.is_dir():
        raise SetupError(f"{folder} is no folder: name one in which each training makes its own")


def train_every(hours: float, folder: Path, train: Callable[[Path], object], say: Callable[[str], None]) -> None:
    """Let ``train`` write a version into ``folder``, at once and then every so many ``hours``; never returns.

    A training that fails is said, and tried again when the next is due; what was written before stays.
    """
    while True:
        began = time.time()
        out = folder / new_version(began)
        try:
            train(out)
            prune(folder)
        except (StoppressError, OSError) as error:
            say(f"no new model: {' '.join(str(error).split())}")
        due = max(began + hours * 3600, time.time())
        say(f"training again at {datetime.fromtimestamp(due, UTC):%Y-%m-%d %H:%M:%S} UTC")
        time.sleep(max(0.0, due - time.time()))


def how_to_serve(folder: Path) -> str:
    """Say how a ranker takes up what is trained."""
    return (
        f"each model becomes a version in {folder}; rankers with --set ranker_shadow={folder} judge it on live events "
        f"and write into {folder / SERVING_FILE} which they serve"
    )
