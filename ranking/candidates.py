"""Which articles are looked at closely for each user, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import AUTO, Catalogue
from ranking.features import Floats, Interests, Places, Weights, common_parts
from ranking.readers import Readers

SOURCES = ("editor", "followed", "co_read", "similar", "newest", "category", "popular")
"""Where a candidate came from; the first of several is told."""
EDITOR, FOLLOWED, CO_READ, SIMILAR, NEWEST, CATEGORY, POPULAR = range(len(SOURCES))
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Amounts:
    """How many candidates each way of finding them gives at most; ``of_category`` for each of two categories."""

    similar: int = 80
    popular: int = 30
    of_category: int = 10
    newest: int = 20
    co_read: int = 20
    followed: int = 20
    editor: int = 20

    @property
    def total(self) -> int:
        return (
            self.similar + self.popular + CATEGORIES * self.of_category + self.newest + self.co_read + self.followed
            + self.editor
        )  # fmt: skip


CATEGORIES = 2
LARGE_BLOCKS = 4
"""So many large blocks of scores for each that is looked for."""
PIECE, BLOCK, PIECES = 4096, 16, 8
"""Articles whose scores fit into the cache, articles of a small block, and pieces from which on they are taken."""
MANY_ALIKE = 8
"""Where so many blocks for each that is looked for reach what it takes, sorting is faster."""


class Found(NamedTuple):
    """``scores`` [u, n], and the ``maxima`` [m, u] of small blocks of them, where these are known.

    They are of pieces of :data:`PIECE` articles, one after the other: in each, every ``PIECE // BLOCK``-th are a block.
    """

    scores: Floats
    maxima: Floats | None = None


@dataclass(frozen=True)
class Candidates:
    """Places [u, c] in rising order (-1, at the end: none) and the number of each one's source [u, c]."""

    places: Places
    sources: NDArray[np.int8]


def similarities(interests: Interests, catalogue: Catalogue, barred: NDArray[np.bool_]) -> Found:
    """Return how near each article is to each user's interests; -inf where it may not be in their list [u, n]."""
    closed = catalogue.closed if len(catalogue) < len(catalogue.hashes) else None
    return products(catalogue.vectors, interests.trigger, closed, barred)


def products(
    vectors: Floats, queries: Floats, closed: Floats | None = None, barred: NDArray[np.bool_] | None = None
) -> Found:  # fmt: skip
    """Return products of ``vectors`` [n, d] with ``queries`` [u, d], less ``closed`` [n], -inf where ``barred`` [u, n].

    In memory each vector's are side by side: that product is the faster one. Piece by piece, so that maxima are taken
    of what is in the cache.
    """
    n, users = len(vectors), len(queries)
    scores = np.empty((n, users), np.float32)
    user, place = np.divmod(np.flatnonzero([] if barred is None else barred), max(1, n))
    order = np.argsort(place, kind="stable")
    user, place = user[order], place[order]
    pieces = n // PIECE if n >= PIECES * PIECE else 0
    maxima = np.empty((pieces, PIECE // BLOCK, users), np.float32)
    starts = [*range(0, pieces * PIECE, PIECE), pieces * PIECE]
    ends = [*starts[1:], n]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        piece = np.matmul(vectors[start:end], queries.T, out=scores[start:end])
        if closed is not None:
            piece += closed[start:end, None]
        mine = slice(*np.searchsorted(place, (start, end)))
        piece[place[mine] - start, user[mine]] = -np.inf
        if number < pieces:
            piece.reshape(BLOCK, -1, users).max(axis=0, out=maxima[number])
    return Found(scores.T, maxima.reshape(-1, users) if pieces else None)


def find_candidates(
    readers: Readers, catalogue: Catalogue, similar: Found, co_reads: Floats, weights: Weights, amounts: Amounts,
    now_ms: int,
) -> Candidates:  # fmt: skip
    """Find candidates among the articles whose score in ``similar`` is not -inf; all of them where they are few.

    ``co_reads`` [u, n] as of :func:`ranking.features.co_read_shares`.
    """
    users, listed = len(readers), len(catalogue)
    front = _front(catalogue, weights, amounts, now_ms)
    found = [
        _keys(np.broadcast_to(front.editor, (users, len(front.editor))), EDITOR),
        _keys(_followed(readers, catalogue, amounts.followed), FOLLOWED),
        _keys(_best(co_reads, amounts.co_read, least=0.0), CO_READ),
        _keys(
            np.where(readers.personal[:, None], _best(similar.scores, amounts.similar, maxima=similar.maxima), -1),
            SIMILAR,
        )
        if listed > amounts.total
        else _keys(np.broadcast_to(catalogue.open, (users, listed)), SIMILAR),
        _keys(np.broadcast_to(front.newest, (users, len(front.newest))), NEWEST),
        _keys(
            front.by_category[_favourites(readers, catalogue, now_ms)].reshape(users, CATEGORIES * amounts.of_category),
            CATEGORY,
        ),
        _keys(_popular(readers, catalogue, front, weights, amounts, now_ms), POPULAR),
    ]
    keys = np.concatenate(found, axis=1)
    places = keys // len(SOURCES)
    if similar.scores.shape[1]:
        keys[np.isneginf(np.take_along_axis(similar.scores, np.where(keys == _NONE, 0, places), axis=1))] = _NONE
    keys.sort(axis=1)
    places = keys // len(SOURCES)
    keys[:, 1:][places[:, 1:] == places[:, :-1]] = _NONE
    keys.sort(axis=1)
    keys = keys[:, : int((keys != _NONE).sum(axis=1).max(initial=0))]
    none = keys == _NONE
    return Candidates(
        np.where(none, -1, keys // len(SOURCES)).astype(np.intp), np.where(none, 0, keys % len(SOURCES)).astype(np.int8)
    )


def best_places(scores: Floats, k: int, maxima: Floats | None = None) -> Places:
    """Return the places of the k largest scores of each row, [u, k], largest first, ties by place; k <= n.

    The k-th largest of the maxima of blocks is no larger than the k-th largest of all, so only in blocks whose maximum
    reaches it there is anything to find. Small blocks leave little to look through, and the maxima of few large ones,
    made of them, are a bound almost as good. Rows or columns may be the contiguous ones: every so many columns are a
    block, so that maxima are of whole stretches of memory. ``maxima`` as in :class:`Found`, where they are known.
    """
    users, n = scores.shape
    large = LARGE_BLOCKS * k
    if not users or not k or n < 2 * large or n.bit_length() + users.bit_length() > 32:
        return _sorted_places(scores, k)
    if maxima is not None and len(maxima) < 2 * large:
        maxima = None
    by_place = scores.T
    if maxima is None:
        width = max(1, int(np.sqrt(n / k) / 2.5))
        apart = n // (large * width) * large
        whole = apart * width
        maxima = by_place[:whole].reshape(width, apart, users).max(axis=0)
    else:
        width, apart, whole = BLOCK, PIECE // BLOCK, BLOCK * len(maxima)
    largest = maxima[: len(maxima) // large * large].reshape(-1, large, users).max(axis=0).T
    bound = np.partition(largest, large - k, axis=1)[:, large - k].copy()
    block, user = np.divmod(np.flatnonzero(maxima >= bound), users)
    alike = np.zeros(0, np.intp)
    if len(block) > 2 * k * users:
        alike = np.flatnonzero(np.bincount(user, minlength=users) > MANY_ALIKE * k)
        bound[alike] = np.inf
        block, user = np.divmod(np.flatnonzero(maxima >= bound), users)
    places = (block // apart * apart * width + block % apart)[:, None] + apart * np.arange(width)
    values = by_place[places, user[:, None]]
    reached = np.flatnonzero(values >= bound[user, None])
    left, last = np.divmod(np.flatnonzero(by_place[whole:] >= bound), users)
    user = np.append(user[reached // width], last)
    places = np.append(places.reshape(-1)[reached], whole + left)
    falling = np.sort(_falling(user, np.append(values.reshape(-1)[reached], by_place[whole + left, last]), places, n))
    counts = np.bincount(user, minlength=users)
    first = np.where(counts, np.cumsum(counts) - counts, 0)[:, None] + np.arange(k)
    best = (np.append(falling, np.zeros(k, np.uint64))[first] & _mask(n)).astype(np.intp)
    best[alike] = _sorted_places(scores[alike], k)
    return best


def _falling(user: Places, values: Floats, places: Places, n: int) -> NDArray[np.uint64]:
    """Return numbers that sort as user, falling value, place do, with the place in their last bits; places < n."""
    bits = (values + np.float32(0)).view(np.int32)  # +0 for -0
    value = np.where(bits < 0, bits, bits ^ np.int32(0x7FFFFFFF)).view(np.uint32)
    width = np.uint64(n.bit_length())
    found: NDArray[np.uint64] = ((user.astype(np.uint64) << np.uint64(32) | value) << width) | places.astype(np.uint64)
    return found


def _mask(n: int) -> np.uint64:
    return np.uint64((1 << n.bit_length()) - 1)


def _sorted_places(scores: Floats, k: int) -> Places:
    users, n = scores.shape
    if k == n:
        best = np.broadcast_to(np.arange(n), (users, n))
    else:
        least = np.partition(scores, n - k, axis=1)[:, n - k, None]
        chosen = scores >= least
        for user in np.flatnonzero(np.count_nonzero(chosen, axis=1) > k):  # several share the last place
            tied = np.flatnonzero(scores[user] == least[user])
            chosen[user, tied[len(tied) - (np.count_nonzero(chosen[user]) - k) :]] = False
        best = np.nonzero(chosen)[1].reshape(users, k)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


@dataclass(frozen=True)
class _Front:
    """The same for all users: places of what editors ask for, the newest, the most popular, overall and of each
    category [categories, m] (-1: none)."""

    editor: Places
    newest: Places
    popular: Places
    by_category: Places


def _front(catalogue: Catalogue, weights: Weights, amounts: Amounts, now_ms: int) -> _Front:
    key = weights, amounts
    if key not in catalogue.fronts:
        places = catalogue.open
        common = common_parts(catalogue, weights, now_ms, places).sum(axis=0)
        published = catalogue.published_at[places]
        by_editors = places[catalogue.placement[places] != AUTO]
        by_editors = by_editors[np.argsort(-catalogue.published_at[by_editors], kind="stable")]
        best = places[np.argsort(-common, kind="stable")]
        names, numbers, _ = catalogue.categories
        of = numbers[best]
        order = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=len(names))
        rank = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        by_category = np.full((len(names) + 1, amounts.of_category), -1, np.intp)
        first = rank < amounts.of_category
        by_category[of[order][first], rank[first]] = best[order][first]
        catalogue.fronts[key] = _Front(
            by_editors[: amounts.editor],
            places[np.argsort(-published, kind="stable")[: amounts.newest]],
            best[: amounts.popular],
            by_category,
        )
    front: _Front = catalogue.fronts[key]
    return front


def _popular(
    readers: Readers, catalogue: Catalogue, front: _Front, weights: Weights, amounts: Amounts, now_ms: int
) -> Places:
    """Return the most popular, [u, m]: in the user's region where they told one."""
    popular = np.broadcast_to(front.popular, (len(readers), len(front.popular)))
    regions = readers.regions(catalogue.regional.numbers)
    if not regions.any():
        return popular
    popular = popular.copy()
    for region in np.unique(regions[regions > 0]).tolist():
        key = weights, amounts, region
        if key not in catalogue.fronts:
            places = np.union1d(front.popular, catalogue.regional.seen[region])
            places = places[catalogue.listed[places]]
            here = common_parts(catalogue, weights, now_ms, places).sum(axis=0)
            here += np.float32(weights.popularity) * catalogue.regional.excess[region, places]
            catalogue.fronts[key] = places[np.argsort(-here, kind="stable")[: len(front.popular)]]
        popular[regions == region] = catalogue.fronts[key]
    return popular


def _favourites(readers: Readers, catalogue: Catalogue, now_ms: int) -> Places:
    """Return the numbers of the two categories that each user reads most, [u, 2]; the number past the last: none."""
    names, _, _ = catalogue.categories
    liked = np.zeros((len(readers), len(names) + 1))
    users, hashes, weights = readers.category_weights(now_ms)
    if len(names):
        at = np.minimum(np.searchsorted(names, hashes), len(names) - 1)
        known = (names[at] == hashes) & (hashes != 0)
        liked[users[known], at[known]] = weights[known]
    most = np.argsort(-liked, axis=1, kind="stable")[:, :CATEGORIES]
    favourites = np.full((len(readers), CATEGORIES), len(names), np.intp)
    favourites[:, : most.shape[1]] = np.where(np.take_along_axis(liked, most, axis=1) > 0, most, len(names))
    return favourites


def _followed(readers: Readers, catalogue: Catalogue, most: int) -> Places:
    places = np.full((len(readers), most), -1, np.intp)
    for user, labels in enumerate(readers.follows):
        if labels:
            found = np.unique(np.concatenate([catalogue.labels.places(label) for label in labels]))
            found = found[catalogue.listed[found]]
            newest = found[np.argsort(-catalogue.published_at[found], kind="stable")[:most]]
            places[user, : len(newest)] = newest
    return places[:, : int((places >= 0).sum(axis=1).max(initial=0))]


def _best(scores: Floats, k: int, least: float = -np.inf, maxima: Floats | None = None) -> Places:
    """Return the places of the k largest scores, -1 for those that are not above ``least``."""
    if np.isfinite(least) and not scores.any():
        return np.zeros((len(scores), 0), np.intp)
    best = best_places(scores, min(k, scores.shape[1]), maxima)
    return np.where(np.take_along_axis(scores, best, axis=1) > least, best, -1)


def _keys(places: Places, source: int) -> NDArray[np.int64]:
    return np.where(places >= 0, places * len(SOURCES) + source, _NONE)
