"""The users worker's tables: restored from their changelogs, folded into, adopted after a commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Histogram

from consumers.article_view import ArticleChange
from consumers.mending import mending_of_counts, mending_of_user
from contract.errors import BadRecord, SetupError, UnreadableState
from contract.messages import decode_event
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, PartitionTotals, decode_co_reads, decode_stats, decode_totals, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import ArticleTable
from encoders.decayed import DecayedSums
from encoders.fold import Fold
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, Arrival, FoldLimits
from encoders.interest import InterestModel
from encoders.user_state import NEVER, PartitionState
from streams.record import Record, text_key
from streams.restore import Restore

_PHASE = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
DECODE_SECONDS = Histogram("stoppress_users_decode_seconds", "Decoding the events of a batch", buckets=_PHASE)
FOLD_SECONDS = Histogram("stoppress_users_fold_seconds", "Folding a batch into staged states", buckets=_PHASE)


@dataclass
class Batch:
    """Staged folds by partition, and the records that could not be used."""

    folds: dict[int, Fold] = field(default_factory=dict)
    bad: list[tuple[Record, BadRecord]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.folds)


class UserTables:
    """State of the partitions owned, by partition number."""

    def __init__(self, settings: Settings, topics: Topics, model: InterestModel, articles: ArticleTable) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._articles = articles
        self._partitions: dict[int, PartitionState] = {}
        self._unsettled: set[str] = set()
        self._limits = FoldLimits.of(settings)

    def user_count(self) -> int:
        return sum(len(state.users) for state in self._partitions.values())

    def waiting_count(self) -> int:
        return sum(state.totals.waiting for state in self._partitions.values())

    def folded_at(self) -> dict[int, int]:
        """Return by partition the timestamp of the last record folded, epoch ms; 0 where none was."""
        return {partition: state.totals.timestamp for partition, state in self._partitions.items()}

    def state_bytes(self) -> int:
        return sum(state.bytes for state in self._partitions.values())

    def oldest_wait(self) -> int | None:
        """Return the timestamp of the event that waits longest, epoch ms."""
        return min(
            (oldest for state in self._partitions.values() if (oldest := state.oldest_wait()) < NEVER), default=None
        )

    def restore(self, restore: Restore) -> None:
        """Read the changelogs of these partitions to their ends. Blocks.

        Raises :class:`SetupError` where a state holds events that are still to be read by the group's offsets.
        """
        restored = {p: PartitionState(p) for p in restore.committed}
        changelogs = (
            (self._topics.user_vectors, self._apply_user, mending_of_user),
            (self._topics.article_stats, _apply_stats, mending_of_counts),
            (self._topics.co_reads, _apply_co_reads, mending_of_counts),
        )
        for topic, apply, mending in changelogs:
            restore.read(topic, lambda record, apply=apply: apply(restored[record.partition()], record), mending)  # type: ignore[misc]
        for partition, state in restored.items():
            if partition not in restore.damaged:
                restore.reached(partition, state.totals.next_offset)
                self._check_offset(state, restore.committed[partition])
                self._partitions[partition] = state
                self._unsettled |= state.waiting_for.keys() | state.stats.keys() | state.co_reads.keys()

    def drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)

    def fold(self, records: Sequence[Record], changes: Iterable[ArticleChange]) -> Batch:
        """Stage a batch: first what waited for articles that changed, then the new events."""
        self._unsettled.update(change.article_id for change in changes)
        if not records:
            return self._staged({}, [])
        with DECODE_SECONDS.time():
            arrivals, bad = self._decode(records)
        with FOLD_SECONDS.time():
            return self._staged(arrivals, bad)

    def _staged(self, arrivals: Mapping[int, Sequence[Arrival]], bad: list[tuple[Record, BadRecord]]) -> Batch:
        batch = Batch(bad=bad)
        dead = defaultdict(list)
        last = {partition: arrived[-1].offset for partition, arrived in arrivals.items()}
        for record, _ in bad:
            partition = record.partition()
            dead[partition].append((record.timestamp()[1], record.value()))
            last[partition] = max(last.get(partition, -1), record.offset())
        for partition, state in self._partitions.items():
            counted = state.stats, state.co_reads
            settled = [a for a in self._unsettled if a in state.waiting_for or any(a in of for of in counted)]
            if not (settled or partition in arrivals or partition in dead):
                continue
            fold = Fold(state, self._articles, self._model, self._limits)
            fold.settle(sorted(a for a in settled if self._settles(a)))
            fold.take(arrivals.get(partition, ()))
            fold.count_dead(dead.get(partition, ()))
            if partition in last:
                fold.totals.next_offset = last[partition] + 1
            fold.finish()
            if fold.changed:
                batch.folds[partition] = fold
        if not batch.folds:
            self._unsettled.clear()
        return batch

    def adopt(self, batch: Batch) -> None:
        """Make a batch current; only after its transaction is known to be committed."""
        for fold in batch.folds.values():
            fold.adopt()
        self._unsettled.clear()

    def _apply_user(self, state: PartitionState, record: Record) -> None:
        value = record.value()
        if record.key() == PARTITION_KEY:
            state.totals = PartitionTotals() if value is None else decode_totals(value)
            return
        user = None if value is None else decode_user(value)
        if user is not None and len(user.numbers) != 4 * self._model.state_size:
            raise UnreadableState(
                f"the state has {len(user.numbers) // 4} numbers where the interest model keeps "
                f"{self._model.state_size}"
            )
        state.put(text_key(record), user)

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


def _apply_stats(state: PartitionState, record: Record) -> None:
    value = record.value()
    state.put_stats(text_key(record), None if value is None else decode_stats(value))


def _apply_co_reads(state: PartitionState, record: Record) -> None:
    value = record.value()
    sums = None if value is None else DecayedSums.of(decode_co_reads(value), CO_READS_HALF_LIFE_MS)
    state.put_co_reads(text_key(record), sums)
