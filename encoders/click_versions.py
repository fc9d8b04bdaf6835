"""A folder in which click models follow each other: each in a version of its own, and the name of the one that serves.

    FOLDER/20261125T195712Z/     a click model; what is newer has the greater name
           .../verdict.json      what became of it as a candidate, once that is known
    FOLDER/serving               the name of the version to serve; no file: none of them

Whoever changes ``serving`` changes what all rankers serve that look at this folder.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import ClickModelUnusable
from encoders.manifest import MANIFEST_FILE

SERVING_FILE, VERDICT_FILE = "serving", "verdict.json"
KEPT = 50
_UNFINISHED = re.compile(r"\.(\d{8}T\d{6}Z)\.\d+(\.former)?")


def new_version(now_s: float) -> str:
    """Return the name of a version made now (epoch seconds)."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def versions(folder: Path) -> list[str]:
    """Return the names of the models that are there, oldest first; none where there is no folder. Raises OSError."""
    try:
        found = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    return [name for name in found if (folder / name / MANIFEST_FILE).exists()]


def serving(folder: Path) -> str | None:
    """Return the name of the version that is to serve, None where none of them is.

    Raises :class:`ClickModelUnusable` where the file says something else, and OSError.
    """
    try:
        name = (folder / SERVING_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not name or name.startswith(".") or Path(name).name != name:
        raise ClickModelUnusable(f"{folder / SERVING_FILE} names no version: write the name of one, or remove the file")
    return name


def serve(folder: Path, name: str) -> None:
    """Let the version ``name`` serve from now on. Raises OSError."""
    write_whole(folder / SERVING_FILE, f"{name}\n".encode())


def prune(folder: Path) -> list[str]:
    """Remove all but the newest :data:`KEPT` versions and the one that serves, and what older attempts left behind.

    Returns what was removed. Raises OSError.
    """
    found, serves = versions(folder), None
    with suppress(ClickModelUnusable):
        serves = serving(folder)
    oldest = found[-KEPT:][0] if found else ""
    unfinished = ((entry.name, _UNFINISHED.fullmatch(entry.name)) for entry in folder.iterdir())
    gone = [name for name, match in unfinished if match is not None and match[1] < oldest]
    gone += [name for name in found[:-KEPT] if name != serves]
    for name in gone:
        shutil.rmtree(folder / name, ignore_errors=True)
    return gone


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that is there whole or as it was before. Raises OSError."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(file)
