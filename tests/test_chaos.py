"""Short runs of chaos; ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.load import World
from tests.chaos.run import Phase, run

KINDS = ["kill", "kill in a transaction", "kill in a restore", "stall", "kill several at once", "kill in a rebalance"]


@pytest.mark.timeout(300)
def test_whatever_kills_a_worker_every_event_counts_once_and_in_its_order(tmp_path: Path) -> None:
    toll, verdict = run(tmp_path, [Phase(1, KINDS[:3]), Phase(2, KINDS[3:])], World())
    assert verdict.good, verdict
    assert set(toll.by_kind) == set(KINDS)
    assert toll.workers_struck == len(KINDS) + 1
    assert verdict.outcomes["waiting"] == 0
    assert verdict.outcomes["duplicate"] > 0
    assert verdict.outcomes["dead"] == verdict.dead_letters > 0
    assert verdict.versions_compared == verdict.states_seen > 1000
    assert verdict.users_compared > 200
    assert verdict.users_limited > 0
    assert min(verdict.statistics_compared, verdict.co_reads_compared) > 100
    assert verdict.merges >= verdict.absorbs > 50
    assert sum(verdict.aborted.values()) > 0


@pytest.mark.timeout(200)
def test_neither_do_articles_that_come_late_change_or_go(tmp_path: Path) -> None:
    _, verdict = run(tmp_path, [Phase(2, ["kill several at once", "kill"])], World(changing=True))
    assert verdict.good, verdict
    assert verdict.outcomes["waiting"] == 0
    assert verdict.versions_compared > 500
    assert verdict.merges >= verdict.absorbs > 20
