"""Lists that are nobody's own, ranked like any other.

``~popular/CATEGORY`` is the popular list over the articles of one category. ``~related/ARTICLE`` is the list of a
reader who has read that article and nothing else, whose interest is its vector; nothing in it is explored or pinned.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from contract.records import KIND_BITS, RECENT
from ranking.catalogue import Catalogue, Facts
from ranking.features import Places
from ranking.ranking import Formula
from ranking.readers import NO_PAST, Past, Readers
from ranking.rules import Rules

_LIKED = np.dtype([("category", "<u8"), ("weight", "<f8")])
_CLICK = KIND_BITS["click"] << 16


def nobody(catalogue: Catalogue) -> Readers:
    """Return one reader of whom nothing is known."""
    queries = np.zeros((1, 2, catalogue.vectors.shape[1]), np.float32)
    return Readers.of(queries, [NO_PAST], personal=np.zeros(1, np.bool_))


def of_category(catalogue: Catalogue, category: int) -> Catalogue:
    """Return the listed articles of one category (64-bit hash) as a catalogue of their own; nobody's labels."""
    at = catalogue.open[catalogue.category[catalogue.open] == np.uint64(category)]
    facts = Facts(
        category=catalogue.category[at],
        source=catalogue.source[at],
        language=catalogue.language[at],
        languages=catalogue.languages,
        placement=catalogue.placement[at],
        popularity=catalogue.popularity[at],
        appeal=catalogue.appeal[at],
        impressions=catalogue.impressions[at],
        counts=catalogue.counts[:, :, at],
        base_rate=catalogue.base_rate,
        moments=catalogue.moments,
    )
    ids = [catalogue.ids[place] for place in at.tolist()]
    return Catalogue(ids, catalogue.vectors[at], catalogue.hashes[at], catalogue.published_at[at], facts)


def within_category(formula: Formula) -> Formula:
    """Return the formula for lists of one category, of which there is no cap then."""
    return replace(formula, rules=replace(formula.rules, category_cap=None))


def readers_of(catalogue: Catalogue, places: Places, rules: Rules, now_ms: int) -> Readers:
    """Return for each article at ``places`` one who has just read it, and whatever tells the same story no later."""
    vectors = catalogue.vectors[places]
    twins = vectors @ catalogue.vectors.T >= rules.duplicate_cosine
    twins &= catalogue.published_at <= catalogue.published_at[places][:, None]
    twins &= catalogue.hashes != 0
    twins[np.arange(len(places)), places] = True
    pasts = [
        _past(catalogue, int(place), np.flatnonzero(same), now_ms) for place, same in zip(places, twins, strict=True)
    ]
    queries = np.stack([vectors, vectors], axis=1)
    return Readers.of(queries, pasts, confidence=np.ones(len(places), np.float32))


def related(formula: Formula, length: int) -> Formula:
    """Return the formula for lists of ``length`` related articles."""
    rules = formula.rules
    cap = None if rules.source_cap is None else max(1, math.ceil(rules.source_cap * length / rules.length))
    # An article has one language, and so have those related to it.
    nothing_drawn = replace(
        rules,
        length=length,
        minimum=0,
        category_cap=None,
        source_cap=cap,
        pinned=0,
        exploration=0.0,
        language_reads=min(1, rules.language_reads),
    )
    return replace(formula, rules=nothing_drawn)


def _past(catalogue: Catalogue, place: int, read: NDArray[np.intp], now_ms: int) -> Past:
    category = int(catalogue.category[place])
    return Past(
        read=catalogue.hashes[read].tobytes(),
        recents=RECENT.pack(int(catalogue.hashes[place]), now_ms, _CLICK),
        affinities=np.array([(category, 1.0)], _LIKED).tobytes() if category else b"",
        affinities_at=now_ms,
    )
