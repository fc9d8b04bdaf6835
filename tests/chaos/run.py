"""One run of chaos: a broker of its own, a load, kills, and the verdict."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.decay import Decay
from streams.local_broker import LocalBroker
from tests.chaos.account import Account
from tests.chaos.kills import Chaos, Toll
from tests.chaos.load import Load, World
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Witness
from tests.pipeline import pipeline_on

RESTART = "restart the broker"
KINDS = (
    "kill", "kill in a transaction", "kill several at once", "stall", "kill in a restore", "term", "kill",
    "kill in a rebalance",
)  # fmt: skip
# Few transactions a second: where the group's log is longer than 16,384 records, an only broker that is killed may come
# back with its group coordinator half loaded (docs/failure-modes.md).
SETTINGS = {
    "partitions": 6,
    "waiting_clicks": 512,
    "transaction_timeout_ms": 5000,
    "batch_wait_ms": 100,
}


@dataclass(frozen=True)
class Phase:
    """With so many workers, these things happen one after the other."""

    workers: int
    strikes: Sequence[str]


def random_phases(kills: int, restarts: int, seed: int) -> Iterator[Phase]:
    """All kinds in turn with one, two and three workers, the restarts spread among them, each phase shuffled."""
    chosen = random.Random(seed)
    strikes = [KINDS[n % len(KINDS)] for n in range(kills)]
    for n in range(restarts):
        strikes.insert(round((n + 0.5) * kills / restarts) + n, RESTART)
    length = -(-len(strikes) // 9)
    for n in range(9):
        part = strikes[n * length : (n + 1) * length]
        chosen.shuffle(part)
        yield Phase(n % 3 + 1, part)


def run(
    folder: Path, phases: Sequence[Phase], world: World, say: Callable[[str], object] = str
) -> tuple[Toll, Verdict]:
    """Let it happen; blocks for seconds a kill. Everything is compared where articles do not change.

    Where they do, nobody is limited: whether a late click falls into a limited time depends on when its article came.
    ``say`` takes a line a kill.
    """
    chosen = SETTINGS | ({"events_per_minute": 100_000} if world.changing else {})
    with LocalBroker.start(folder / "kafka") as broker, pipeline_on(broker, folder, **chosen) as pipeline:
        settings, topics, model = pipeline.settings, pipeline.topics, pipeline.model
        assert isinstance(model, Decay)
        witness = Witness(settings, topics)
        load = Load(settings, topics, model.dims, world).start()
        chaos = Chaos(broker, pipeline, load, witness, world.seed, say)
        for phase in phases:
            chaos.set_workers(phase.workers)
            for strike in phase.strikes:
                if strike == RESTART:
                    chaos.restart_broker()
                else:
                    chaos.strike(strike)
        chaos.finish()
        verdict = Account(settings, topics, model, changing=world.changing).compare(witness)
    # Its own producer may write a record twice over a hard restart: what the log has is what is to be folded.
    assert verdict.events >= load.sent, f"the log has {verdict.events} events where {load.sent} were sent"
    return chaos.toll, verdict
