"""The events of one partition counted from the log alone: nothing of it is shared with the fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contract.errors import BadRecord
from contract.messages import Event, decode_event
from contract.murmur2 import partition_of
from contract.records import PartitionTotals, UserRecord
from encoders.articles import hash_bytes
from encoders.fold_rules import FoldLimits
from encoders.user_state import MASK64, event_hash
from streams.record import Record


@dataclass(frozen=True)
class Dropped:
    """A waiting event that became a dead letter, at this time, epoch ms."""

    offset: int
    at: int


@dataclass(slots=True)
class Counted:
    """A user's events since their state began, those that wait or were dropped while waiting among them.

    ``whole``: their beginning is known. ``seen`` are the last event ids and where they came first.
    """

    whole: bool
    began: int = 0
    events: int = 0
    hash_sum: int = 0
    last_offset: int = -1
    timestamp: int = 0
    seen: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def of(cls, state: UserRecord, partition: int, began: int) -> Counted:
        """Begin with what a state says; ``began`` is the offset it stands at."""
        waits = [wait.offset for wait in state.windows.waiting if wait.carried_from < 0]
        seen = state.windows.seen
        return cls(
            whole=True,
            began=min([began, *waits]),
            events=state.folded + len(waits),
            hash_sum=state.hash_sum + sum(event_hash(partition, offset) for offset in waits),
            last_offset=state.last_offset,
            timestamp=state.timestamp,
            seen={seen[i : i + 8]: -1 for i in range(0, len(seen), 8)},
        )


class EventAccount:
    """Takes the records of one partition in their order, and counts what the worker should have counted.

    ``first`` is the offset of the first record that the log still has: where it is not 0, who was there before is not
    known, and a user is ``whole`` only from a merge or forget on. ``is_exact``: the totals can be told.
    """

    def __init__(self, partition: int, partitions: int, limits: FoldLimits, first: int) -> None:
        self.partition = partition
        self.users: dict[str, Counted] = {}
        self.next_offset = first
        self.read = 0
        self._partitions = partitions
        self._limits = limits
        self.from_the_beginning = self.is_exact = first == 0
        self._good = 0
        self._bad: set[int] = set()
        self._bad_before = 0
        self._duplicates = 0
        self._hash_sum = 0
        self._removed: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._dropped: dict[str, list[Dropped]] = {}

    def know_dropped(self, dropped: Mapping[str, Sequence[Dropped]]) -> None:
        """Take in all dead letters that there are of this partition, by user."""
        self._dropped = {user_id: sorted(all_, key=lambda d: d.offset) for user_id, all_ in dropped.items()}

    def take(self, record: Record) -> Event | None:
        """Count a record; return its event where it counts for a state, None where it is dead or a duplicate."""
        offset, timestamp = record.offset(), record.timestamp()[1]
        self.read += 1
        self.next_offset = offset + 1
        try:
            event = decode_event(key := record.key(), record.value())
            if partition_of(key or b"", self._partitions) != self.partition:
                raise BadRecord("wrong_partition", "")
        except BadRecord:
            self._bad.add(offset)
            return None
        user_id = event.user_id
        user = self.users.get(user_id)
        if user is None or (user.timestamp and timestamp - user.timestamp > self._limits.user_ttl_ms):
            whole = user is not None or self.from_the_beginning or user_id in self._removed
            user = self.users[user_id] = Counted(whole=whole, began=offset)
        if event.kind != "forget" and event.event_id and self._is_duplicate(user_id, user, event, offset, timestamp):
            self._duplicates += 1
            return None
        self._good += 1
        hashed = event_hash(self.partition, offset)
        self._hash_sum += hashed
        if event.kind in ("merge", "forget"):
            del self.users[user_id]
            self._removed[user_id].append((offset, timestamp))
            return event
        user.events += 1
        user.hash_sum += hashed
        user.last_offset = offset
        user.timestamp = timestamp
        return event

    def begin_with(self, user_id: str, state: UserRecord) -> None:
        """Believe a state, and go on counting from it."""
        self.users[user_id] = Counted.of(state, self.partition, self.next_offset)

    def begin_with_totals(self, totals: PartitionTotals, waits: Sequence[int]) -> None:
        """Believe a partition's totals, and go on counting from them."""
        dropped = [offset for offset, _ in self._all_dropped(set(waits))]
        self.read = totals.read
        self._good = totals.folded + totals.waiting + len(dropped)
        self._duplicates = totals.duplicate
        self._bad_before = totals.dead - len(dropped) - len(self._bad)
        self.is_exact = True
        self._hash_sum = totals.hash_sum + sum(event_hash(self.partition, offset) for offset in (*waits, *dropped))

    def dropped_of(self, user_id: str, user: Counted) -> list[int]:
        """The offsets of a user's events that became dead letters while they waited."""
        return [
            d.offset
            for d in self._dropped.get(user_id, ())
            if user.began <= d.offset < self.next_offset and d.offset not in self._bad
        ]

    def totals(self, waits: Sequence[int]) -> PartitionTotals:
        """What the partition's totals should be where the events at the offsets ``waits`` wait."""
        dropped = [offset for offset, _ in self._all_dropped(set(waits))]
        aside = [*waits, *dropped]
        return PartitionTotals(
            read=self.read,
            folded=self._good - len(aside),
            waiting=len(waits),
            duplicate=self._duplicates,
            dead=self._bad_before + len(self._bad) + len(dropped),
            hash_sum=(self._hash_sum - sum(event_hash(self.partition, offset) for offset in aside)) & MASK64,
        )

    def _all_dropped(self, waits: set[int]) -> list[tuple[int, str]]:
        """What was dropped where it lay; what a merge had moved counts as folded, and is dropped elsewhere."""
        return [
            (d.offset, user_id)
            for user_id, dropped in self._dropped.items()
            for d in dropped
            if d.offset < self.next_offset and d.offset not in self._bad and d.offset not in waits
            and not any(d.offset < offset and d.at > at for offset, at in self._removed.get(user_id, ()))
        ]  # fmt: skip

    def _is_duplicate(self, user_id: str, user: Counted, event: Event, offset: int, timestamp: int) -> bool:
        seen = user.seen
        for d in self._dropped.get(user_id, ()):  # what was dropped may come again
            if d.at <= timestamp:
                for hashed in [hashed for hashed, at in seen.items() if at == d.offset]:
                    del seen[hashed]
        hashed = hash_bytes(event.event_id)
        if hashed in seen:
            return True
        seen[hashed] = offset
        if len(seen) > self._limits.seen:
            del seen[next(iter(seen))]
        return False
