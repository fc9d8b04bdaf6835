"""All articles that have a vector, with what all rankings share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking.co_reading import CoReading
from ranking.labels import LabelIndex
from ranking.regions import NO_REGIONS, Regional

Floats = NDArray[np.float32]
AUTO, PINNED, BOOSTED = 0, 1, 2
PLACEMENTS: Mapping[str, int] = {"auto": AUTO, "held": AUTO, "pinned": PINNED, "boosted": BOOSTED}
ANCHORS = 64
MOST_ALIKE = 2048
"""Up to so many articles the cosines of each two are kept."""
MOST_SHARING = 16
"""Where more hashes share their first bits, they are no hashes, and a binary search is faster."""


@dataclass(frozen=True)
class Moments:
    """Mean [d] and covariance [d, d] of the listed articles' vectors: of anybody's cosines, without a look at all."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, vectors: Floats) -> Moments:
        if not len(vectors):
            dims = vectors.shape[1]
            return cls(np.zeros(dims, np.float32), np.zeros((dims, dims), np.float32))
        mean: Floats = vectors.mean(axis=0)
        centred = vectors - mean
        return cls(mean, (centred.T @ centred / len(vectors)).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of each article beside its vector, arrays [n]; all have a default.

    ``listed``: whether it may be in a list now. ``category`` and ``source`` are 64-bit hashes (0: none),
    ``language`` a number for each (0: not told) as in ``languages``, ``placement`` one of :data:`PLACEMENTS`.
    ``popularity`` is how much better than its text promised it is clicked, ``appeal`` what the text promises, both as
    log-odds against the average article; ``impressions`` are decayed. ``counts`` [h, 2, n] are decayed impressions and
    clicks by half-life, the long one first (:meth:`ranking.popularity.Popularity.all_counts_in`). ``regional`` says how
    regions differ from that.
    """

    listed: NDArray[np.bool_] | None = None
    category: NDArray[np.uint64] | None = None
    source: NDArray[np.uint64] | None = None
    language: NDArray[np.int32] | None = None
    placement: NDArray[np.int8] | None = None
    popularity: Floats | None = None
    appeal: Floats | None = None
    impressions: Floats | None = None
    counts: NDArray[np.float64] | None = None
    base_rate: float = 0.04
    languages: Mapping[str, int] = field(default_factory=dict)
    labels: LabelIndex = field(default_factory=LabelIndex)
    co_reads: CoReading = field(default_factory=CoReading)
    moments: Moments | None = None
    regional: Regional = NO_REGIONS


class Catalogue:
    """n articles in fixed places, as of one moment; not to be changed.

    ids [n]; vectors float32 [n, d]; hashes uint64 [n], no two alike but 0, which marks an empty place; published_at
    int64 [n], epoch ms; and the fields of :class:`Facts`, which are never None here.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors: Floats,
        hashes: NDArray[np.uint64],
        published_at: NDArray[np.int64],
        facts: Facts | None = None,
    ) -> None:
        n, facts = len(vectors), facts or Facts()
        self.ids = ids
        self.vectors = vectors
        self.hashes = hashes
        self.published_at = published_at
        self.listed: NDArray[np.bool_] = _or(facts.listed, n, True, np.bool_)
        self.category: NDArray[np.uint64] = _or(facts.category, n, 0, np.uint64)
        self.source: NDArray[np.uint64] = _or(facts.source, n, 0, np.uint64)
        self.language: NDArray[np.int32] = _or(facts.language, n, 0, np.int32)
        self.placement: NDArray[np.int8] = _or(facts.placement, n, AUTO, np.int8)
        self.popularity: Floats = _or(facts.popularity, n, 0, np.float32)
        self.appeal: Floats = _or(facts.appeal, n, 0, np.float32)
        self.impressions: Floats = _or(facts.impressions, n, 0, np.float32)
        self.counts = np.zeros((1, 2, n)) if facts.counts is None else facts.counts
        self.base_rate = facts.base_rate
        self.languages = facts.languages
        self.labels = facts.labels
        self.co_reads = facts.co_reads
        self.regional = facts.regional
        self.moments = facts.moments or Moments.of(vectors[self.listed])
        self._index = _HashIndex(hashes)

    def __len__(self) -> int:
        """How many articles may be listed."""
        return len(self.open)

    def with_popularity(
        self, popularity: Floats, appeal: Floats, counts: NDArray[np.float64], base_rate: float,
        regional: Regional = NO_REGIONS,
    ) -> Catalogue:  # fmt: skip
        """Return the same articles as others have clicked them meanwhile."""
        other = copy.copy(self)
        other.popularity, other.appeal = popularity, appeal
        other.counts, other.impressions = counts, counts[0, 0].astype(np.float32)
        other.base_rate, other.regional = base_rate, regional
        other.__dict__.pop("fronts", None)
        return other

    @cached_property
    def open(self) -> NDArray[np.intp]:
        """The places of the listed articles."""
        return np.flatnonzero(self.listed)

    @cached_property
    def closed(self) -> Floats:
        """[n]: 0 where an article may be listed, -inf where it may not."""
        return np.where(self.listed, np.float32(0), np.float32(-np.inf))

    @cached_property
    def anchors(self) -> NDArray[np.intp]:
        """A sample of the listed articles that hardly changes as others come: those with the least hashes."""
        return self.open[np.argsort(self.hashes[self.open], kind="stable")[:ANCHORS]]

    @cached_property
    def likenesses(self) -> Floats | None:
        """[n, n]: the cosines of each two articles; None where these are so many that to look one up is no gain."""
        return self.vectors @ self.vectors.T if len(self.vectors) <= MOST_ALIKE else None

    def cosines(self, queries: Floats, places: NDArray[np.intp]) -> Floats:
        """Return products [u, q, c] of users' queries [u, q, d] and the articles at ``places`` [u, c] (-1: any)."""
        if self.likenesses is None:
            products: Floats = queries @ self.vectors[places].transpose(0, 2, 1)
            return products
        all_products = (queries.reshape(-1, queries.shape[2]) @ self.vectors.T).reshape(*queries.shape[:2], -1)
        return np.take_along_axis(all_products, places[:, None], axis=2)

    def likeness(self, some: NDArray[np.intp], others: NDArray[np.intp]) -> Floats:
        """Return the cosines of articles at the places ``some`` [u, a] and ``others`` [u, b] (-1: any), [u, a, b]."""
        if self.likenesses is None:
            return self.cosines(self.vectors[some], others)
        n = len(self.vectors)
        return np.take(self.likenesses, (some % n * n)[:, :, None] + (others % n)[:, None, :])

    @cached_property
    def categories(self) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.float64]]:
        """Categories [c], the number of its own for each article [n], and each one's share of what is listed [c]."""
        names, numbers = np.unique(self.category, return_inverse=True)
        shares = np.bincount(numbers[self.listed], minlength=len(names)) / max(1, len(self))
        return names, numbers.astype(np.intp), shares

    @cached_property
    def listed_languages(self) -> NDArray[np.intp]:
        """The languages of listed articles, as far as these tell them."""
        return 1 + np.flatnonzero(np.bincount(self.language[self.open], minlength=1)[1:])

    @cached_property
    def language_samples(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        """The languages of listed articles as single bits, and the place of one article of each; below number 64."""
        numbers, first = np.unique(self.language[self.open], return_index=True)
        told = (numbers > 0) & (numbers < 64)
        return np.uint64(1) << numbers[told].astype(np.uint64), self.open[first[told]]

    @cached_property
    def fronts(self) -> dict[Any, Any]:
        """For whoever ranks: what was found once for all users."""
        return {}

    def places(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each article stands, listed or not; -1 where it has no place."""
        return self._index.places(hashes)


class _HashIndex:
    """Where hashes stand: sorted, with the place where those begin that share their first bits.

    Hashes are evenly spread, so that hardly two share their first bits where there are a few times as many of
    these as hashes; then a look there takes a fifth of the time of a binary search.
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        order = np.argsort(hashes)
        order = order[np.count_nonzero(hashes == 0) :]
        bits = max(1, (4 * len(order)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._sorted = np.append(hashes[order], ~np.uint64(0))
        self._order = np.append(order, -1)
        sharing = np.bincount((self._sorted[:-1] >> self._shift).astype(np.intp), minlength=1 << bits)
        self._most_sharing = int(sharing.max())
        self._begins = np.cumsum(sharing) - sharing

    def places(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each stands; -1 where it does not."""
        if self._most_sharing > MOST_SHARING:
            at = np.searchsorted(self._sorted[:-1], hashes)
        else:
            at = self._begins[(hashes >> self._shift).astype(np.intp)]
            for _ in range(self._most_sharing - 1):
                at += self._sorted[at] < hashes
        places: NDArray[np.intp] = np.where(self._sorted[at] == hashes, self._order[at], -1)
        return places


def _or(values: NDArray[Any] | None, n: int, fill: float, dtype: type) -> NDArray[Any]:
    return np.full(n, fill, dtype) if values is None else values
