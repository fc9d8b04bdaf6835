"""What an editor would insist on, after the model: which articles may be listed, and how a list is put together.

    listed at all      not withdrawn, held, expired, embargoed, too old, blocked, or in another language
    in a user's list   not read, not shown too often without a click, not muted, in no language that they do not read
    put together       pinned articles first; then one by one the best that is left, where an article loses
                       by likeness to those before it (MMR: Carbonell and Goldstein 1998); of near-duplicates the newest
                       alone; no more of a category or source than its cap; now and then a place for an article
                       that few have seen, drawn by user, article and day
    long enough        where caps leave a list shorter than ``minimum``, they yield

Every rule is a setting: :class:`Rules` says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.settings import Settings, places_of
from ranking.candidates import best_places
from ranking.catalogue import PINNED, Catalogue
from ranking.exploration import DAY_MS, HOLDOUT, Drawn, draw, uniform
from ranking.features import Floats, Places, find, marked
from ranking.languages import foreign
from ranking.readers import Readers

HOUR_MS = 3_600_000
SHORTLIST = 40
AGAIN_AT_ONCE = 16
FREE, READ, TIRED, MUTED, FOREIGN = range(5)
BARS = ("", "read", "fatigue", "muted", "language")
"""Why an article may not be in a user's list."""
LEFT, CHOSEN, DUPLICATE, CAPPED = range(4)
FATES = ("lower score", "chosen", "near duplicate", "cap")
"""What became of a candidate."""
_FIRST = np.float32(1e4)


@dataclass(frozen=True)
class Rules:
    """The rules' numbers; counts are of articles, ``None`` means no limit."""

    length: int = 20
    minimum: int = 10
    category_cap: int | None = None
    source_cap: int | None = None
    pinned: int = 3
    fatigue_limit: int | None = 20
    duplicate_cosine: float = 0.95
    diversity: float = 0.2
    exploration: float = 0.05
    explored_below: float = 50.0
    explored_ms: int = DAY_MS
    cold_below: float = 0.7
    holdout: float = 0.02
    ttl_ms: int = 30 * DAY_MS
    blocked: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    language_reads: int = 10

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that ``settings`` ask for."""
        length = settings.list_length
        return cls(
            length=length,
            minimum=min(settings.list_minimum, length),
            category_cap=None if settings.category_share == 1 else places_of(settings.category_share, length),
            source_cap=None if settings.source_share == 1 else places_of(settings.source_share, length),
            pinned=settings.pinned_articles,
            fatigue_limit=settings.fatigue_limit or None,
            duplicate_cosine=settings.duplicate_cosine,
            diversity=settings.diversity,
            exploration=settings.exploration,
            explored_below=settings.explore_impressions,
            explored_ms=round(settings.explore_hours * HOUR_MS),
            holdout=settings.holdout,
            ttl_ms=round(settings.article_ttl_days * DAY_MS),
            blocked=tuple(settings.blocked),
            languages=tuple(settings.languages),
            language_reads=settings.language_reads,
        )

    def held_out(self, seed: int) -> bool:
        """Whether the user with this 64-bit hash always gets the popular list."""
        return uniform(seed, HOLDOUT) < self.holdout


@dataclass(frozen=True)
class Chosen:
    """Lists, [u, k] each: columns of the candidates (-1: none), and the probability of what was drawn (NaN: not drawn).

    ``fates`` [u, c] says what became of each candidate, ``least`` [u] what a newcomer's score has to reach for the
    model to choose it (-inf: anything will do), ``drawn`` what was drawn to be explored.
    """

    columns: Places
    propensities: Floats
    fates: NDArray[np.int8]
    least: Floats
    drawn: Drawn


def may_be_listed(
    rules: Rules,
    now_ms: int,
    *,
    present: NDArray[np.bool_],
    held: NDArray[np.bool_],
    published_at: NDArray[np.int64],
    expires_at: NDArray[np.int64],
    barred: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return which articles may be in lists at all, [n]; ``expires_at`` 0 means never, ``barred`` blocked or in a
    language that lists are not in."""
    listed: NDArray[np.bool_] = (
        present
        & ~held
        & (published_at <= now_ms)
        & (published_at > now_ms - rules.ttl_ms)
        & ((expires_at == 0) | (expires_at > now_ms))
        & ~barred
    )
    return listed


def bars(readers: Readers, catalogue: Catalogue, shown: Floats, rules: Rules) -> NDArray[np.int8]:
    """Return why each article may not be in each user's list, [u, n], as a number of :data:`BARS`.

    ``shown`` [u, n] as of :func:`ranking.features.shown_counts`.
    """
    barred = np.zeros((len(readers), len(catalogue.hashes)), np.int8)
    for user, past in enumerate(readers.pasts):
        if past.mutes:
            barred[user, marked(catalogue, past.mutes)] = MUTED
    if rules.fatigue_limit:
        barred[shown >= rules.fatigue_limit] = TIRED
    users, places, _ = find(catalogue, readers.read)
    unread = foreign(catalogue, users, places, [past.language for past in readers.pasts], rules.language_reads)
    if unread is not None:
        barred[unread] = FOREIGN
    barred[users, places] = READ
    return barred


def choose(readers: Readers, catalogue: Catalogue, places: Places, scores: Floats, rules: Rules, now_ms: int) -> Chosen:
    """Put lists together from candidates that are not barred: places [u, c] (-1: none), scores [u, c]."""
    users, width = places.shape
    lists = users, rules.length
    scores = np.where(places >= 0, scores, np.float32(-np.inf))
    few = few_have_seen(catalogue, rules, now_ms)[places] & (places >= 0) if width else places >= 0
    hashes = catalogue.hashes[places] if width else places.astype(np.uint64)
    shares = exploration_shares(readers, rules)
    drawn = draw(scores, hashes, few, readers.seeds, shares, rules.length, now_ms)
    chosen = Chosen(
        np.full(lists, -1, np.intp), np.full(lists, np.nan, np.float32), np.zeros(places.shape, np.int8),
        np.full(users, -np.inf, np.float32), drawn,
    )  # fmt: skip
    if not width:
        return chosen
    order = scores + _pinned_first(catalogue, places, rules)
    crowded = _crowded(catalogue.category[places], order, rules.category_cap)
    shortlist = np.where(crowded, order - _FIRST, order)
    lucky = np.flatnonzero(drawn.columns >= 0)
    shortlist[lucky, drawn.columns[lucky]] += _FIRST
    k = min(max(SHORTLIST, 2 * rules.length), width)
    whole = k == width
    _put_together(chosen, np.arange(users), best_places(shortlist, k), catalogue, places, order, rules, whole=whole)
    # A shortlist of much the same may leave places that others could take.
    unfilled = np.zeros(0, np.intp) if whole else np.flatnonzero((chosen.columns < 0).any(axis=1))
    for start in range(0, len(unfilled), AGAIN_AT_ONCE):
        again = unfilled[start : start + AGAIN_AT_ONCE]
        _put_together(chosen, again, best_places(order[again], width), catalogue, places, order, rules, whole=True)
    return chosen


def _crowded(category: NDArray[np.uint64], order: Floats, cap: int | None) -> NDArray[np.bool_]:
    """Return which candidates [u, c] have so many better ones of their category that the cap leaves them no chance."""
    if cap is None:
        return np.zeros(order.shape, np.bool_)
    best_first = np.argsort(-order, axis=1)
    of = np.take_along_axis(category, best_first, axis=1)
    by_category = np.argsort(of, axis=1, kind="stable")
    of = np.take_along_axis(of, by_category, axis=1)
    number = np.arange(order.shape[1])
    begins = np.ones(of.shape, np.bool_)
    begins[:, 1:] = of[:, 1:] != of[:, :-1]
    rank = number - np.maximum.accumulate(np.where(begins, number, 0), axis=1)
    crowded = np.zeros(order.shape, np.bool_)
    places = np.take_along_axis(best_first, by_category, axis=1)
    np.put_along_axis(crowded, places, (rank >= 2 * cap) & (of != 0), axis=1)
    return crowded


def few_have_seen(catalogue: Catalogue, rules: Rules, now_ms: int) -> NDArray[np.bool_]:
    """Return which articles are to be explored, [n]."""
    return (
        catalogue.listed
        & (catalogue.impressions < rules.explored_below)
        & (catalogue.published_at > now_ms - rules.explored_ms)
    )


def exploration_shares(readers: Readers, rules: Rules) -> Floats:
    """Return which share of places each user explores, [u]: up to twice as much of whom little is known.

    How little says the interest model's spread, or where it gives none, whether the confidence is below ``cold_below``.
    """
    unsure = np.where(np.isnan(readers.spread), readers.confidence < rules.cold_below, np.clip(readers.spread, 0, 1))
    return np.where(readers.personal, rules.exploration * (1 + unsure), 0).astype(np.float32)


def _pinned_first(catalogue: Catalogue, places: Places, rules: Rules) -> Floats:
    """Return what puts the newest pinned articles at the head: [u, c]."""
    pinned = (places >= 0) & (catalogue.placement[places] == PINNED)
    if not pinned.any():
        return np.zeros(places.shape, np.float32)
    published = np.where(pinned, catalogue.published_at[places], -1)
    rank = np.argsort(np.argsort(-published, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(pinned & (rank < rules.pinned), _FIRST - 50 * rank, 0).astype(np.float32)


def _put_together(
    chosen: Chosen, users: Places, short: Places, catalogue: Catalogue, all_places: Places, order: Floats, rules: Rules,
    *, whole: bool,
) -> None:  # fmt: skip
    """Fill the lists of ``users`` [v] from their columns ``short`` [v, m], which are in falling order.

    ``whole`` says that there are no others, so that caps may yield.
    """
    rows, across = np.arange(len(users)), users[:, None]
    places, value = all_places[across, short], order[across, short]
    alike = catalogue.likeness(places, places)
    near = alike >= rules.duplicate_cosine
    has_twin = near.sum(axis=2) > 1
    published = catalogue.published_at[places]
    drawn = (short == chosen.drawn.columns[across]) & (chosen.drawn.columns[across] >= 0)
    lucky, drawn_at = drawn.any(axis=1), drawn.argmax(axis=1)
    caps = _Caps(catalogue, places, rules)
    taken = np.zeros(short.shape, np.bool_)
    twins = np.zeros(short.shape, np.bool_)
    dislike = np.zeros(short.shape, np.float32)
    columns, propensities = (
        np.full((len(users), rules.length), -1, np.intp),
        np.full((len(users), rules.length), np.nan),
    )
    least = np.full(len(users), np.inf, np.float32)
    for number in range(rules.length):
        utility = caps.applied(value - dislike, yielding=whole and number < rules.minimum)
        best = utility.argmax(axis=1)
        explores = lucky & (chosen.drawn.slots[users] == number) & np.isfinite(utility[rows, drawn_at])
        best[explores] = drawn_at[explores]
        reached = utility[rows, best]
        there = np.isfinite(reached)
        pinned = value[rows, best] > _FIRST / 2
        least = np.where(there, np.where(explores | pinned, least, np.minimum(least, reached)), -np.inf)
        if not there.any():
            break
        one = best
        if (has_twin[rows, best] & there).any():
            newest = np.where(near[rows, best] & np.isfinite(utility), published, -1).argmax(axis=1)
            newer = there & ~pinned & (published[rows, newest] > published[rows, best])
            one, explores = np.where(newer, newest, best), explores & ~newer
            gone = (near[rows, best] | near[rows, one]) & there[:, None]
            twins |= gone & np.isfinite(value)
            value[gone] = -np.inf
        value[rows[there], one[there]] = -np.inf
        taken[rows[there], one[there]] = True
        columns[:, number] = np.where(there, short[rows, one], -1)
        propensities[explores, number] = chosen.drawn.propensities[users[explores]]
        np.maximum(dislike, np.float32(rules.diversity) * alike[rows, one], out=dislike)
        caps.count(one, there)
    chosen.columns[users], chosen.propensities[users], chosen.least[users] = columns, propensities, least
    fates = np.where(caps.reached & np.isfinite(value), CAPPED, LEFT)
    chosen.fates[across, short] = np.where(taken, CHOSEN, np.where(twins, DUPLICATE, fates))


class _Caps:
    """How many of each category and source are in lists, and which articles [v, m] are of one that is full."""

    def __init__(self, catalogue: Catalogue, places: Places, rules: Rules) -> None:
        caps = (catalogue.category, rules.category_cap), (catalogue.source, rules.source_cap)
        self._kinds = [(of[places], cap, np.zeros(places.shape, np.int16)) for of, cap in caps if cap is not None]
        self._rows = np.arange(len(places))
        self.reached = np.zeros(places.shape, np.bool_)

    def applied(self, utility: Floats, *, yielding: bool) -> Floats:
        """Return ``utility`` with -inf where a cap is reached; ``yielding`` caps let all through if need be."""
        if not self._kinds:
            return utility
        within = np.where(self.reached, np.float32(-np.inf), utility)
        if yielding:
            stuck = np.isneginf(within.max(axis=1, keepdims=True))
            within = np.where(stuck, utility, within)
        return within

    def count(self, taken: Places, there: NDArray[np.bool_]) -> None:
        """Count the article ``taken`` [v] into each list where one is ``there`` [v]."""
        for kind, cap, counts in self._kinds:
            counts += (kind == kind[self._rows, taken][:, None]) & (kind != 0) & there[:, None]
            self.reached |= counts >= cap
