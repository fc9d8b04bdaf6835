"""Ways to hurt users workers, each at a moment that is really the one it is named for."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streams.clients import make_admin
from streams.local_broker import LocalBroker
from streams.table import read_to_end
from tests.chaos.load import Load
from tests.chaos.witness import Witness
from tests.pipeline import Pipeline, Worker, await_true

STALL_SECONDS = 3.5  # the session ends after 2
AWAY_SECONDS = 4.0
ACCOUNTED_SECONDS = 180.0
READY_SECONDS = 180.0  # a busy machine restores slowly; what it took is in the recovery


@dataclass
class Toll:
    """What was done, how often, and how many seconds it took until all that was sent before was accounted for.

    A kill of several workers at once is one kill; ``workers_struck`` counts each of them.
    """

    by_kind: Counter[str] = field(default_factory=Counter)
    workers_struck: int = 0
    broker_restarts: int = 0
    recovery_s: list[float] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.by_kind.total()


class Chaos:
    """A broker, one or more users workers on it, and a load that goes on meanwhile."""

    def __init__(
        self,
        broker: LocalBroker,
        pipeline: Pipeline,
        load: Load,
        witness: Witness,
        seed: int,
        say: Callable[[str], object],
    ) -> None:
        self._broker = broker
        self._pipeline = pipeline
        self._load = load
        self._witness = witness
        self._say = say
        self._random = random.Random(seed)
        self._workers: list[Worker] = []
        self._joining = pipeline.worker("users", slot="joining")
        self.toll = Toll()
        self._note_moment()
        self.kinds: dict[str, Callable[[Worker], None]] = {
            "kill": self._kill,
            "kill several at once": self._kill_several,
            "term": self._term,
            "stall": self._stall,
            "kill in a transaction": self._kill_in_transaction,
            "kill in a restore": self._kill_in_restore,
            "kill in a rebalance": self._kill_in_rebalance,
        }

    def set_workers(self, count: int) -> None:
        """Let so many run; who is too many ends by SIGTERM."""
        while len(self._workers) > count:
            assert self._workers.pop().stop() == 0
        while len(self._workers) < count:
            self._workers.append(self._start(self._pipeline.worker("users", slot=str(len(self._workers)))))

    def strike(self, kind: str) -> None:
        """One kill of this kind; the worker is up again and what was sent before is accounted for when it returns."""
        self._work_on()
        worker = self._random.choice(self._workers)
        self._note_moment()
        self.kinds[kind](worker)
        self.toll.by_kind[kind] += 1
        self.toll.workers_struck += 1
        self._until_accounted(self._ends, kind)
        seconds = time.monotonic() - self._struck_at
        if kind.startswith("kill"):
            self.toll.recovery_s.append(seconds)
        self._say(f"{kind}, {len(self._workers)} running: {self._sent:,} events accounted for after {seconds:.1f} s")

    def restart_broker(self) -> None:
        """kill -9 of Kafka, a while without it, and a start with the same data; the workers are not touched."""
        self._work_on()
        self._note_moment()
        self._broker.kill()
        time.sleep(self._random.uniform(0.0, AWAY_SECONDS))
        self._broker.restart()
        self.toll.broker_restarts += 1
        self._until_accounted(self._ends, "a broker restart")
        self._say(f"broker restart, {len(self._workers)} running: {self._sent:,} events accounted for")

    def finish(self) -> None:
        """End the load; blocks until everything is accounted for and the workers have ended."""
        self._load.stop()
        try:
            self._until_accounted(self._load.ends, "the load")
            absorbed = self._ends_of_events()  # all merges are folded: no absorb is still to come
            await_true(
                lambda: self._witness.has_seen(absorbed) and not self._witness.waits() and not self._counts_away(),
                "all is accounted for and nothing waits", ACCOUNTED_SECONDS,
            )  # fmt: skip
        except AssertionError as error:  # the verdict tells what is missing
            self._say(str(error))
        self.set_workers(0)
        self._witness.close()

    def _ends_of_events(self) -> dict[int, int]:
        ends: dict[int, int] = {}
        events = read_to_end(self._pipeline.settings, self._pipeline.topics.user_events, name="chaos.ends")
        for record in events:
            ends[record.partition()] = record.offset() + 1
        return ends

    def _counts_away(self) -> bool:
        return bool(self._load.away) and self._witness.counts(self._load.away)

    def _until_accounted(self, ends: dict[int, int], after: str) -> None:
        await_true(
            lambda: self._witness.has_seen(ends), f"all is accounted for after {after}", ACCOUNTED_SECONDS,
            lambda: (self._witness.totals, ends, [self._said(w) for w in self._workers]),
        )  # fmt: skip
        for worker in self._workers:
            assert worker.running, f"a worker ended after {after}: {self._said(worker)}"

    def _said(self, worker: Worker) -> object:
        return [line for line in worker.lines() if line.get("logger") != "stoppress.kafka"][-5:]

    def _start(self, worker: Worker) -> Worker:
        worker.start(ready=False).await_ready(READY_SECONDS)
        return worker

    def _note_moment(self) -> None:
        """From here on recovery counts, and what was sent until now is to be accounted for."""
        self._struck_at, self._sent, self._ends = time.monotonic(), self._load.delivered, dict(self._load.ends)

    def _work_on(self) -> None:
        """To strike at some moment of steady work, not always right after a start."""
        time.sleep(self._random.uniform(0.0, 1.0))

    def _kill(self, worker: Worker) -> None:
        worker.kill()
        self._start(worker)

    def _kill_several(self, _: Worker) -> None:
        """One to three at the same moment, a random sample of those that run; all of them come back at once."""
        chosen = self._random.sample(
            self._workers, self._random.randint(min(2, len(self._workers)), len(self._workers))
        )
        for worker in chosen:
            worker.signal(signal.SIGKILL)
        for worker in chosen:
            worker.exit_code()
        self.toll.workers_struck += len(chosen) - 1
        for worker in chosen:
            worker.start(ready=False)
        for worker in chosen:
            worker.await_ready(READY_SECONDS)

    def _term(self, worker: Worker) -> None:
        assert worker.stop() == 0, self._said(worker)
        self._start(worker)

    def _stall(self, worker: Worker) -> None:
        worker.signal(signal.SIGSTOP)
        time.sleep(STALL_SECONDS)
        before = self._handed_over(worker)
        worker.signal(signal.SIGCONT)
        await_true(lambda: self._handed_over(worker) > before, "it hears that its session is over", 30)

    def _kill_in_transaction(self, worker: Worker) -> None:
        """Stopped at random moments until a transaction stays open for that, and killed there."""

        def caught() -> bool:
            worker.signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            if self._open_ends() & self._open_ends():
                return True
            worker.signal(signal.SIGCONT)
            # It runs as long as it stood, or it would do nothing but come back into its group.
            time.sleep(time.monotonic() - stopped_at + self._random.uniform(0.0, 0.05))
            return False

        await_true(caught, "a transaction is open", 180)
        self._note_moment()
        worker.kill()
        self._start(worker)

    def _kill_in_restore(self, worker: Worker) -> None:
        worker.kill()
        worker.start(ready=False)
        worker.await_log("restoring")
        worker.kill()
        assert not worker.lines("restored"), "it was killed too late"
        self._start(worker)

    def _kill_in_rebalance(self, worker: Worker) -> None:
        """One more member joins; as soon as this one has given up its partitions for that, it is killed."""
        await_true(lambda: self._owns(worker), "it owns what it can give up", 30, lambda: self._said(worker))
        before = len(worker.lines("revoked"))
        joining = self._joining.start(ready=False)
        worker.await_log("revoked", count=before + 1)
        self._note_moment()
        worker.kill()
        self._start(worker)
        joining.await_ready(READY_SECONDS)
        assert joining.stop() == 0, self._said(joining)

    def _handed_over(self, worker: Worker) -> int:
        return len(worker.lines("revoked")) + len(worker.lines("lost"))

    def _owns(self, worker: Worker) -> bool:
        told = [x["event"] for x in worker.lines() if x["event"] in ("assigned", "revoked", "lost")]
        return told[-1:] == ["assigned"]

    def _open_ends(self) -> set[int]:
        """Partitions of user-vectors at whose end a transaction is open."""
        topic = self._pipeline.topics.user_vectors
        admin = make_admin(self._pipeline.settings)
        asked = {
            TopicPartition(topic, p): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for p in range(self._pipeline.settings.partitions)
        }
        committed, written = (
            {tp.partition: a.result().offset for tp, a in admin.list_offsets(asked, isolation_level=level).items()}
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return {p for p, end in committed.items() if end < written[p]}
