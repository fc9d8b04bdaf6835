"""The ranking in plain Python, article by article, as the heads of ``ranking/features.py`` and ``rules.py`` say."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from contract.records import KIND_BITS, RECENT
from ranking.catalogue import BOOSTED, PINNED, Catalogue
from ranking.features import ALIKE, LAST_READ, WIDEST, Weights
from ranking.readers import AFFINITY_HALF_LIFE_MS, RECENTS, Past, Readers
from ranking.rules import Rules


def parts_of(
    readers: Readers, user: int, catalogue: Catalogue, weights: Weights, now_ms: int
) -> list[dict[str, float]]:
    """The parts of every article's score for one user, in the catalogue's order."""
    vectors, past = catalogue.vectors.tolist(), readers.pasts[user]
    open_places = [place for place in range(len(vectors)) if catalogue.listed[place]]
    sure = float(readers.confidence[user])
    long, short = ([_dot(query, v) for v in vectors] for query in readers.queries[user].tolist())
    recents = _recent(past.recents) if readers.personal[user] else []
    hashes = catalogue.hashes.tolist()
    read = [vectors[hashes.index(h)] for h in recents[:RECENTS] if h in hashes]
    nearest = [_mean(sorted((_dot(v, r) for r in read), reverse=True)[:3]) for v in vectors]
    category = [
        math.log1p(_affinity(past, int(c), now_ms)) if readers.personal[user] else 0.0 for c in catalogue.category
    ]
    shown = dict(zip(_hashes(past.shown), past.shown_counts, strict=True))
    follows = past.follows if readers.personal[user] else ()
    z_long, z_short = _z(long, open_places, math.inf), _z(short, open_places, math.inf)
    z_nearest = _z(nearest, open_places, WIDEST) if read else [0.0] * len(vectors)
    z_category = _z(category, open_places, WIDEST)
    found = []
    for place, hashed in enumerate(hashes):
        co_read = 0.0
        for back, recent in enumerate(recents[:LAST_READ], 1):
            articles, shares = catalogue.co_reads.after(recent, now_ms)
            co_read += sum(s / back for a, s in zip(articles.tolist(), shares.tolist(), strict=True) if a == hashed)
        age = max(0, now_ms - int(catalogue.published_at[place]))
        found.append(
            {
                "long": weights.long * sure * z_long[place],
                "short": weights.short * sure * z_short[place],
                "nearest": weights.nearest * sure * z_nearest[place],
                "category": weights.category * sure * z_category[place],
                "co_reads": weights.co_reads * co_read,
                "followed": weights.followed * bool(catalogue.labels.of(place) & set(follows)),
                "popularity": weights.popularity * float(catalogue.popularity[place]),
                "appeal": weights.appeal * float(catalogue.appeal[place]),
                "freshness": weights.freshness * 0.5 ** (age / weights.freshness_half_life_ms),
                "editor": weights.boost * bool(catalogue.placement[place] == BOOSTED),
                "fatigue": -weights.fatigue * math.log(1 + shown.get(hashed, 0)),
            }
        )
    return found


def allowed(readers: Readers, user: int, catalogue: Catalogue, rules: Rules) -> list[int]:
    """The places of what may be in a user's list."""
    past = readers.pasts[user]
    shown = dict(zip(_hashes(past.shown), past.shown_counts, strict=True))
    limit = math.inf if rules.fatigue_limit is None else rules.fatigue_limit
    languages = catalogue.language.tolist()
    open_languages = {language for language, one in zip(languages, catalogue.listed.tolist(), strict=True) if one} - {0}
    read = [languages[p] for p, h in enumerate(catalogue.hashes.tolist()) if h in _hashes(past.read) and languages[p]]
    told = catalogue.languages.get(past.language)
    read += [told] * rules.language_reads if told in languages else []
    choosy = len(open_languages) > 1 and 0 < rules.language_reads <= len(read) and open_languages & set(read)
    return [
        place
        for place, hashed in enumerate(catalogue.hashes.tolist())
        if catalogue.listed[place]
        and hashed not in _hashes(past.read)
        and shown.get(hashed, 0) < limit
        and not catalogue.labels.of(place) & set(past.mutes)
        and not (choosy and languages[place] and languages[place] not in read)
    ]


def list_of(places: Sequence[int], scores: Sequence[float], catalogue: Catalogue, rules: Rules) -> list[int]:
    """What the rules make of candidates and their scores, nothing explored: places in the list's order."""
    vectors, published = catalogue.vectors.tolist(), catalogue.published_at.tolist()
    by_date = sorted((p for p in places if catalogue.placement[p] == PINNED), key=lambda p: -published[p])
    pinned = by_date[: rules.pinned]
    left, chosen = list(places), list[int]()
    while left and len(chosen) < rules.length:
        free = [p for p in left if not _capped(p, chosen, catalogue, rules)]
        if not free and len(chosen) < rules.minimum:
            free = left
        if not free:
            break

        def worth(place: int) -> tuple[float, float]:
            like = max((_dot(vectors[place], vectors[other]) for other in chosen), default=0.0)
            value = scores[places.index(place)] - rules.diversity * max(0.0, like)
            return (-pinned.index(place), 0.0) if place in pinned else (-math.inf, value)

        best = max(free, key=worth)
        same = [p for p in free if _dot(vectors[p], vectors[best]) >= rules.duplicate_cosine]
        one = best if best in pinned else max([best, *same], key=lambda p: published[p])
        chosen.append(one)
        story = [vectors[best], vectors[one]]
        left = [p for p in left if p != one and all(_dot(vectors[p], v) < rules.duplicate_cosine for v in story)]
    return chosen


def _capped(place: int, chosen: Sequence[int], catalogue: Catalogue, rules: Rules) -> bool:
    for of, cap in ((catalogue.category, rules.category_cap), (catalogue.source, rules.source_cap)):
        if cap is not None and of[place] and sum(of[other] == of[place] for other in chosen) >= cap:
            return True
    return False


def _recent(window: bytes) -> list[int]:
    """Articles read and not disliked, each once, the newest first."""
    entries = [(article, what >> 16) for article, _, what in RECENT.iter_unpack(window)]
    return list(dict.fromkeys(article for article, kind in reversed(entries) if kind != KIND_BITS["dislike"]))


def _affinity(past: Past, category: int, now_ms: int) -> float:
    window, at = past.affinities, past.affinities_at
    weights = dict(struct.iter_unpack("<Qd", window))
    return (
        max(0.0, weights.get(category, 0.0) * 2 ** (min(0, at - now_ms) / AFFINITY_HALF_LIFE_MS)) if category else 0.0
    )


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / max(1, len(values))


def _z(values: Sequence[float], background: Sequence[int], widest: float) -> list[float]:
    mean = _mean([values[place] for place in background])
    deviation = math.sqrt(_mean([(values[place] - mean) ** 2 for place in background]))
    scores = [(v - mean) / deviation if deviation > ALIKE else 0.0 for v in values]
    return [max(-widest, min(widest, score)) for score in scores]


def _hashes(window: bytes) -> list[int]:
    return [int.from_bytes(window[i : i + 8], "little") for i in range(0, len(window), 8)]
