"""What the lists are like that users have now: a sample of them, looked at every ten seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Gauge

from ranking.catalogue import Catalogue

SAMPLE_USERS = 500
EVERY_MS = 10_000
AGE = Gauge("stoppress_listed_age_seconds", "How old articles in lists are: half of them are younger")
COVERAGE = Gauge("stoppress_list_coverage_ratio", "Of the articles that may be listed, those in a list of the sample")
DIVERSITY = Gauge("stoppress_list_diversity", "One less the mean cosine of two articles in a list")
DISTINCT = Gauge("stoppress_distinct_lists_ratio", "Of the lists, those that are like no other before")
FALLBACK = Gauge("stoppress_fallback_ratio", "Of the lists, those that are the popular one under a user's name")


class ListQuality(NamedTuple):
    """Figures over some lists; None where no list, or no pair of articles in one, says anything."""

    age_ms: float | None
    coverage: float
    diversity: float | None
    distinct: float
    fallback: float


def list_quality(
    listed: NDArray[np.uint64], fallback: NDArray[np.bool_], catalogue: Catalogue, now_ms: int
) -> ListQuality | None:
    """Return what lists are like: ``listed`` [n, k] hashes (0: none), ``fallback`` [n]; None where there are none."""
    if not len(listed):
        return None
    places = catalogue.places(listed.reshape(-1)).reshape(listed.shape)
    there = places >= 0
    found = places[there]
    ages = np.maximum(now_ms - catalogue.published_at[found], 0)
    seen = np.zeros(len(catalogue.hashes), np.bool_)
    seen[found] = True
    return ListQuality(
        age_ms=float(np.median(ages)) if len(ages) else None,
        coverage=int((seen & catalogue.listed).sum()) / max(1, len(catalogue)),
        diversity=_diversity(places, there, catalogue),
        distinct=len(np.unique(listed, axis=0)) / len(listed),
        fallback=float(fallback.mean()),
    )


def _diversity(places: NDArray[np.intp], there: NDArray[np.bool_], catalogue: Catalogue) -> float | None:
    counts = there.sum(axis=1)
    several = counts > 1
    if not several.any():
        return None
    vectors = catalogue.vectors[places[several]] * there[several, :, None]
    summed = vectors.sum(axis=1)
    cosines = np.einsum("nd,nd->n", summed, summed) - np.einsum("nkd,nkd->n", vectors, vectors)
    return float(np.mean(1 - cosines / (counts[several] * (counts[several] - 1))))


def publish(quality: ListQuality | None) -> None:
    """Set the metrics."""
    if quality is None:
        return
    COVERAGE.set(quality.coverage)
    DISTINCT.set(quality.distinct)
    FALLBACK.set(quality.fallback)
    if quality.age_ms is not None:
        AGE.set(quality.age_ms / 1000)
    if quality.diversity is not None:
        DIVERSITY.set(quality.diversity)
