"""What a reader of committed records saw, held against an independent fold of the log, key by key."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from contract.messages import Event
from contract.records import (
    KIND_BITS,
    PARTITION_KEY,
    ArticleRecord,
    ArticleStats,
    PartitionTotals,
    UserRecord,
    Windows,
    decode_article,
    decode_stats,
    decode_totals,
    decode_user,
    recents_of,
)
from contract.settings import Settings
from contract.topics import Topics
from encoders.decay import Decay
from encoders.fold_rules import FoldLimits
from streams.clients import make_admin, make_consumer
from streams.record import Record
from streams.table import TableReader, end_offsets, read_to_end
from tests.chaos.load import decoded
from tests.reference_fold import STATS_HALF_LIFE, Reference, ReferenceUser
from tests.strategies import Change
from tests.strategies import Record as LogRecord

RELATIVE = 1e-4
SURELY_FOLDED_MS = 10_000  # so long after its vector came, nothing waits for an article any more


@dataclass(frozen=True)
class Version:
    """A state as it was seen: its proof. ``gone`` is a tombstone, after which the user begins anew."""

    user_id: str
    folded: int = 0
    last_offset: int = -1
    hash_sum: int = 0
    gone: bool = False


@dataclass
class Verdict:
    """How the workers' account and states differ from the log's; ``findings`` are a few of the differences in words."""

    events: int = 0
    lost: int = 0
    duplicated: int = 0
    misordered: int = 0
    mismatched_keys: int = 0
    states_seen: int = 0
    aborted: int = 0
    aborted_seen: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.misordered or self.mismatched_keys or self.aborted_seen)

    def find(self, what: str) -> None:
        if len(self.findings) < 20:
            self.findings.append(what)

    def mismatch(self, key: str, what: str) -> None:
        self.mismatched_keys += 1
        self.find(f"{key}: {what}")

    def disorder(self, what: str) -> None:
        self.misordered += 1
        self.find(what)


class Witness:
    """Reads ``user-vectors`` live, committed records only, on a thread of its own."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self.versions: list[Version] = []
        self.states: dict[str, UserRecord] = {}
        self.totals: dict[int, PartitionTotals] = {}
        self.disorders: list[str] = []
        self.places: set[tuple[int, int]] = set()
        self._reader = TableReader(settings, topics.user_vectors, name="chaos.witness", fetch_wait_ms=20)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="witness", daemon=True)
        self._thread.start()

    @property
    def read(self) -> int:
        """How many events the workers say they have read."""
        assert self._thread.is_alive(), "the witness broke off"
        return sum(totals.read for totals in list(self.totals.values()))

    def close(self) -> None:
        """Read to the present end, and end."""
        self._ended.set()
        self._thread.join()
        for record in self._reader.catch_up(30):
            self._take(record)
        self._reader.close()

    def _follow(self) -> None:
        while not self._ended.is_set():
            for record in self._reader.poll(0.1, limit=1000):
                self._take(record)

    def _take(self, record: Record) -> None:
        key, value = record.key(), record.value()
        assert key is not None
        self.places.add((record.partition(), record.offset()))
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
        self.versions.append(Version(user_id, user.folded, user.last_offset, user.hash_sum))

    def _take_totals(self, partition: int, totals: PartitionTotals) -> None:
        before = self.totals.get(partition, PartitionTotals())
        if not (totals.read >= before.read and totals.folded >= before.folded and totals.dead >= before.dead):
            self.disorders.append(f"the totals of partition {partition} went back from {before} to {totals}")
        if totals.read != totals.folded + totals.waiting + totals.duplicate + totals.dead:
            self.disorders.append(f"the totals of partition {partition} do not add up: {totals}")
        self.totals[partition] = totals


class Account:
    """The log of ``user-events`` folded anew from its beginning, plainly, record by record."""

    def __init__(self, settings: Settings, topics: Topics, model: Decay) -> None:
        articles, came_at = _articles(settings, topics)
        self._settings = settings
        self._topics = topics
        self._model = model
        self._late = {article_id: at for article_id, at in came_at.items() if article_id.startswith("late-")}
        self._folds = {p: Reference(model, FoldLimits.of(settings), p) for p in range(settings.partitions)}
        self._history: dict[tuple[str, int], tuple[int, int]] = {}
        self._late_readers: set[str] = set()
        self._forgets: dict[str, int] = {}
        self._late_clicks: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        self._forgotten: dict[tuple[int, str], set[int]] = defaultdict(set)
        self._events: Counter[int] = Counter()
        for fold in self._folds.values():
            for article_id, record in articles.items():
                fold.change(Change(article_id, record))
        for log_record in read_to_end(settings, topics.user_events, name="chaos.account"):
            self._fold(log_record)

    def compare(self, witness: Witness, *, vectors: bool) -> Verdict:
        """Hold everything that was seen against the fold; ``vectors`` is for articles that never changed."""
        verdict = Verdict(events=self._events.total(), states_seen=len(witness.versions))
        for what in witness.disorders:
            verdict.disorder(what)
        self._compare_totals(witness, verdict)
        self._compare_versions(witness, verdict)
        self._compare_states(witness, verdict, vectors)
        self._compare_statistics(verdict)
        aborted = self._aborted()
        verdict.aborted, verdict.aborted_seen = len(aborted), len(aborted & witness.places)
        return verdict

    def _aborted(self) -> set[tuple[int, int]]:
        """Where in ``user-vectors`` records lie that no transaction committed."""
        topic, partitions = self._topics.user_vectors, range(self._settings.partitions)
        ends = end_offsets(make_admin(self._settings), topic, partitions)
        consumer = make_consumer(
            self._settings, name="chaos.aborted", read_committed=False, extra={"enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        places, behind = set(), {p for p, end in ends.items() if end}
        while behind:
            for message in consumer.consume(10_000, 1.0):
                record = cast(Record, message)
                if message.error() is None:
                    places.add((record.partition(), record.offset()))
                elif record.offset() >= ends[record.partition()]:
                    behind.discard(record.partition())
        consumer.close()
        committed = read_to_end(self._settings, topic, name="chaos.account")
        return places - {(record.partition(), record.offset()) for record in committed}

    def _fold(self, record: Record) -> None:
        partition, offset = record.partition(), record.offset()
        fold, event = self._folds[partition], decoded(record.value())
        self._events[partition] += 1
        counted = len(fold.counted.get(event.article_id, ())) if event else 0
        fold.record(LogRecord(offset, record.timestamp()[1], event))
        if event is not None:
            self._note_late(partition, fold, event, counted, record.timestamp()[1])
        if event is not None and event.kind == "forget":
            self._forgets[event.user_id] = offset
        if event is None or event.user_id not in fold.users or fold.outcome[offset] != "folded":
            return
        user = fold.users[event.user_id]
        folded, hash_sum = self._history[event.user_id, user.offsets[-2]] if len(user.offsets) > 1 else (0, 0)
        self._history[event.user_id, offset] = folded + 1, (hash_sum + _hash(partition, offset)) % 2**64
        if event.article_id in self._late:
            self._late_readers.add(event.user_id)

    def _note_late(self, partition: int, fold: Reference, event: Event, counted: int, timestamp: int) -> None:
        """Keep in mind which clicks in statistics may have waited when their user was forgotten.

        Then they went with the user, and count in nothing; whether they did wait is not in the log.
        """
        if event.kind == "forget":
            for place, article_id, number in self._late_clicks.pop(event.user_id, ()):
                if timestamp < self._late[article_id] + SURELY_FOLDED_MS:
                    self._forgotten[place, article_id].add(number)
        elif event.article_id in self._late and len(fold.counted.get(event.article_id, ())) > counted:
            self._late_clicks[event.user_id].append((partition, event.article_id, counted))

    def _compare_totals(self, witness: Witness, verdict: Verdict) -> None:
        for partition, fold in self._folds.items():
            totals, outcomes = witness.totals.get(partition, PartitionTotals()), fold.totals()
            verdict.lost += max(0, self._events[partition] - totals.read)
            verdict.duplicated += max(0, totals.read - self._events[partition])
            for outcome in ("folded", "waiting", "duplicate", "dead"):
                count = getattr(totals, outcome)
                verdict.outcomes[outcome] = verdict.outcomes.get(outcome, 0) + count
                if count != outcomes[outcome]:
                    verdict.mismatch(f"~partition {partition}", f"{count} {outcome}, where it is {outcomes[outcome]}")
            folded = (offset for offset, outcome in fold.outcome.items() if outcome == "folded")
            if totals.hash_sum != sum(_hash(partition, offset) for offset in folded) % 2**64:
                verdict.mismatch(f"~partition {partition}", "the hash sum of what was folded")

    def _compare_versions(self, witness: Witness, verdict: Verdict) -> None:
        """Every version that was ever visible is a prefix of its user's log, and none goes back."""
        last: dict[str, Version] = {}
        for seen in witness.versions:
            before = last.get(seen.user_id)
            anew = seen.gone or (before is not None and self._forgets.get(seen.user_id, -1) > before.last_offset)
            if before is not None and not anew and seen.last_offset < before.last_offset:
                verdict.disorder(f"{seen} came after {before}")
            last[seen.user_id] = seen
            if seen.folded and seen.user_id not in self._late_readers:
                expected = self._history.get((seen.user_id, seen.last_offset))
                if expected != (seen.folded, seen.hash_sum):
                    verdict.disorder(f"{seen} is no prefix of the log: {expected}")

    def _compare_states(self, witness: Witness, verdict: Verdict, vectors: bool) -> None:
        states = dict(witness.states)
        for partition, fold in self._folds.items():
            for user_id, expected in fold.users.items():
                state = states.pop(user_id, None)
                if state is None:
                    verdict.mismatch(user_id, "no state")
                    continue
                verdict.duplicated += max(0, state.folded - len(expected.offsets))
                found = self._differences(state, expected, partition, late=user_id in self._late_readers)
                if vectors and (distance := self._distance(state, expected)) > 0:
                    found.append(f"the vector is {distance:g} off")
                if found:
                    verdict.mismatch(user_id, ", ".join(found))
        for user_id in states:
            verdict.mismatch(user_id, "a state of nobody")

    def _differences(self, state: UserRecord, expected: ReferenceUser, partition: int, *, late: bool) -> list[str]:
        windows = state.windows
        read = list(zip(_hashes(windows.read), windows.read_kinds, strict=True))
        read_expected = [(_id_hash(a), sum(KIND_BITS[k] for k in kinds)) for a, kinds in expected.read.items()]
        pairs: dict[str, tuple[object, object]] = {
            "folded": (state.folded, len(expected.offsets)),
            "hash_sum": (state.hash_sum, sum(_hash(partition, o) for o in expected.offsets) % 2**64),
            "last_offset": (state.last_offset, max(expected.offsets, default=-1)),
            "at": (state.at, expected.at()),
            "timestamp": (state.timestamp, expected.timestamp or 0),
            "seen": (_hashes(windows.seen), [_id_hash(e) for e in expected.seen]),
            "shown": (_hashes(windows.shown), [_id_hash(a) for a in expected.shown]),
            "shown_counts": (list(windows.shown_counts), [min(255, expected.counts[a]) for a in expected.shown]),
            "waiting": (len(windows.waiting), 0),
        }
        if late:  # in which order an article joins that was met before its vector came depends on when that was
            pairs["read"] = sorted(read), sorted(read_expected)
        else:
            pairs["read"] = read, read_expected
            pairs["recents"] = _recents(windows), [(_id_hash(a), *rest) for a, *rest in expected.recents]
        return [f"{what}: {seen} where it is {wanted}" for what, (seen, wanted) in pairs.items() if seen != wanted]

    def _distance(self, state: UserRecord, expected: ReferenceUser) -> float:
        """How far the vector is off, 0 within the tolerance."""
        wanted = self._vector(expected)
        distance = float(np.linalg.norm(state.vector - wanted))
        return distance if distance > RELATIVE * np.linalg.norm(wanted) + 1e-6 else 0.0

    def _vector(self, user: ReferenceUser) -> NDArray[np.float64]:
        """The sums of what was added, in double precision."""
        if not user.added:
            return np.zeros(2 * self._model.dims)
        times, vectors, weights = zip(*user.added, strict=True)
        ages = user.at() - np.array(times, np.float64)
        half_lives = (self._model.long_half_life_ms, self._model.short_half_life_ms)
        sums = [(np.array(weights) * 0.5 ** (ages / half_life)) @ np.array(vectors) for half_life in half_lives]
        return np.concatenate(sums)

    def _compare_statistics(self, verdict: Verdict) -> None:
        newest: dict[tuple[int, str], bytes | None] = {}
        for record in read_to_end(self._settings, self._topics.article_stats, name="chaos.account"):
            newest[record.partition(), (record.key() or b"").decode()] = record.value()
        seen = {place: decode_stats(value) for place, value in newest.items() if value is not None}
        expected = {(p, key): fold.stats(key) for p, fold in self._folds.items() for key in fold.counted}
        for p, key in seen.keys() | expected.keys():
            if (p, key) not in expected:
                verdict.mismatch(f"statistics {p, key}", "are of what nobody saw or clicked")
                continue
            as_of, most = expected[p, key]
            _, least = self._folds[p].stats(key, self._forgotten[p, key])
            stats = seen.get((p, key), ArticleStats(as_of, 0.0, 0.0))
            scale = 0.5 ** ((as_of - stats.at) / STATS_HALF_LIFE)
            for what, count in (("impression", stats.impressions * scale), ("click", stats.clicks * scale)):
                low, high = least.get(what, 0.0), most.get(what, 0.0)
                if not low * (1 - 1e-6) <= count <= high * (1 + 1e-6):
                    bounds = f"{high:g}" if low == high else f"between {low:g} and {high:g}"
                    verdict.mismatch(f"statistics {p, key}", f"{count:g} {what}s, where it is {bounds}")


def _articles(settings: Settings, topics: Topics) -> tuple[dict[str, ArticleRecord], dict[str, int]]:
    """The newest record of each article, and when its first came."""
    newest: dict[str, ArticleRecord] = {}
    came_at: dict[str, int] = {}
    for record in read_to_end(settings, topics.article_vectors, name="chaos.account"):
        value = record.value()
        assert value is not None
        article_id = (record.key() or b"").decode()
        newest[article_id] = decode_article(value)
        came_at.setdefault(article_id, record.timestamp()[1])
    return newest, came_at


def _hash(partition: int, offset: int) -> int:
    """splitmix64 of the place of a record."""
    x = ((partition << 48 ^ offset) + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def _id_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hashes(window: bytes) -> list[int]:
    return [int(number) for number in np.frombuffer(window, "<u8")]


def _recents(windows: Windows) -> list[tuple[object, ...]]:
    return [tuple(recent) for recent in recents_of(windows)]
