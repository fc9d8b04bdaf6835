"""article-stats and co-reads as they were seen, held against the fold of the log."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from contract.messages import Event
from contract.records import ArticleStats, decode_co_reads, decode_stats
from tests.chaos.hashes import id_hash
from tests.chaos.load import decoded
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Witness
from tests.reference_fold import CO_READ_HALF_LIFE, MINUTE, STATS_HALF_LIFE, Reference

EXACT = 1e-9


class Uncertain:
    """Which counts of the fold a worker may not have counted: what that depends on is not in the log.

    A click that waits when its user is forgotten or merged away counts there in nothing, and neither does what is shown
    or clicked while it is withdrawn.
    """

    def __init__(self, fold: Reference, late: Mapping[str, int], withdrawable: Collection[str], surely_ms: int) -> None:
        self.numbers: dict[str, set[int]] = defaultdict(set)
        self._fold = fold
        self._late = late
        self._withdrawable = withdrawable
        self._surely_ms = surely_ms
        self._late_clicks: dict[str, list[tuple[str, int, int]]] = defaultdict(list)

    def lengths(self) -> dict[str, int]:
        """To be taken before an event is folded, if anything can be uncertain."""
        return {key: len(of) for key, of in self._fold.counted.items()} if self._late or self._withdrawable else {}

    def note(self, event: Event, timestamp: int, before: Mapping[str, int]) -> None:
        """Note what this event counted; ``timestamp`` is its record's."""
        if not (self._late or self._withdrawable):
            return
        articles = articles_of(event)
        counted = [
            (key, number) for key, of in self._fold.counted.items() for number in range(before.get(key, 0), len(of))
        ]
        if articles & set(self._withdrawable):
            for key, number in counted:
                if key in self._withdrawable or key[0] == "~":
                    self.numbers[key].add(number)
        came = max((self._late[article_id] for article_id in articles if article_id in self._late), default=0)
        if came:
            self._late_clicks[event.user_id] += [(key, number, came) for key, number in counted]
        if event.kind in ("forget", "merge") and event.user_id not in self._fold.users:
            for key, number, came in self._late_clicks.pop(event.user_id, ()):
                if timestamp < came + self._surely_ms:
                    self.numbers[key].add(number)


def articles_of(event: Event) -> set[str]:
    """The articles that an event is about, those that an absorb carries over included."""
    if event.kind == "absorb":
        return {article_id for c in event.events for article_id in _carried_articles(bytes(c.event))}
    return {item.article_id for item in event.shown} or {event.article_id} - {""}


def compare_statistics(
    verdict: Verdict, witness: Witness, folds: Mapping[int, Reference], uncertain: Mapping[int, Uncertain], away: str
) -> None:
    """By kind, by kind and position, by kind and reason, by kind and region, of articles and of sources."""
    expected = {(p, key): fold.stats(key) for p, fold in folds.items() for key in fold.counted if key != away}
    for p, key in witness.stats.keys() | expected.keys():
        verdict.statistics_compared += 1
        if (p, key) not in expected:
            verdict.mismatch(f"statistics {p, key}", "are of what is gone, or nobody saw or clicked")
            continue
        as_of, most = expected[p, key]
        least = folds[p].stats(key, uncertain[p].numbers[key])[1]
        value = witness.stats.get((p, key))
        stats = ArticleStats(as_of, 0.0, 0.0) if value is None else decode_stats(value)
        if not uncertain[p].numbers[key] and stats.at != as_of:
            verdict.mismatch(f"statistics {p, key}", f"as of {stats.at} where it is {as_of}")
            continue
        found = _sums_of(stats, as_of)
        told = [what for what in most if isinstance(what, str) or what[1] not in (None, "")]
        for what in {*told, *found}:
            count, low, high = found.get(what, 0.0), least.get(what, 0.0), most.get(what, 0.0)
            if not low * (1 - EXACT) - EXACT <= count <= high * (1 + EXACT) + EXACT:
                bounds = f"{high:g}" if low == high else f"between {low:g} and {high:g}"
                verdict.mismatch(f"statistics {p, key}", f"{what}: {count:g}, where it is {bounds}")
                break


def compare_co_reads(verdict: Verdict, witness: Witness, folds: Mapping[int, Reference]) -> None:
    """What is read next, with its weights; for articles that all were there from the beginning."""
    expected = {(p, article_id): sums for p, fold in folds.items() for article_id, sums in fold.co_reads.items()}
    for place in witness.co_reads.keys() | expected.keys():
        verdict.co_reads_compared += 1
        value, sums = witness.co_reads.get(place), expected.get(place)
        if value is None or sums is None:
            verdict.mismatch(f"co-reads {place}", "missing" if value is None else "of what nobody read")
            continue
        record = decode_co_reads(value)
        found = dict(zip(
            struct.unpack(f"<{len(record.articles) // 8}Q", record.articles),
            struct.unpack(f"<{len(record.weights) // 8}d", record.weights), strict=True,
        ))  # fmt: skip
        wanted = {id_hash(article_id): weight for article_id, weight in sums.sums().items()}
        if record.at != sums.newest * CO_READ_HALF_LIFE or found.keys() != wanted.keys():
            verdict.mismatch(f"co-reads {place}", f"{sorted(found)} as of {record.at}, where it is {sorted(wanted)}")
        elif off := [key for key, weight in wanted.items() if abs(found[key] - weight) > EXACT * abs(weight)]:
            verdict.mismatch(f"co-reads {place}", f"the weights of {off} differ")


def _carried_articles(value: bytes) -> set[str]:
    event = decoded(value)
    return {event.article_id} - {""} if event else set()


def _sums_of(stats: ArticleStats, as_of: int) -> dict[Any, float]:
    """Sums as the reference names them, decayed to ``as_of``."""
    kept = 0.5 ** ((as_of - stats.at) / STATS_HALF_LIFE)
    sums: dict[Any, float] = {"impression": stats.impressions * kept, "click": stats.clicks * kept}
    for what, (impressions, clicks) in [*stats.positions.items(), *stats.reasons.items()]:
        sums["impression", what], sums["click", what] = impressions * kept, clicks * kept
    for region, (impressions, clicks) in stats.regions.items():
        sums["impression", f"in {region}"], sums["click", f"in {region}"] = impressions * kept, clicks * kept
    for minutes, (impressions, clicks) in stats.lately.items():
        kept = 0.5 ** ((as_of - stats.at) / (minutes * MINUTE))
        sums["impression", f"{minutes} min"], sums["click", f"{minutes} min"] = impressions * kept, clicks * kept
    return sums
