"""What becomes of the events of a batch, and of those that wait: nothing goes without being counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from contract.errors import BadRecord
from contract.messages import KINDS, UNKNOWN_KIND
from contract.records import PartitionTotals, UserRecord, Waiting, Windows
from encoders.articles import hash_bytes
from encoders.fold_rules import Dropped, FoldLimits
from encoders.user_state import MASK64, event_hash
from encoders.windows import find, without


class _Identified(msgspec.Struct):
    event_id: str = ""
    user_id: str = ""
    kind: str = ""


_identified = msgspec.json.Decoder(_Identified).decode


def _sent(value: bytes | None) -> _Identified:
    """What can be told of a value, which may be anything."""
    try:
        return _identified(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Identified()


def _kind(sent: _Identified) -> str:
    return sent.kind if sent.kind in KINDS else UNKNOWN_KIND


class Account:
    """``totals`` are staged; ``folded``, ``waiting``, ``duplicate`` and ``dead`` count by kind in this batch."""

    def __init__(self, partition: int, totals: PartitionTotals, limits: FoldLimits) -> None:
        self._partition = partition
        self._limits = limits
        self._hash_sum = totals.hash_sum
        self.totals = msgspec.structs.replace(totals)
        self.folded: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        self.duplicate: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.dropped: list[Dropped] = []

    def fold(self, state: UserRecord | None, hashed: int, kind: str) -> None:
        """Count an event as folded, in the state too where there is one."""
        self.folded[kind] += 1
        self._hash_sum += hashed
        if state is not None:
            state.folded += 1
            state.hash_sum += hashed

    def fold_waited(self, state: UserRecord | None, wait: Waiting, kind: str) -> None:
        """Count an event that waited as folded, unless it was where an absorb carried it over from."""
        if wait.carried_from < 0:
            self.totals.waiting -= 1
            self.fold(state, event_hash(self._partition, wait.offset), kind)

    def wait(self, kind: str) -> None:
        self.totals.waiting += 1
        self.waiting[kind] += 1

    def count_dead(self, records: Sequence[tuple[int, bytes | None]]) -> None:
        """Count records of this partition, timestamp and value, that became dead letters before they came here."""
        self.totals.read += len(records)
        self.totals.dead += len(records)
        for timestamp, value in records:
            self.totals.timestamp = max(self.totals.timestamp, timestamp)
            self.dead[_kind(_sent(value))] += 1

    def finish(self) -> None:
        """Bring the totals up to date."""
        self.totals.folded += sum(self.folded.values())
        self.totals.duplicate += sum(self.duplicate.values())
        self.totals.hash_sum = self._hash_sum & MASK64

    def bound(self, user_id: str, windows: Windows) -> None:
        """Push out the oldest of too many waiting events."""
        most = self._limits.waiting_clicks
        too_many = windows.waiting[: max(0, len(windows.waiting) - most)]
        windows.waiting = windows.waiting[len(too_many) :]
        for wait in too_many:
            self._drop_unmet(user_id, windows, wait, f"more than {most} clicks wait")

    def drop_overdue(self, user_id: str, windows: Windows) -> None:
        """Push out what waited too long by the time of the partition's last record.

        To look at a user whenever they are touched, and at everybody in the end, has the same outcome as to
        look at everybody at each record.
        """
        oldest = self.totals.timestamp - self._limits.waiting_ms
        overdue = [wait for wait in windows.waiting if wait.timestamp < oldest]
        if overdue:
            windows.waiting = tuple(wait for wait in windows.waiting if wait.timestamp >= oldest)
            for wait in overdue:
                hours = self._limits.waiting_ms / 3_600_000
                self._drop_unmet(user_id, windows, wait, f"it waited longer than {hours:g} hours")

    def drop(self, user_id: str, windows: Windows, wait: Waiting, error: BadRecord) -> None:
        """Make a dead letter of a waiting event."""
        sent = _sent(wait.value)
        if wait.carried_from >= 0:  # counted as folded where it lay
            self.dropped.append(Dropped(sent.user_id or user_id, wait.carried_from, wait, error))
            return
        self.dropped.append(Dropped(user_id, self._partition, wait, error))
        self.totals.waiting -= 1
        self.totals.dead += 1
        self.dead[_kind(sent)] += 1
        # It had no effect and may come again, as a requeued dead letter does.
        place = find(windows.seen, hash_bytes(sent.event_id))
        if place >= 0:
            windows.seen = without(windows.seen, place, 8)

    def _drop_unmet(self, user_id: str, windows: Windows, wait: Waiting, why: str) -> None:
        error = BadRecord("no_vector_in_time", f"article {wait.article_id!r} has no vector and {why} for this user")
        self.drop(user_id, windows, wait, error)
