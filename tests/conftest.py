"""What many tests share: one real broker a run, settings with a namespace of their own, tools from outside."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from contract.settings import Settings, load
from streams.clients import make_admin
from streams.local_broker import LocalBroker

# How long an example may take says nothing on a busy machine.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
ROOT = Path(__file__).resolve().parents[1]
WHOLE_SYSTEMS = {"test_chaos", "test_demo", "test_page", "test_readme", "test_replay", "test_simulation"}


class OneWholeSystem(LoadFileScheduling):  # type: ignore[misc]
    """Where tests run two at a time: those of a file one after the other, and never two whole systems at once."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "whole systems" if Path(file).stem in WHOLE_SYSTEMS else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneWholeSystem:
    return OneWholeSystem(config, log)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """The run's Kafka. It ends with this process; who wants to kill a broker starts one of their own."""
    with LocalBroker.start(tmp_path_factory.mktemp("kafka"), die_with_parent=True) as started:
        yield started


@pytest.fixture
def settings(broker: LocalBroker) -> Iterator[Settings]:
    """Settings for the run's Kafka with a namespace that no other test has; its topics go when the test ends.

    For other values: ``settings.model_copy(update={"partitions": 2})``.
    """
    namespace = f"test-{uuid.uuid4().hex[:12]}."
    loaded = load(
        [
            f"bootstrap_servers={broker.bootstrap_servers}",
            f"namespace={namespace}",
            "partitions=4",
            "article_partitions=2",
            f"encoder={ROOT / 'var' / 'encoder'}",
            "port=0",
            "session_timeout_ms=2000",
        ],
        environ={},
    )
    yield loaded
    admin = make_admin(loaded)
    mine = [name for name in admin.list_topics(timeout=10).topics if name.startswith(namespace)]
    for deleted in admin.delete_topics(mine).values() if mine else ():
        deleted.result(10)


@pytest.fixture(scope="session")
def encoder_path() -> Path:
    """The encoder that ``make encoder`` builds."""
    path = ROOT / "var" / "encoder"
    if not (path / "manifest.json").exists():
        pytest.fail(f"no encoder in {path}: run `make encoder`")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to give to playwright as ``executable_path``."""
    return _program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of ``promtool``; ``prometheus`` itself lies beside it."""
    return _program("promtool")


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"{names[0]} is not installed; `make browser` installs it where there is apt and root"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
