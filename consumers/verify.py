"""``stoppress verify``: the states of a running system held against its log.

Twice, some seconds apart: the committed offsets, then the states and totals, then the dead letters, then the log up to
where the states are. Counts and hash sums are made from the log by :mod:`consumers.event_account`; vectors and windows
are folded anew, where no article that went into one was written after the event. Where retention took the beginning of
a user's log, their first state is believed, and only what comes after it is checked.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import msgspec
import numpy as np

from consumers.article_view import vector_of
from consumers.event_account import Counted, Dropped, EventAccount
from contract.errors import BadRecord, UnreadableState
from contract.messages import ARTICLE_KINDS, Event, decode_carried, decode_event
from contract.records import PARTITION_KEY, PartitionTotals, UserRecord, decode_totals, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import ArticleTable, hash64
from encoders.fold import Fold
from encoders.fold_rules import Arrival, FoldLimits
from encoders.interest import InterestModel
from encoders.user_state import MASK64, PartitionState, event_hash
from streams.clients import make_admin
from streams.committed import committed_offsets
from streams.dead_letters import letters
from streams.record import Record, text_key
from streams.table import TableReader, first_offsets
from streams.worker import Identity, Stop

NAME = "verify"
RELATIVE = 1e-4
FOLDED_AT_ONCE = 5000
# An article is in the topic before a worker has it.
SURELY_KNOWN_MS = 1000
TOLD = 20
WINDOWS = (
    "read", "read_kinds", "shown", "shown_counts", "recents", "seen", "follows", "mutes", "limited_until", "affinities",
    "affinities_at", "minute", "minute_events", "record_minute", "record_minute_events", "language", "region", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A record of ``user-vectors`` that is not what the log says; ``key`` is a user_id or ``~partition``."""

    partition: int
    offset: int
    key: str
    what: str
    found: str
    expected: str


@dataclass
class Report:
    """What was compared in the first look, and the first of the differences in either.

    ``vectors`` of the ``users`` compared were folded anew too, and their windows. ``unchecked_users`` were there before
    the log begins; only what came between the looks was checked of them, as of the totals of ``unchecked_partitions``.
    ``events`` were read in all, ``later_events`` between the looks.
    """

    users: int = 0
    vectors: int = 0
    partitions: int = 0
    events: int = 0
    later_events: int = 0
    unchecked_users: int = 0
    unchecked_partitions: int = 0
    different: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not self.different


def verify(
    settings: Settings, topics: Topics, model: InterestModel, stop: Stop, *, seconds: float = 5.0,
    sample: int | None = None,
) -> Report:  # fmt: skip
    """Compare twice, ``seconds`` apart, all users or ``sample`` of them; blocks. Raises :class:`StoppressError`."""
    with ExitStack() as stack:
        checked = _System(settings, topics, model, sample, stack)
        report = checked.look()
        stop.wait(seconds)
        second = checked.look()
        told = {(d.partition, d.key) for d in report.differences}
        further = [d for d in second.differences if (d.partition, d.key) not in told]
        report.differences = (report.differences + further)[:TOLD]
        report.different += len(further)
        report.later_events = second.events
        report.events += second.events
        return report


@dataclass
class _Partition:
    account: EventAccount
    folded: PartitionState
    states: dict[str, tuple[int, UserRecord]] = field(default_factory=dict)
    unreadable: dict[str, Difference] = field(default_factory=dict)
    waits: dict[str, list[int]] = field(default_factory=dict)
    totals: tuple[int, PartitionTotals] = (-1, PartitionTotals())
    last_offset: int = -1
    counted_to: int = 0
    arrivals: list[Arrival] = field(default_factory=list)
    to_come: deque[Record] = field(default_factory=deque)
    changed: set[str] = field(default_factory=set)


class _System:
    """What one verification has read so far."""

    def __init__(
        self, settings: Settings, topics: Topics, model: InterestModel, sample: int | None, stack: ExitStack
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._sample = sample
        self._stack = stack
        self._limits = FoldLimits.of(settings)
        self._group = Identity.of(settings, "users", topics.generation).group
        self._articles = ArticleTable(model.dims)
        self._written: dict[str, int] = {}
        firsts = first_offsets(make_admin(settings), topics.user_events, range(settings.partitions))
        self._partitions = {
            p: _Partition(EventAccount(p, settings.partitions, self._limits, first), PartitionState(p))
            for p, first in firsts.items()
        }
        self._readers: dict[str, TableReader] = {}
        self._below = 1 << 64
        self._report = Report()

    def look(self) -> Report:
        """Read what there is now, and compare."""
        self._report = Report()
        before = self._committed()
        self._read_states()
        after = self._committed()
        settled = self._read_articles()
        dropped = self._dropped()
        for number, part in self._partitions.items():
            part.account.know_dropped(dropped[number])
            self._aim(part, before[number][0])
            self._fold(part, settled)
        self._read_log()
        for number, part in self._partitions.items():
            self._fold(part)
            self._compare_totals(part, quiet=before[number] == after[number])
            self._compare_users(part)
        return self._report

    def _committed(self) -> dict[int, tuple[int, str]]:
        numbers = range(self._settings.partitions)
        return committed_offsets(self._settings, self._group, self._topics.user_events, numbers)

    def _new(self, topic: str) -> Iterable[Record]:
        """The records of a topic up to its present end, without those of the look before."""
        if topic not in self._readers:
            self._readers[topic] = self._stack.enter_context(closing(TableReader(self._settings, topic, name=NAME)))
        return self._readers[topic].catch_up()

    def _read_log(self) -> None:
        for record in self._new(self._topics.user_events):
            part = self._partitions[record.partition()]
            if part.to_come or self._is_to_come(part, record):
                part.to_come.append(record)
            else:
                self._count(part, record)

    def _aim(self, part: _Partition, committed: int) -> None:
        """Find up to which offset the states have taken in the log, and count what was read before."""
        waits = [offset for offsets in part.waits.values() for offset in offsets]
        told = part.totals[1].next_offset
        part.counted_to = max([committed, told, part.last_offset + 1, *(offset + 1 for offset in waits)])
        while part.to_come and not self._is_to_come(part, part.to_come[0]):
            self._count(part, part.to_come.popleft())

    def _is_to_come(self, part: _Partition, record: Record) -> bool:
        if record.offset() < part.counted_to:
            return False
        account = part.account
        return not account.is_exact or account.read >= part.totals[1].read

    def _count(self, part: _Partition, record: Record) -> None:
        self._report.events += 1
        event = part.account.take(record)
        if event is not None and self._wanted(event.user_id):
            timestamp = record.timestamp()[1]
            self._note_changed(part, event, timestamp)
            part.arrivals.append(Arrival(record.offset(), timestamp, event, record.value() or b""))
            if len(part.arrivals) == FOLDED_AT_ONCE:
                self._fold(part)

    def _read_states(self) -> None:
        for record in self._new(self._topics.user_vectors):
            part, key, value = self._partitions[record.partition()], text_key(record), record.value()
            part.unreadable.pop(key, None)
            try:
                if key == PARTITION_KEY.decode():
                    part.totals = record.offset(), PartitionTotals() if value is None else decode_totals(value)
                    continue
                state = None if value is None else decode_user(value)
                if state is not None and len(state.numbers) != 4 * self._model.state_size:
                    raise UnreadableState(f"it has {len(state.numbers) // 4} numbers")
            except UnreadableState as error:
                place = record.partition(), record.offset(), key
                part.unreadable[key] = Difference(*place, "record", str(error), "a state that can be read")
                continue
            part.states.pop(key, None)
            part.waits.pop(key, None)
            if state is None:
                continue
            part.last_offset = max(part.last_offset, state.last_offset)
            if state.windows.waiting:
                part.waits[key] = [wait.offset for wait in state.windows.waiting if wait.carried_from < 0]
            if self._wanted(key):
                part.states[key] = record.offset(), state
                self._keep_to_the_sample(2 * (self._sample or 0))
        self._keep_to_the_sample(self._sample or 0)

    def _wanted(self, user_id: str) -> bool:
        return self._sample is None or hash64(user_id) < self._below

    def _keep_to_the_sample(self, most: int) -> None:
        """Of more than ``most`` users keep as many as the sample has, those with the smallest hashes."""
        if self._sample is None or sum(len(part.states) for part in self._partitions.values()) <= most:
            return
        hashes = sorted(hash64(user_id) for part in self._partitions.values() for user_id in part.states)
        self._below = hashes[self._sample]
        for part in self._partitions.values():
            part.states = {user_id: state for user_id, state in part.states.items() if self._wanted(user_id)}

    def _read_articles(self) -> list[str]:
        changed = []
        for record in self._new(self._topics.article_vectors):
            article_id = text_key(record)
            changed.append(article_id)
            if record.value() is None:
                self._articles.withdraw(article_id)
                self._written.pop(article_id, None)
                continue
            with suppress(UnreadableState):  # the worker left it out too
                self._articles.put(article_id, vector_of(record, self._model.dims))
                self._written[article_id] = record.timestamp()[1]
        return changed

    def _dropped(self) -> dict[int, dict[str, list[Dropped]]]:
        dropped: dict[int, dict[str, list[Dropped]]] = defaultdict(lambda: defaultdict(list))
        for letter in letters(self._settings, self._topics):
            if letter.worker == "users" and letter.topic == self._topics.user_events and letter.key is not None:
                user_id = letter.key.decode(errors="replace")
                dropped[letter.partition][user_id].append(Dropped(letter.offset, letter.timestamp_ms))
        return dropped

    def _fold(self, part: _Partition, settled: Sequence[str] = ()) -> None:
        """Fold what was counted, and what waited for the articles ``settled``."""
        if part.arrivals or settled:
            fold = Fold(part.folded, self._articles, self._model, self._limits)
            fold.settle(settled)
            fold.take(part.arrivals)
            fold.finish()
            fold.adopt()
            part.arrivals = []

    def _note_changed(self, part: _Partition, event: Event, timestamp: int) -> None:
        """Note whose vector cannot be folded anew: an article of theirs is gone, or came or changed since."""
        if event.kind in ("merge", "forget") or part.account.users[event.user_id].events == 1:
            part.changed.discard(event.user_id)
        if any(self._written.get(a, timestamp) + SURELY_KNOWN_MS > timestamp for a in _articles_of(event)):
            part.changed.add(event.user_id)

    def _compare_totals(self, part: _Partition, *, quiet: bool) -> None:
        """``quiet``: nothing was committed while the states were read, so it is known where exactly they stand."""
        offset, totals = part.totals
        account, key = part.account, PARTITION_KEY.decode()
        if key in part.unreadable:
            return
        waits = [offset for offsets in part.waits.values() for offset in offsets]
        expected = account.totals(waits)
        compared = ["read", "duplicate", "dead"]
        if not account.is_exact:
            expected, compared = msgspec.structs.replace(totals, waiting=len(waits)), []
            self._report.unchecked_partitions += 1
        if not part.unreadable:  # else it is not known what waits
            compared += ["waiting", "folded", "hash_sum"]
        sums = {"all outcomes": (totals.read, totals.folded + totals.waiting + totals.duplicate + totals.dead)}
        sums |= {what: (getattr(totals, what), getattr(expected, what)) for what in compared}
        self._report.partitions += account.is_exact
        for what, (told, wanted) in sums.items():
            if told != wanted:
                self._differs(Difference(account.partition, offset, key, what, str(told), str(wanted)))
                return
        if quiet and not account.is_exact:
            account.begin_with_totals(totals, waits)

    def _compare_users(self, part: _Partition) -> None:
        account, newest = part.account, part.totals[1].timestamp
        for difference in part.unreadable.values():
            self._differs(difference)
        for user_id, (offset, state) in part.states.items():
            user = account.users.get(user_id)
            if user is None and account.from_the_beginning:
                what = f"{state.folded} events"
                self._differs(
                    Difference(account.partition, offset, user_id, "state", what, "none of theirs in the log")
                )
            elif user is None or not (user.whole or self._same_count(part, user_id, user, state)):
                self._report.unchecked_users += 1
                self._believe(part, user_id, state)
            else:
                self._compare_user(part, user_id, user, offset, state)
        absent = part.unreadable.keys() | self._removed_next(part)
        for user_id, user in account.users.items():
            idle = newest - user.timestamp > self._limits.user_ttl_ms
            if not (user_id in part.states or user_id in absent or idle) and self._wanted(user_id):
                expected = f"{user.events} events up to offset {user.last_offset}"
                self._differs(Difference(account.partition, -1, user_id, "state", "none", expected))

    def _same_count(self, part: _Partition, user_id: str, user: Counted, state: UserRecord) -> bool:
        """Whether all of a user's events are in the log after all."""
        aside = len(part.waits.get(user_id, ())) + len(part.account.dropped_of(user_id, user))
        return user.events - aside >= state.folded

    def _compare_user(self, part: _Partition, user_id: str, user: Counted, offset: int, state: UserRecord) -> None:
        account, number = part.account, part.account.partition
        self._report.users += 1
        waits = part.waits.get(user_id, [])
        aside = {*waits, *account.dropped_of(user_id, user)}
        hash_sum = (user.hash_sum - sum(event_hash(number, offset) for offset in aside)) & MASK64
        pairs = {"count": (state.folded, user.events - len(aside)), "hash sum": (state.hash_sum, hash_sum)}
        if not aside:
            pairs["last offset"] = state.last_offset, user.last_offset
        for what, (told, wanted) in pairs.items():
            if told != wanted:
                self._differs(Difference(number, offset, user_id, what, str(told), str(wanted)))
                self._believe(part, user_id, state)
                return
        folded = part.folded.users.get(user_id)
        if user_id in part.changed or folded is None:
            self._believe(part, user_id, state)
            return
        self._report.vectors += 1
        distance = float(np.linalg.norm(state.vector - folded.vector))
        if state.at != folded.at or not distance <= RELATIVE * float(np.linalg.norm(folded.vector)) + 1e-6:
            found = f"off by {distance:.3g}, as of {state.at}"
            expected = f"length {np.linalg.norm(folded.vector):.3g}, as of {folded.at}"
            self._differs(Difference(number, offset, user_id, "vector", found, expected))
            return
        for what in WINDOWS:
            found, expected = (_shortly(getattr(each.windows, what)) for each in (state, folded))
            if found != expected:
                self._differs(Difference(number, offset, user_id, what, found, expected))
                return

    def _believe(self, part: _Partition, user_id: str, state: UserRecord) -> None:
        """Go on from a state as it is, in the next look."""
        part.account.begin_with(user_id, state)
        part.folded.put(user_id, state)
        part.changed.discard(user_id)

    def _removed_next(self, part: _Partition) -> set[str]:
        """Who is merged or forgotten by what comes next in the log, and so may be gone already."""
        removed = set()
        for record in part.to_come:
            try:
                event = decode_event(record.key(), record.value())
            except BadRecord:
                continue
            if event.kind in ("merge", "forget"):
                removed.add(event.user_id)
        return removed

    def _differs(self, difference: Difference) -> None:
        self._report.different += 1
        if len(self._report.differences) < TOLD:
            self._report.differences.append(difference)


def _shortly(window: object) -> str:
    """What a window holds, in so few words that they can be told: bytes by their number and CRC."""
    return f"{len(window)} bytes, {zlib.crc32(window):08x}" if isinstance(window, bytes) else str(window)


def _articles_of(event: Event) -> set[str]:
    if event.kind == "impression":
        return {item.article_id for item in event.shown}
    if event.kind == "absorb":
        inside = [decode_carried(carried) for carried in event.events]
        return {each.article_id for each in inside if each.article_id}
    return {event.article_id} if event.article_id or event.kind in ARTICLE_KINDS else set()
