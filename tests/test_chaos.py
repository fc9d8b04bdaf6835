"""A short run of chaos; ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.load import World
from tests.chaos.run import Phase, run

KINDS = ["kill", "kill in a transaction", "kill in a restore", "stall", "kill in a rebalance"]


@pytest.mark.timeout(300)
def test_whatever_kills_a_worker_every_event_counts_once_and_in_its_order(tmp_path: Path) -> None:
    toll, verdict = run(tmp_path, [Phase(1, KINDS[:3]), Phase(2, KINDS[3:])], World())
    assert verdict.good, verdict
    assert set(toll.by_kind) == set(KINDS)
    assert verdict.outcomes["waiting"] == 0
    assert verdict.outcomes["duplicate"] > 0
    assert verdict.outcomes["dead"] > 0
    assert verdict.states_seen > 1000
    assert verdict.aborted > 0
