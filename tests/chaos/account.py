"""What a reader of committed records saw, held against an independent fold of the log, key by key."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from contract.records import KIND_BITS, ArticleRecord, PartitionTotals, UserRecord, Windows, decode_article, recents_of
from contract.settings import Settings
from contract.topics import Topics
from encoders.decay import Decay
from encoders.fold_rules import FoldLimits
from streams.record import Record
from streams.table import read_to_end
from tests.chaos.aborted import aborted_places
from tests.chaos.counts import Uncertain, articles_of, compare_co_reads, compare_statistics
from tests.chaos.hashes import hashes, id_hash, place_hash
from tests.chaos.load import decoded
from tests.chaos.merges import Merges, words
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Witness
from tests.reference_fold import AFFINITY_HALF_LIFE, Reference, ReferenceUser
from tests.strategies import Change
from tests.strategies import Record as LogRecord

RELATIVE = 1e-4
SURELY_FOLDED_MS = 10_000  # so long after its vector came, nothing waits for an article any more


class Account:
    """The log of ``user-events`` folded anew from its beginning, plainly, record by record.

    The fold of every event is independent of the worker's; the decoders of records and the bits of the kinds are the
    contract's own. ``changing``: articles come late, are rewritten and withdrawn; then compared is what does not depend
    on when a worker got to know of that.
    """

    def __init__(self, settings: Settings, topics: Topics, model: Decay, *, changing: bool) -> None:
        self._settings = settings
        self._topics = topics
        self._model = model
        self._changing = changing
        self._read_articles()
        assert changing or not (self._late or self._withdrawable)
        self._folds = {p: Reference(model, FoldLimits.of(settings), p) for p in range(settings.partitions)}
        self._uncertain = {
            p: Uncertain(fold, self._late, self._withdrawable, SURELY_FOLDED_MS) for p, fold in self._folds.items()
        }
        self._merges = Merges(self._withdrawable)
        self._history: dict[tuple[str, int], tuple[int, int]] = {}
        self._late_readers: set[str] = set()
        self._removals: dict[str, list[int]] = defaultdict(list)
        self._partitions: dict[str, int] = {}
        self._limited: set[str] = set()
        self._events: Counter[int] = Counter()
        for fold in self._folds.values():
            for article_id, record in self._articles.items():
                fold.change(Change(article_id, record))
        for log_record in read_to_end(settings, topics.user_events, name="chaos.account"):
            self._fold(log_record)

    def compare(self, witness: Witness) -> Verdict:
        """Hold everything that was seen against the fold."""
        verdict = Verdict(events=self._events.total(), states_seen=len(witness.versions))
        verdict.users_limited = len(self._limited)
        for what in witness.disorders:
            verdict.disorder(what)
        self._compare_totals(witness, verdict)
        self._compare_dead_letters(witness, verdict)
        self._merges.compare(verdict)
        self._compare_versions(witness, verdict)
        self._compare_states(witness, verdict)
        compare_statistics(verdict, witness, self._folds, self._uncertain, self._away)
        if not self._changing:
            compare_co_reads(verdict, witness, self._folds)
        for topic, seen in witness.places.items():
            aborted = aborted_places(self._settings, topic)
            verdict.aborted[topic.removeprefix(self._settings.namespace)] = len(aborted)
            verdict.aborted_seen += len(aborted & seen)
        return verdict

    def _read_articles(self) -> None:
        """The newest record of each article, when the first of a late one came, who was ever withdrawn, and is now."""
        self._articles: dict[str, ArticleRecord] = {}
        self._late: dict[str, int] = {}
        self._withdrawable: set[str] = set()
        self._away = ""
        for record in read_to_end(self._settings, self._topics.article_vectors, name="chaos.account"):
            article_id, value = (record.key() or b"").decode(), record.value()
            if value is None:
                self._withdrawable.add(article_id)
                self._away = article_id
                continue
            if article_id == self._away:
                self._away = ""
            self._articles[article_id] = decode_article(value)
            if article_id.startswith("late-"):
                self._late.setdefault(article_id, record.timestamp()[1])

    def _fold(self, record: Record) -> None:
        partition, offset, timestamp = record.partition(), record.offset(), record.timestamp()[1]
        fold, uncertain, event = self._folds[partition], self._uncertain[partition], decoded(record.value())
        self._events[partition] += 1
        lengths, handed = uncertain.lengths(), len(fold.absorbs)
        fold.record(LogRecord(offset, timestamp, event))
        if event is None:
            return
        self._partitions[event.user_id] = partition
        uncertain.note(event, timestamp, lengths)
        if event.kind == "absorb":
            self._merges.absorb(event)
        if fold.outcome[offset] != "folded":
            return
        if event.kind in ("forget", "merge"):
            late = event.user_id in self._late_readers
            self._late_readers.discard(event.user_id)
            self._removals[event.user_id].append(offset)
            if event.kind == "merge":
                what = [word for _, each in fold.absorbs[handed:] for word in words(each)]
                self._merges.merge((partition, offset), event.target, what, late=late)
            return
        user = fold.users[event.user_id]
        if user.limited_until:
            self._limited.add(event.user_id)
        folded, hash_sum = self._history[event.user_id, user.offsets[-2]] if len(user.offsets) > 1 else (0, 0)
        self._history[event.user_id, offset] = folded + 1, (hash_sum + place_hash(partition, offset)) % 2**64
        if articles_of(event) & self._late.keys():
            self._late_readers.add(event.user_id)

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
            if totals.hash_sum != sum(place_hash(partition, offset) for offset in folded) % 2**64:
                verdict.mismatch(f"~partition {partition}", "the hash sum of what was folded")

    def _compare_dead_letters(self, witness: Witness, verdict: Verdict) -> None:
        """Each record that could not be used is a dead letter once, and nothing else is."""
        expected = {
            (p, o) for p, fold in self._folds.items() for o, outcome in fold.outcome.items() if outcome == "dead"
        }
        verdict.dead_letters = witness.dead.total()
        for place in expected | witness.dead.keys():
            times = witness.dead[place]
            if times != (place in expected):
                verdict.mismatch(f"dead letter {place}", f"{times} of them")

    def _compare_versions(self, witness: Witness, verdict: Verdict) -> None:
        """Every version that was ever visible is a prefix of its user's log without what waits, and none goes back."""
        last: dict[str, int] = defaultdict(lambda: -1)
        for seen in witness.versions:
            verdict.versions_compared += 1
            before, removals = last[seen.user_id], self._removals.get(seen.user_id, [])
            removed = removals[number] if (number := bisect_right(removals, before)) < len(removals) else None
            if seen.gone:
                if removed is None:
                    verdict.disorder(f"{seen} after {before}, and nobody removed it")
                else:
                    last[seen.user_id] = removed
                continue
            if seen.folded == 0:  # nothing but what waits
                if seen.hash_sum or (before >= 0 and removed is None and before not in removals):
                    verdict.disorder(f"{seen} came after {before}")
                continue
            if seen.last_offset < before:
                verdict.disorder(f"{seen} came after {before}")
            last[seen.user_id] = seen.last_offset
            expected = self._history.get((seen.user_id, seen.last_offset))
            waiting = [offset for offset in seen.waiting if offset < seen.last_offset]
            if expected is not None:
                left_out = sum(place_hash(self._partitions[seen.user_id], offset) for offset in waiting)
                expected = expected[0] - len(waiting), (expected[1] - left_out) % 2**64
            if expected != (seen.folded, seen.hash_sum):
                verdict.disorder(f"{seen} is no prefix of the log: {expected}")

    def _compare_states(self, witness: Witness, verdict: Verdict) -> None:
        states = dict(witness.states)
        for partition, fold in self._folds.items():
            for user_id, expected in fold.users.items():
                verdict.users_compared += 1
                state = states.pop(user_id, None)
                if state is None:
                    verdict.mismatch(user_id, "no state")
                    continue
                verdict.duplicated += max(0, state.folded - len(expected.offsets))
                found = self._differences(state, expected, partition, late=user_id in self._late_readers)
                if not self._changing and (distance := self._distance(state, expected)) != 0:
                    found.append(f"the vector is {distance:g} off")
                if found:
                    verdict.mismatch(user_id, ", ".join(found))
        for user_id in states:
            verdict.mismatch(user_id, "a state of nobody")

    def _differences(self, state: UserRecord, expected: ReferenceUser, partition: int, *, late: bool) -> list[str]:
        windows = state.windows
        read = list(zip(hashes(windows.read), windows.read_kinds, strict=True))
        read_expected = [(id_hash(a), sum(KIND_BITS[k] for k in kinds)) for a, kinds in expected.read.items()]
        pairs: dict[str, tuple[object, object]] = {
            "folded": (state.folded, len(expected.offsets)),
            "hash_sum": (state.hash_sum, sum(place_hash(partition, o) for o in expected.offsets) % 2**64),
            "last_offset": (state.last_offset, max(expected.offsets, default=-1)),
            "timestamp": (state.timestamp, expected.timestamp or 0),
            "seen": (hashes(windows.seen), [id_hash(e) for e in expected.seen]),
            "shown": (hashes(windows.shown), [id_hash(a) for a in expected.shown]),
            "shown_counts": (list(windows.shown_counts), [min(255, expected.counts[a]) for a in expected.shown]),
            "follows": (list(windows.follows), expected.follows),
            "mutes": (list(windows.mutes), expected.mutes),
            "minute": (windows.minute, expected.minute),
            "minute_events": (windows.minute_events, expected.minute_events),
            "record_minute": (windows.record_minute, expected.record_minute),
            "record_minute_events": (windows.record_minute_events, expected.record_minute_events),
            "limited_until": (windows.limited_until, expected.limited_until),
            "language": (windows.language, expected.language),
            "region": (windows.region, expected.region),
            "device": (windows.device, expected.device),
            "waiting": (len(windows.waiting), 0),
        }
        if late:  # in which order an article joins that was met before its vector came depends on when that was
            pairs["read"] = sorted(read), sorted(read_expected)
        else:
            pairs["read"] = read, read_expected
            pairs["recents"] = _recents(windows), [(id_hash(a), *rest) for a, *rest in expected.recents]
        if not self._changing:  # what is withdrawn when it is read moves nothing
            pairs["at"] = state.at, expected.at()
            pairs["affinities"] = _affinities(windows), _expected_affinities(expected)
        return [f"{what}: {seen} where it is {wanted}" for what, (seen, wanted) in pairs.items() if seen != wanted]

    def _distance(self, state: UserRecord, expected: ReferenceUser) -> float:
        """How far the vector is off, 0 within the tolerance."""
        wanted = self._vector(expected)
        distance = float(np.linalg.norm(state.vector - wanted))
        return 0.0 if distance <= RELATIVE * np.linalg.norm(wanted) + 1e-6 else distance

    def _vector(self, user: ReferenceUser) -> NDArray[np.float64]:
        """The sums of what was added, in double precision."""
        if not user.added:
            return np.zeros(2 * self._model.dims)
        times, vectors, weights = zip(*user.added, strict=True)
        ages = user.at() - np.array(times, np.float64)
        half_lives = (self._model.long_half_life_ms, self._model.short_half_life_ms)
        sums = [(np.array(weights) * 0.5 ** (ages / half_life)) @ np.array(vectors) for half_life in half_lives]
        return np.concatenate(sums)


def _recents(windows: Windows) -> list[tuple[object, ...]]:
    return [tuple(recent) for recent in recents_of(windows)]


def _affinities(windows: Windows) -> tuple[int, dict[int, float]]:
    return windows.affinities_at, dict(struct.iter_unpack("<Qd", windows.affinities))


def _expected_affinities(user: ReferenceUser) -> tuple[int, Mapping[int, float]]:
    affinities = {id_hash(category): weight for category, weight in user.affinities.sums().items()}
    return (user.affinities.newest * AFFINITY_HALF_LIFE if affinities else 0), affinities
