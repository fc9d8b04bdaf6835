"""A reader of committed records, live: what anybody could see while workers and broker died."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contract.records import PARTITION_KEY, PartitionTotals, UserRecord, decode_totals, decode_user
from contract.settings import Settings
from contract.topics import Topics
from streams import dead_letters
from streams.record import Record
from streams.table import TableReader

Place = tuple[int, int]  # partition and offset


@dataclass(frozen=True)
class Version:
    """A state as it was seen: its proof, and the offsets of its own events that wait in it.

    ``gone`` is a tombstone, after which the user begins anew.
    """

    user_id: str
    folded: int = 0
    last_offset: int = -1
    hash_sum: int = 0
    waiting: tuple[int, ...] = ()
    gone: bool = False


class Witness:
    """Reads all topics that the users worker writes to, each on a thread of its own.

    ``states``, ``stats`` and ``co_reads`` hold what is newest, the latter two by partition and key; ``places`` is where
    records were seen, by topic; ``dead`` how often each record of ``user-events`` was seen as a dead letter.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self.versions: list[Version] = []
        self.states: dict[str, UserRecord] = {}
        self.totals: dict[int, PartitionTotals] = {}
        self.stats: dict[tuple[int, str], bytes] = {}
        self.co_reads: dict[tuple[int, str], bytes] = {}
        self.dead: Counter[Place] = Counter()
        self.disorders: list[str] = []
        self.places: dict[str, set[Place]] = defaultdict(set)
        self._events_topic = topics.user_events
        takers: dict[str, Callable[[Record], None]] = {
            topics.user_vectors: self._take_state,
            topics.article_stats: partial(_keep, self.stats),
            topics.co_reads: partial(_keep, self.co_reads),
            topics.user_events: lambda record: None,
            topics.dead_letters: self._take_dead,
        }
        self._followed = [
            (TableReader(settings, topic, name="chaos.witness", fetch_wait_ms=20), take)
            for topic, take in takers.items()
        ]
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=followed, name="witness", daemon=True)
            for followed in self._followed
        ]
        for thread in self._threads:
            thread.start()

    def has_seen(self, ends: dict[int, int]) -> bool:
        """Whether all events before these offsets, by partition, are in totals that were seen."""
        assert all(thread.is_alive() for thread in self._threads), "the witness broke off"
        return all(self.totals.get(p, PartitionTotals()).next_offset >= end for p, end in ends.items())

    def waits(self) -> bool:
        """Whether any event waits in any state, carried over or not."""
        return any(user.windows.waiting for user in list(self.states.values()))

    def counts(self, article_id: str) -> bool:
        """Whether there are statistics or co-reads of the article."""
        return any(key == article_id for table in (self.stats, self.co_reads) for _, key in list(table))

    def close(self) -> None:
        """Read to the present ends, and end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for reader, take in self._followed:
            for record in reader.catch_up(30):
                self._take(reader, take, record)
            reader.close()

    def _follow(self, reader: TableReader, take: Callable[[Record], None]) -> None:
        while not self._ended.is_set():
            for record in reader.poll(0.1, limit=1000):
                self._take(reader, take, record)

    def _take(self, reader: TableReader, take: Callable[[Record], None], record: Record) -> None:
        self.places[reader.topic].add((record.partition(), record.offset()))
        take(record)

    def _take_dead(self, record: Record) -> None:
        letter = dead_letters.read(record)
        assert letter.topic == self._events_topic
        self.dead[letter.partition, letter.offset] += 1

    def _take_state(self, record: Record) -> None:
        key, value = record.key(), record.value()
        assert key is not None
        if key == PARTITION_KEY:
            assert value is not None
            self._take_totals(record.partition(), decode_totals(value))
            return
        user_id = key.decode()
        if value is None:
            self.states.pop(user_id, None)
            self.versions.append(Version(user_id, gone=True))
            return
        user = decode_user(value)
        self.states[user_id] = user
        waiting = tuple(wait.offset for wait in user.windows.waiting if wait.carried_from < 0)
        self.versions.append(Version(user_id, user.folded, user.last_offset, user.hash_sum, waiting))

    def _take_totals(self, partition: int, totals: PartitionTotals) -> None:
        before = self.totals.get(partition, PartitionTotals())
        if not (totals.read >= before.read and totals.folded >= before.folded and totals.dead >= before.dead):
            self.disorders.append(f"the totals of partition {partition} went back from {before} to {totals}")
        if totals.read != totals.folded + totals.waiting + totals.duplicate + totals.dead:
            self.disorders.append(f"the totals of partition {partition} do not add up: {totals}")
        self.totals[partition] = totals


def _keep(table: dict[tuple[int, str], bytes], record: Record) -> None:
    place, value = (record.partition(), (record.key() or b"").decode()), record.value()
    if value is None:
        table.pop(place, None)
    else:
        table[place] = value
