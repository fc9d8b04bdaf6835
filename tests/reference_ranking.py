"""The ranking in plain Python, item by item, as the formula at the head of ``ranking/scoring.py`` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ranking.catalogue import Catalogue
from ranking.scoring import ALIKE, Readers, Weights


@dataclass(frozen=True)
class Scored:
    """One article for one user; ``parts`` in the order of the formula."""

    place: int
    parts: tuple[float, float, float, float, float]

    @property
    def score(self) -> float:
        return sum(self.parts)


def score_all(readers: Readers, user: int, catalogue: Catalogue, weights: Weights, now_ms: int) -> list[Scored]:
    """Every article the user has not read, in the catalogue's order."""
    long, short = (_z([_dot(query, v) for v in catalogue.vectors.tolist()]) for query in readers.queries[user].tolist())
    read = _hashes(readers.read[user])
    shown = dict(zip(_hashes(readers.shown[user]), readers.shown_counts[user], strict=True))
    scored = []
    for place, hashed in enumerate(catalogue.hashes.tolist()):
        age = max(0, now_ms - int(catalogue.published_at[place]))
        parts = (
            weights.long * long[place],
            weights.short * short[place],
            weights.popularity * float(catalogue.popularity[place]),
            weights.freshness * 0.5 ** (age / weights.freshness_half_life_ms),
            -weights.fatigue * shown.get(hashed, 0),
        )
        if hashed not in read:
            scored.append(Scored(place, parts))
    return scored


def rank_all(readers: Readers, user: int, catalogue: Catalogue, weights: Weights, k: int, now_ms: int) -> list[Scored]:
    """The user's k best."""
    return sorted(score_all(readers, user, catalogue, weights, now_ms), key=lambda s: (-s.score, s.place))[:k]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def _z(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / max(1, len(values))
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, len(values)))
    return [(v - mean) / deviation if deviation > ALIKE else 0.0 for v in values]


def _hashes(window: bytes) -> list[int]:
    return [int.from_bytes(window[i : i + 8], "little") for i in range(0, len(window), 8)]
