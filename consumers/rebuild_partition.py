"""What else of a partition can be damaged than users' states: its totals, and statistics.

Totals are counted anew from the log, as ``stoppress verify`` counts them; a statistic that cannot be read becomes a
tombstone, since the events in it cannot be told from those that a rate limit or a window kept out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import msgspec

from consumers.event_account import Dropped, EventAccount
from consumers.rebuild import NAME, own_waits, readable_state
from contract.errors import NewerState, UnreadableState
from contract.records import (
    OTHER_NAME,
    PARTITION_KEY,
    SOURCE_PREFIX,
    ArticleStats,
    PartitionTotals,
    decode_co_reads,
    decode_stats,
    decode_totals,
    encode_plain,
)
from contract.settings import Settings
from contract.topics import Topics
from encoders.fold_rules import FoldLimits
from encoders.interest import InterestModel
from streams.clients import make_admin
from streams.dead_letters import read as read_letter
from streams.owners_place import Output, write_in_owners_place
from streams.record import Record, text_key
from streams.table import TableReader, first_offsets, read_to_end
from streams.worker import Identity


@dataclass
class Unreadable:
    """Users, and by partition keys of ``topic`` whose newest record cannot be read by any version."""

    users: dict[str, int] = field(default_factory=dict)
    totals: set[int] = field(default_factory=set)
    counts: set[tuple[int, str, bytes]] = field(default_factory=set)

    @property
    def partitions(self) -> list[int]:
        """Where more than users' states cannot be read."""
        return sorted(self.totals | {partition for partition, _, _ in self.counts})


@dataclass(frozen=True)
class RebuiltPartition:
    """``totals`` as counted up to ``offset``, None where they could be read; ``begun_anew`` statistics are gone."""

    partition: int
    offset: int
    totals: PartitionTotals | None
    begun_anew: int
    log_begins_at: int

    def __str__(self) -> str:
        told = [f"{self.begun_anew} statistics begin anew"] if self.begun_anew else []
        if self.totals is not None:
            t = self.totals
            counts = f"{t.folded} folded, {t.waiting} waiting, {t.duplicate} duplicate, {t.dead} dead"
            told.append(f"totals of {t.read} events up to offset {self.offset}: {counts}")
            if self.log_begins_at:
                told.append(f"the log begins at offset {self.log_begins_at}, and nothing before is in them")
        return f"partition {self.partition}: " + "; ".join(told)


def unreadable(settings: Settings, topics: Topics, model: InterestModel) -> Unreadable:
    """Return what cannot be read, by what a restore would say; reads the changelogs of the users worker. Blocks."""
    found = Unreadable()
    for record in read_to_end(settings, topics.user_vectors, name=NAME):
        partition, value = record.partition(), record.value()
        if record.key() == PARTITION_KEY:
            found.totals.discard(partition)
            if _is_damaged(decode_totals, value):
                found.totals.add(partition)
            continue
        user_id = text_key(record)
        found.users.pop(user_id, None)
        try:
            if isinstance(readable_state(value, model), str):
                found.users[user_id] = partition
        except NewerState:
            continue
    counts: list[tuple[str, Callable[[bytes], object]]] = [
        (topics.article_stats, decode_stats), (topics.co_reads, decode_co_reads)
    ]  # fmt: skip
    for topic, decode in counts:
        for record in read_to_end(settings, topic, name=NAME):
            value, place = record.value(), (record.partition(), topic, record.key() or b"")
            found.counts.discard(place)
            if _is_damaged(decode, value):
                found.counts.add(place)
    return found


def rebuild_partition(
    settings: Settings, topics: Topics, model: InterestModel, partition: int, found: Unreadable
) -> RebuiltPartition:
    """Mend what ``found`` names of a partition, exactly once, while its worker runs; blocks.

    Raises :class:`~contract.errors.StoppressError` where nothing was changed.
    """
    group = Identity.of(settings, "users", topics.generation).group
    counts = [Output(topic, key, None) for number, topic, key in sorted(found.counts) if number == partition]
    with ExitStack() as stack:
        recount = _Recount(settings, topics, model, partition, stack) if partition in found.totals else None

        def outputs(offset: int) -> list[Output]:
            if recount is None:
                return counts
            return [*counts, Output(topics.user_vectors, PARTITION_KEY, encode_plain(recount.to(offset)))]

        write_in_owners_place(settings, group, topics.user_events, partition, outputs)
        totals = None if recount is None else recount.totals
        begins_at = 0 if recount is None else recount.begins_at
        offset = 0 if totals is None else totals.next_offset
        return RebuiltPartition(partition, offset, totals, len(counts), begins_at)


class _Recount:
    """A partition's totals from the log, the states' waiting events and the dead letters."""

    def __init__(
        self, settings: Settings, topics: Topics, model: InterestModel, partition: int, stack: ExitStack
    ) -> None:
        def reader(topic: str, *, whole: bool = False) -> TableReader:
            made = TableReader(settings, topic, name=NAME, partitions=None if whole else [partition], fetch_wait_ms=5)
            return stack.enter_context(closing(made))

        self._topics = topics
        self._model = model
        self._partition = partition
        self.totals = PartitionTotals()
        self.begins_at = first_offsets(make_admin(settings), topics.user_events, [partition])[partition]
        self._account = EventAccount(partition, settings.partitions, FoldLimits.of(settings), self.begins_at)
        self._log = reader(topics.user_events)
        self._states = reader(topics.user_vectors)
        self._stats = reader(topics.article_stats)
        self._letters = reader(topics.dead_letters, whole=True)
        self._to_come: deque[Record] = deque()
        self._waits: dict[str, list[int]] = {}
        self._last = -1
        self._timestamp = 0
        self._dropped: dict[str, list[Dropped]] = defaultdict(list)
        self._named: dict[str, ArticleStats] = {}

    def to(self, offset: int) -> PartitionTotals:
        """Return the totals as of ``offset``, or as of what the states hold, which may be further."""
        for record in self._states.catch_up():
            self._take_state(record)
        for record in self._stats.catch_up():
            self._take_stats(record)
        for record in self._letters.catch_up():
            letter = read_letter(record)
            if (letter.worker, letter.topic, letter.partition) == ("users", self._topics.user_events, self._partition):
                dropped = Dropped(letter.offset, letter.timestamp_ms)
                self._dropped[(letter.key or b"").decode(errors="replace")].append(dropped)
        waits = [wait for waits in self._waits.values() for wait in waits]
        offset = max([offset, self._last + 1, *(wait + 1 for wait in waits)])  # Kafka may have lost commits
        self._account.know_dropped(self._dropped)
        self._to_come.extend(self._log.catch_up())
        while self._to_come and self._to_come[0].offset() < offset:
            record = self._to_come.popleft()
            self._account.take(record)
            self._timestamp = max(self._timestamp, record.timestamp()[1])
        self.totals = msgspec.structs.replace(
            self._account.totals(waits), timestamp=self._timestamp, next_offset=offset,
            reasons=_names(name for stats in self._named.values() for name in stats.reasons),
            regions=_names(name for stats in self._named.values() for name in stats.regions),
            sources=_names(k.removeprefix(SOURCE_PREFIX) for k in self._named if k.startswith(SOURCE_PREFIX)),
        )  # fmt: skip
        return self.totals

    def _take_state(self, record: Record) -> None:
        if record.key() == PARTITION_KEY:
            return
        user_id, state = text_key(record), readable_state(record.value(), self._model)
        self._waits.pop(user_id, None)
        if state is not None and not isinstance(state, str):
            self._last = max(self._last, state.last_offset)
            if waits := own_waits(state):
                self._waits[user_id] = waits

    def _take_stats(self, record: Record) -> None:
        key, value = text_key(record), record.value()
        self._named.pop(key, None)
        if value is not None:
            try:
                self._named[key] = decode_stats(value)
            except UnreadableState:
                return


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name != OTHER_NAME)


def _is_damaged(decode: Callable[[bytes], object], value: bytes | None) -> bool:
    if value is None:
        return False
    try:
        decode(value)
    except NewerState:
        return False
    except UnreadableState:
        return True
    return False
