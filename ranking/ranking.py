"""The whole ranking: features of (users x candidates) -> log-odds of a click -> rules -> lists.

Everything is an array over whole batches of users; nothing is kept between calls. Candidates are found
exactly (:mod:`ranking.candidates`), scored (:mod:`ranking.features`) and put together (:mod:`ranking.rules`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ranking.candidates import (
    NEWEST,
    POPULAR,
    SIMILAR,
    Amounts,
    Candidates,
    find_candidates,
    similarities,
)
from ranking.catalogue import PINNED, Catalogue
from ranking.features import (
    ALIKE,
    PARTS,
    Floats,
    Interests,
    Places,
    Weights,
    category_likings,
    co_read_shares,
    common_parts,
    interests_of,
    score_parts,
    shown_counts,
)
from ranking.feedback import Adapted
from ranking.readers import Readers
from ranking.reranker import ClickModel, as_by_hand, model_scores
from ranking.rules import FOREIGN, FREE, Chosen, Rules, bars, choose

CHUNK_USERS = 256
LEAST_USERS = 64
"""In a chunk, unless their scores were more than are kept at once; with more users, if scores stay in the cache."""
CACHED_SCORES, SCORES_AT_ONCE = 400_000, 8_000_000
CONCERNED_AT_ONCE = 8_000_000
SURPRISE = 1.0
"""So many deviations what a product cannot know of a newcomer may lie above its mean."""
STEEPEST = 3.0
WHATEVER_THE_SCORE = np.float32(1e4)


@dataclass(frozen=True)
class Formula:
    """All that a ranking goes by. Where there is a ``model``, its scores take the place of the sum of the parts."""

    weights: Weights = field(default_factory=Weights)
    rules: Rules = field(default_factory=Rules)
    amounts: Amounts = field(default_factory=Amounts)
    model: ClickModel | None = None
    source_weights: tuple[float, ...] | None = None
    """What candidates of personal lists gain by their source (:mod:`ranking.feedback`), in log-odds."""

    def adapted(self, adapted: Adapted, exploration: float) -> Formula:
        """Return the formula with what feedback says; ``exploration`` is the share that the settings ask for."""
        rules = replace(self.rules, exploration=exploration * adapted.exploration)
        return replace(self, rules=rules, source_weights=adapted.sources)


@dataclass(frozen=True)
class Ranked:
    """Lists of u users: ``places`` in the catalogue [u, k] (-1: none), ``scores`` [u, k], ``parts`` [u, k, parts],
    ``sources`` [u, k] as numbers of :data:`ranking.candidates.SOURCES`, ``propensities`` [u, k] (NaN: not drawn).

    Where there is no place the score is -inf and the parts are 0. ``trigger`` [u, d], ``entry`` [u] and
    ``likings`` [u, categories], in the order of the catalogue's, and ``entries`` [u, k], what would take each place,
    tell whom a publication concerns: :func:`concerned`. So does ``unread`` [u]: a bit, by its number, for each
    language that the user does not read.
    """

    places: Places
    scores: Floats
    parts: Floats
    sources: NDArray[np.int8]
    propensities: Floats
    trigger: Floats
    entry: Floats
    likings: Floats
    entries: Floats
    unread: NDArray[np.uint64]


@dataclass(frozen=True)
class Standing:
    """What of u users' last rankings tells whom a publication concerns.

    ``trigger`` [u, d], ``entry`` [u] and ``entries`` [u, k] as in :class:`Ranked`; ``listed`` [u, k] the hashes of the
    articles in the lists.
    """

    trigger: Floats
    entry: Floats
    listed: NDArray[np.uint64]
    entries: Floats


@dataclass(frozen=True)
class Trace:
    """How lists came about: ``barred`` [u, n], and of the candidates [u, c] parts [parts, u, c] and fates."""

    barred: NDArray[np.int8]
    candidates: Candidates
    parts: Floats
    chosen: Chosen


def rank(readers: Readers, catalogue: Catalogue, formula: Formula, now_ms: int) -> Ranked:
    """Return the lists of all ``readers``."""
    size = max(1, len(catalogue.hashes))
    chunk = min(CHUNK_USERS, max(1, CACHED_SCORES // size, min(LEAST_USERS, SCORES_AT_ONCE // size)))
    pieces = [
        rank_traced(readers.some(slice(start, start + chunk)), catalogue, formula, now_ms)[0]
        for start in range(0, max(1, len(readers)), chunk)
    ]
    if len(pieces) == 1:
        return pieces[0]
    return Ranked(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Ranked.__dataclass_fields__))


def rank_traced(readers: Readers, catalogue: Catalogue, formula: Formula, now_ms: int) -> tuple[Ranked, Trace]:
    """Return the lists of few users and how they came about."""
    weights, rules = formula.weights, formula.rules
    interests = interests_of(readers, catalogue, weights)
    shown = shown_counts(readers, catalogue)
    barred = bars(readers, catalogue, shown, rules)
    likings = category_likings(readers, catalogue, weights, now_ms)
    similar = similarities(interests, catalogue, barred != FREE)
    co_reads = co_read_shares(readers, catalogue, now_ms)
    found = find_candidates(readers, catalogue, similar, co_reads, weights, formula.amounts, now_ms)
    few = (found.places >= 0).sum(axis=1, initial=0) < rules.length
    if few.any() and len(catalogue) > found.places.shape[1]:
        found = _everything(found, similar.scores, few)
    parts = score_parts(
        readers, catalogue, found.places, weights, now_ms, interests=interests, co_reads=co_reads, shown=shown,
        likings=likings,
    )  # fmt: skip
    gained = np.zeros(found.places.shape, np.float32)
    if formula.source_weights is not None:
        weights_of = np.array(formula.source_weights, np.float32)
        gained = np.where(readers.personal[:, None], weights_of[_told(found.sources, parts)], gained)
    by_hand = np.where(found.places >= 0, parts.sum(axis=0) + gained, np.float32(-np.inf))
    scores = standing = by_hand
    if formula.model is not None:
        modelled = model_scores(formula.model, readers, catalogue, found.places, parts, now_ms)
        scores = np.where(found.places >= 0, modelled + gained, np.float32(-np.inf))
    chosen = choose(readers, catalogue, found.places, scores, rules, now_ms)
    least = chosen.least
    if formula.model is not None:  # publications are held against what a product with a vector can tell
        standing, least = as_by_hand(scores, by_hand, scores), as_by_hand(scores, by_hand, least[:, None])[:, 0]
    trigger, entry = _entry(readers, interests, parts, by_hand, least)
    unread = _unread(barred, catalogue)
    ranked = _ranked(chosen, found, scores, parts, trigger, entry, likings, standing, least, unread)
    return ranked, Trace(barred, found, parts, chosen)


def concerned(
    standing: Standing, likings: Floats, catalogue: Catalogue, places: Places, formula: Formula, now_ms: int
) -> NDArray[np.intp]:
    """Return [u]: the first of the articles at ``places`` [m] that would enter each user's list, -1 where none would.

    ``likings`` [m, u] are what each article's category is worth to each user, NaN where the article may not be in their
    list. MMR counts likeness to what is listed against a newcomer, and of a category at its cap it has to be better
    than one that is listed. A pinned article would enter every list. It only triggers: the full ranking decides.
    """
    vectors = catalogue.vectors[places]
    common = common_parts(catalogue, formula.weights, now_ms, places).sum(axis=0)
    common += np.where(catalogue.placement[places] == PINNED, WHATEVER_THE_SCORE, np.float32(0))
    likenesses = vectors @ catalogue.vectors.T
    first = np.full(len(standing.entry), -1, np.intp)
    at_once = max(1, CONCERNED_AT_ONCE // max(1, len(vectors)))
    for start in range(0, len(standing.entry) if len(vectors) else 0, at_once):
        some = slice(start, start + at_once)
        reached = standing.trigger[some] @ vectors.T
        reached += common
        reached += likings[:, some].T
        users, articles = np.nonzero(reached >= standing.entry[some, None])
        kept = catalogue.places(standing.listed[some][users].reshape(-1)).reshape(len(users), standing.listed.shape[1])
        score = reached[users, articles]
        alike = np.where(kept >= 0, likenesses[articles[:, None], kept], np.float32(0)).max(axis=1, initial=0)
        enters = score - formula.rules.diversity * alike >= standing.entry[some][users]
        enters &= score >= _capped(standing.entries[some][users], kept, places[articles], catalogue, formula.rules)
        enters |= alike >= formula.rules.duplicate_cosine  # it takes the place of its twin
        users, articles = users[enters], articles[enters]
        first[some][users[::-1]] = articles[::-1]
    return first


def _capped(entries: Floats, kept: Places, places: Places, catalogue: Catalogue, rules: Rules) -> Floats:
    """Return what the articles at ``places`` [r] have to reach where lists ``kept`` [r, k] are full of their kind."""
    least = np.full(len(places), -np.inf, np.float32)
    for of, cap in ((catalogue.category, rules.category_cap), (catalogue.source, rules.source_cap)):
        if cap is not None:
            same = (of[kept] == of[places, None]) & (kept >= 0) & (of[places, None] != 0)
            worst = np.where(same, entries, np.float32(np.inf)).min(axis=1, initial=np.inf)
            np.maximum(least, np.where(same.sum(axis=1) >= cap, worst, -np.inf), out=least)
    return least


def _everything(found: Candidates, similar: Floats, few: NDArray[np.bool_]) -> Candidates:
    """Let all that may be in their lists be candidates of those who have too few."""
    allowed = np.where(few, np.isfinite(similar).sum(axis=1), 0)
    width = max(found.places.shape[1], int(allowed.max()))
    wider = ((0, 0), (0, width - found.places.shape[1]))
    places, sources = np.pad(found.places, wider, constant_values=-1), np.pad(found.sources, wider)
    for user in np.flatnonzero(few):
        others = np.setdiff1d(np.flatnonzero(np.isfinite(similar[user])), places[user])
        count = int((places[user] >= 0).sum())
        places[user, count : count + len(others)] = others
        sources[user, count : count + len(others)] = SIMILAR
    return Candidates(places, sources)


def _entry(
    readers: Readers, interests: Interests, parts: Floats, scores: Floats, least: Floats
) -> tuple[Floats, Floats]:
    """Return ``trigger`` [u, d] and ``entry`` [u]: an article enters where ``trigger @ a`` and what is known without
    the user's past, and the user's liking for its category, reach the entry.

    How near an article is to the nearest read is no product with a vector. It is taken to be linear in ``long``, as
    fitted over the candidates, and a newcomer to lie some deviations above that.
    """
    long, nearest = parts[PARTS.index("long")], parts[PARTS.index("nearest")]
    there = np.isfinite(scores)
    counts = np.maximum(there.sum(axis=1, initial=0), 1)
    mean_long, mean_nearest = (np.where(there, x, 0).sum(axis=1) / counts for x in (long, nearest))
    off = np.where(there, long - mean_long[:, None], 0)
    variance = (off**2).sum(axis=1)
    slope = np.divide((off * nearest).sum(axis=1), variance, out=np.zeros_like(variance), where=variance > ALIKE)
    slope = np.clip(slope, 0, STEEPEST).astype(np.float32)
    level = mean_nearest - slope * mean_long
    beyond = nearest - level[:, None] - slope[:, None] * long
    close = there & (scores >= least[:, None] - 1)
    counts = np.maximum(close.sum(axis=1, initial=0), 1)
    mean = np.where(close, beyond, 0).sum(axis=1) / counts
    deviation = np.sqrt(np.where(close, (beyond - mean[:, None]) ** 2, 0).sum(axis=1) / counts)
    scales = interests.scales * np.stack([1 + slope, np.ones_like(slope)], axis=1)
    trigger = np.einsum("uq,uqd->ud", scales, readers.queries).astype(np.float32)
    entry = least + (interests.means * scales).sum(axis=1) - level - (mean + SURPRISE * deviation)
    return trigger, entry.astype(np.float32)


def _unread(barred: NDArray[np.int8], catalogue: Catalogue) -> NDArray[np.uint64]:
    """Return the bits of the languages that each user does not read, [u], as far as ``barred`` [u, n] says."""
    bits, places = catalogue.language_samples
    unread: NDArray[np.uint64] = ((barred[:, places] == FOREIGN) * bits).sum(axis=1, dtype=np.uint64)
    return unread


def _told(sources: NDArray[np.int8], parts: Floats) -> NDArray[np.int8]:
    """Return what is told as the source of candidates [u, c] with ``parts`` [parts, u, c].

    Where all articles are candidates, they are not all similar.
    """
    near = sum(parts[PARTS.index(part)] for part in ("long", "short", "nearest")) > 0
    liked = parts[PARTS.index("popularity")] + parts[PARTS.index("appeal")] > 0
    told: NDArray[np.int8] = np.where((sources == SIMILAR) & ~near, np.where(liked, POPULAR, NEWEST), sources)
    return told.astype(np.int8)


def _ranked(
    chosen: Chosen, found: Candidates, scores: Floats, parts: Floats, trigger: Floats, entry: Floats, likings: Floats,
    standing: Floats, least: Floats, unread: NDArray[np.uint64],
) -> Ranked:  # fmt: skip
    """``standing`` [u, c] and ``least`` [u] are the scores and the least to be listed in the units of ``entry``."""
    columns = chosen.columns
    users = np.arange(len(columns))[:, None]
    there = columns >= 0
    if not found.places.shape[1]:
        nothing = np.zeros((*columns.shape, len(PARTS)), np.float32)
        return Ranked(
            columns, np.full(columns.shape, -np.inf, np.float32), nothing, np.zeros(columns.shape, np.int8),
            chosen.propensities, trigger, entry, likings,
            np.full(columns.shape, -np.inf, np.float32), unread,
        )  # fmt: skip
    listed = np.where(there[:, :, None], parts[:, users, columns].transpose(1, 2, 0), np.float32(0))
    sources = _told(found.sources[users, columns], listed.transpose(2, 0, 1))
    scored = np.where(there, scores[users, columns], np.float32(-np.inf))
    full = np.isfinite(least)
    above = np.subtract(entry, least, out=np.zeros_like(entry), where=full)
    stands = np.where(there, standing[users, columns], np.float32(-np.inf))
    return Ranked(
        places=np.where(there, found.places[users, columns], -1),
        scores=scored,
        parts=listed,
        sources=sources,
        propensities=chosen.propensities,
        trigger=trigger,
        entry=entry,
        likings=likings,
        entries=stands + above[:, None],
        unread=unread,
    )
