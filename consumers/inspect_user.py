"""The whole calculation of one user's list, done again from the topics as they are now."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from typing import NamedTuple

import msgspec
import numpy as np

from consumers.article_view import ArticleView
from consumers.ranker_catalogue import FreshArticles
from consumers.ranker_counts import GroupCounts, take_co_reads, take_stats
from consumers.ranker_formula import formula_of
from contract.errors import StoppressError
from contract.messages import POPULAR, POPULAR_IN, RELATED_TO, List, decode
from contract.murmur2 import partition_of
from contract.records import decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import hash64
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES, STATS_HALF_LIFE_MS
from encoders.interest import InterestModel, long_and_short, spread_of
from ranking.candidates import SOURCES
from ranking.catalogue import AUTO, PINNED, Catalogue
from ranking.co_reading import CoReading
from ranking.features import PARTS, click_probability
from ranking.popularity import Popularity
from ranking.ranking import Formula, rank_traced
from ranking.readers import Past, Readers
from ranking.reasons import WORDS, reasons
from ranking.regions import RegionalCounts
from ranking.reserved import nobody, of_category, readers_of, related, within_category
from ranking.rules import BARS, FATES, FREE
from streams.table import read_to_end

NAME = "inspect"


class Considered(msgspec.Struct, frozen=True):
    """One candidate: what speaks for it, and what the rules made of it. ``position`` is None where it is not listed."""

    article_id: str
    source: str
    probability: float
    score: float
    parts: dict[str, float]
    fate: str
    position: int | None = None
    reason: str = ""
    words: str = ""
    propensity: float | None = None


class Calculation(msgspec.Struct, frozen=True):
    """What ``inspect user`` tells; ``barred`` counts the listed articles that may not be in this user's list, by rule.

    ``published`` are the articles of the list that the user has, of ``published_at`` (epoch ms; 0: no list).
    """

    user_id: str
    partition: int
    events_folded: int
    confidence: float
    held_out: bool
    listed_articles: int
    barred: dict[str, int]
    candidates: list[Considered]
    published: list[str]
    published_at: int


class _Subject(NamedTuple):
    """Whom a list is for, one reader, and what it is ranked from."""

    reader: Readers
    catalogue: Catalogue
    formula: Formula
    events_folded: int = 0
    held_out: bool = False


def inspect_user(settings: Settings, topics: Topics, model: InterestModel, user_id: str) -> Calculation:
    """Read what the ranker reads, and rank one user, or what a reserved key stands for.

    Blocks; raises :class:`StoppressError` where there is none.
    """
    partition = partition_of(user_id.encode(), settings.partitions)
    now = int(time.time() * 1000)
    if user_id.startswith("~"):
        reader, catalogue, formula, folded, held_out = _reserved(settings, topics, model.dims, user_id, now)
    else:
        reader, catalogue, formula, folded, held_out = _user(settings, topics, model, user_id, partition, now)
    ranked, trace = rank_traced(reader, catalogue, formula, now)
    present = _newest(settings, topics.recommendations, partition, user_id)
    shown = None if present is None else decode(List, present)
    barred = Counter(trace.barred[0][catalogue.open].tolist())
    found = trace.candidates.places[0]
    pinned = np.append(catalogue.placement, AUTO)[ranked.places] == PINNED
    drawn = ~np.isnan(ranked.propensities)
    position = {place: number for number, place in enumerate(ranked.places[0].tolist()) if place >= 0}
    why = reasons(ranked.parts, drawn, pinned)[0]
    scores = trace.parts[:, 0].sum(axis=0)
    order = sorted(np.flatnonzero(found >= 0), key=lambda c: (position.get(int(found[c]), len(found)), -scores[c]))
    return Calculation(
        user_id=user_id,
        partition=partition,
        events_folded=folded,
        confidence=round(float(reader.confidence[0]), 3),
        held_out=held_out,
        listed_articles=len(catalogue),
        barred={BARS[code]: count for code, count in sorted(barred.items()) if code != FREE},
        candidates=[
            Considered(
                article_id=catalogue.ids[place],
                source=SOURCES[trace.candidates.sources[0, column]],
                probability=round(float(click_probability(scores[column], catalogue)), 5),
                score=round(float(scores[column]), 4),
                parts={name: round(float(x), 4) for name, x in zip(PARTS, trace.parts[:, 0, column], strict=True)},
                fate=FATES[trace.chosen.fates[0, column]],
                position=position.get(place),
                reason=why[position[place]] if place in position else "",
                words=WORDS[why[position[place]]] if place in position else "",
                propensity=float(ranked.propensities[0, position[place]])
                if place in position and drawn[0, position[place]]
                else None,
            )
            for column, place in ((column, int(found[column])) for column in order)
        ],
        published=[] if shown is None else [item.article_id for item in shown.items],
        published_at=0 if shown is None else shown.generated_at,
    )


def _user(
    settings: Settings, topics: Topics, model: InterestModel, user_id: str, partition: int, now_ms: int
) -> _Subject:
    state = _newest(settings, topics.user_vectors, partition, user_id)
    if state is None:
        raise StoppressError(f"{topics.user_vectors} holds no user {user_id!r}: no event of theirs has been folded")
    user = decode_user(state)
    fresh = _fresh_articles(settings, topics, model.dims, now_ms)
    seed = hash64(user_id)
    held_out = fresh.rules.held_out(seed)
    reader = Readers.of(
        long_and_short(model.query(user.vector[None])), [Past.of(user.windows)],
        seeds=np.array([seed], np.uint64), personal=np.array([not held_out]),
        spread=spread_of(model, user.vector[None]),
    )  # fmt: skip
    return _Subject(reader, fresh.catalogue, formula_of(settings), user.folded, held_out)


def _reserved(settings: Settings, topics: Topics, dims: int, key: str, now_ms: int) -> _Subject:
    fresh = _fresh_articles(settings, topics, dims, now_ms)
    catalogue, formula = fresh.catalogue, formula_of(settings)
    if key == POPULAR:
        return _Subject(nobody(catalogue), catalogue, formula)
    if key.startswith(POPULAR_IN):
        catalogue = of_category(catalogue, hash64(key.removeprefix(POPULAR_IN)))
        if len(catalogue):
            return _Subject(nobody(catalogue), catalogue, within_category(formula))
    if key.startswith(RELATED_TO) and settings.related_length:
        place = catalogue.places(np.array([hash64(key.removeprefix(RELATED_TO))], np.uint64))
        if place[0] >= 0 and catalogue.listed[place[0]]:
            formula = related(formula, settings.related_length)
            return _Subject(readers_of(catalogue, place, formula.rules, now_ms), catalogue, formula)
    raise StoppressError(
        f"there is no list {key!r}: it needs an article that may be listed; the keys are {POPULAR}, "
        f"{POPULAR_IN}CATEGORY and {RELATED_TO}ARTICLE"
    )


def _fresh_articles(settings: Settings, topics: Topics, dims: int, now_ms: int) -> FreshArticles:
    popularity = Popularity(settings.partitions, STATS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES)
    co_reads = CoReading(CO_READS_HALF_LIFE_MS)
    groups = GroupCounts(settings.partitions, STATS_HALF_LIFE_MS)
    regions = RegionalCounts(STATS_HALF_LIFE_MS)
    take_stats(popularity, regions, groups, read_to_end(settings, topics.article_stats, name=NAME))
    take_co_reads(co_reads, read_to_end(settings, topics.co_reads, name=NAME))
    with closing(ArticleView(settings, topics.article_vectors, dims=dims, name=NAME)) as view:
        fresh = FreshArticles(settings, view.table, popularity, co_reads, regions)
        fresh.refresh(view.catch_up(), now_ms)
    return fresh


def _newest(settings: Settings, topic: str, partition: int, key: str) -> bytes | None:
    value = None
    for record in read_to_end(settings, topic, name=NAME, partitions=[partition]):
        if record.key() == key.encode():
            value = record.value()
    return value
