"""The users worker's tables: restored from their changelogs, folded into, adopted after a commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from consumers.article_view import ArticleChange
from contract.errors import BadRecord, SetupError
from contract.messages import decode_event
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, PartitionTotals, decode_stats, decode_totals, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import ArticleTable
from encoders.decay import Decay
from encoders.fold import FOLDED_KINDS, Arrival, Fold, FoldLimits
from encoders.user_state import PartitionState, UserState
from streams.record import Record, text_key
from streams.restore import Restore


@dataclass
class Batch:
    """Staged folds by partition, the records that could not be used, and the totals before."""

    folds: dict[int, Fold] = field(default_factory=dict)
    bad: list[tuple[Record, BadRecord]] = field(default_factory=list)
    before: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.folds)

    def outcomes(self) -> dict[str, int]:
        """By how much each total of an outcome grew."""
        grown = dict.fromkeys(("folded", "waiting", "duplicate", "dead"), 0)
        for partition, fold in self.folds.items():
            for (outcome, _), before, now in zip(grown.items(), self.before[partition], _totals(fold), strict=True):
                grown[outcome] += now - before
        return grown


class UserTables:
    """State of the partitions owned, by partition number."""

    def __init__(self, settings: Settings, topics: Topics, model: Decay, articles: ArticleTable) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._articles = articles
        self._partitions: dict[int, PartitionState] = {}
        self._unsettled: set[str] = set()
        self._limits = FoldLimits(
            waiting_clicks=settings.waiting_clicks,
            waiting_ms=round(settings.waiting_hours * 3_600_000),
            user_ttl_ms=round(settings.user_ttl_days * 86_400_000),
        )

    def user_count(self) -> int:
        return sum(len(state.users) for state in self._partitions.values())

    def waiting_count(self) -> int:
        return sum(state.totals.waiting for state in self._partitions.values())

    def restore(self, restore: Restore) -> None:
        """Read the changelogs of these partitions to their ends. Blocks.

        Raises :class:`SetupError` where a state holds events that are still to be read by the group's offsets.
        """
        restored = {p: PartitionState(p) for p in restore.committed}
        for topic, apply in ((self._topics.user_vectors, _apply_user), (self._topics.article_stats, _apply_stats)):
            restore.read(topic, lambda record, apply=apply: apply(restored[record.partition()], record))  # type: ignore[misc]
        for partition, state in restored.items():
            if partition not in restore.damaged:
                self._check_offset(state, restore.committed[partition])
                self._partitions[partition] = state
                self._unsettled |= state.waiting_for.keys() | state.stats.keys()

    def drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)

    def fold(self, records: Sequence[Record], changes: Iterable[ArticleChange]) -> Batch:
        """Stage a batch: first what waited for articles that changed, then the new events."""
        self._unsettled.update(change.article_id for change in changes)
        arrivals, bad = self._decode(records)
        batch = Batch(bad=bad)
        dead = defaultdict(list)
        for record, _ in bad:
            dead[record.partition()].append(record.timestamp()[1])
        for partition, state in self._partitions.items():
            settled = [a for a in self._unsettled if a in state.waiting_for or a in state.stats]
            if not (settled or partition in arrivals or partition in dead):
                continue
            fold = Fold(state, self._articles, self._model, self._limits)
            fold.settle(sorted(a for a in settled if self._settles(a)))
            fold.take(arrivals.get(partition, ()))
            fold.count_dead(dead.get(partition, ()))
            fold.finish()
            if fold.changed:
                batch.folds[partition] = fold
                batch.before[partition] = _totals(state)
        if not batch.folds:
            self._unsettled.clear()
        return batch

    def adopt(self, batch: Batch) -> None:
        """Make a batch current; only after its transaction is known to be committed."""
        for fold in batch.folds.values():
            fold.adopt()
        self._unsettled.clear()

    def _check_offset(self, state: PartitionState, committed: int) -> None:
        last = max((user.last_offset for user in state.users.values()), default=-1)
        if last >= committed:
            raise SetupError(
                f"{self._topics.user_vectors}[{state.partition}] holds events of {self._topics.user_events} up to "
                f"offset {last}, and the group would read them again from {committed} on: its offsets have expired or "
                f"were set back, or the topic was made anew; set them to {last + 1} with kafka-consumer-groups "
                "--reset-offsets, or delete the topics of the generation to fold anew"
            )

    def _settles(self, article_id: str) -> bool:
        return self._articles.row(article_id) is not None or self._articles.is_gone(article_id)

    def _decode(self, records: Sequence[Record]) -> tuple[dict[int, list[Arrival]], list[tuple[Record, BadRecord]]]:
        arrivals: dict[int, list[Arrival]] = defaultdict(list)
        bad = []
        for record in records:
            partition = record.partition()
            try:
                event = decode_event(key := record.key(), value := record.value())
                assert key is not None
                assert value is not None
                if event.user_id not in self._partitions[partition].users:
                    self._check_partition(key, partition)
                if event.kind not in FOLDED_KINDS:
                    raise BadRecord("kind_not_folded", f"this version does not fold {event.kind!r} events yet")
            except BadRecord as error:
                bad.append((record, error))
                continue
            arrivals[partition].append(Arrival(record.offset(), record.timestamp()[1], event, value))
        return arrivals, bad

    def _check_partition(self, key: bytes, partition: int) -> None:
        right = partition_of(key, self._settings.partitions)
        if right != partition:
            raise BadRecord(
                "wrong_partition",
                f"the key belongs into partition {right}, not {partition}; send with the murmur2_random partitioner",
            )


def _totals(state: PartitionState | Fold) -> tuple[int, int, int, int]:
    totals = state.totals
    return totals.folded, totals.waiting, totals.duplicate, totals.dead


def _apply_user(state: PartitionState, record: Record) -> None:
    value = record.value()
    if record.key() == PARTITION_KEY:
        state.totals = PartitionTotals() if value is None else decode_totals(value)
    else:
        state.put(text_key(record), None if value is None else UserState.from_record(decode_user(value)))


def _apply_stats(state: PartitionState, record: Record) -> None:
    value = record.value()
    state.put_stats(text_key(record), None if value is None else decode_stats(value))
