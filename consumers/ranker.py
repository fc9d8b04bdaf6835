"""The ranker: changed states and new articles in, fresh lists out, exactly once."""

from __future__ import annotations

import time
from collections import Counter as Counted
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress

from prometheus_client import Counter, Gauge, Histogram

from consumers import ranker_quality
from consumers.article_view import ArticleView
from consumers.ranker_catalogue import FreshArticles
from consumers.ranker_counts import GroupCounts, take_co_reads, take_stats
from consumers.ranker_feedback import FeedbackLoop
from consumers.ranker_lists import BATCH_USERS, RankerLists
from consumers.ranker_publication import Publication
from consumers.ranker_shadow import Shadow
from contract.errors import TransactionFailed
from contract.messages import POPULAR_IN, RELATED_TO, encode
from contract.settings import Settings
from contract.topics import Topics
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES, STATS_HALF_LIFE_MS
from encoders.interest import InterestModel
from ranking.co_reading import CoReading
from ranking.popularity import Popularity
from ranking.ranking import Formula
from ranking.regions import RegionalCounts
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.table import TableReader
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Stop, Stopped

NAME = "ranker"
_LATENCY = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 60)
LISTS = Counter("stoppress_lists_total", "Lists published by the kind of their cause", ["cause"])
RESERVED = Counter(
    "stoppress_reserved_lists_total", "Lists of a category or of related articles that were written", ["kind"]
)
RANKED = Counter("stoppress_ranked_users_total", "Users ranked, whether or not their list changed")
RANK_SECONDS = Histogram("stoppress_rank_seconds", "Ranking one batch of users", buckets=_LATENCY)
EVENT_TO_LIST = Histogram(
    "stoppress_event_to_list_seconds", "From an event's Kafka timestamp to its committed list", buckets=_LATENCY
)
PUBLISH_TO_LIST = Histogram(
    "stoppress_publish_to_list_seconds", "From an article's Kafka timestamp to a committed list", buckets=_LATENCY
)
FALLBACKS = Counter("stoppress_fallback_lists_total", "Published lists that are the popular one under a user's name")
ITEMS = Counter("stoppress_listed_items_total", "Items of published lists by the reason that they give", ["reason"])
FRESH = Gauge("stoppress_fresh_articles", "Articles that may be listed now")
READERS = Gauge("stoppress_ranker_users", "Users whose lists are kept here")
PUT_OFF = Gauge("stoppress_rankings_put_off", "Users who wait for their ranking, by the kind of its cause", ["cause"])
PUT_OFF_SECONDS = Gauge(
    "stoppress_rankings_put_off_seconds", "How old the cause is for which the first of them waits", ["cause"]
)


def run(
    settings: Settings, topics: Topics, model: InterestModel, stop: Stop, health: HealthServer,
    formula: Formula | None = None,
) -> None:  # fmt: skip
    """Rank by ``formula``, that of the settings where none is given, until a stop is requested.

    Blocks; raises :class:`contract.errors.Fenced`.
    """
    identity = Identity.of(settings, NAME, topics.generation)
    pulse = Pulse(stop, health)
    with suppress(Stopped), ExitStack() as stack:
        view = ArticleView(settings, topics.article_vectors, dims=model.dims, name=NAME)
        articles = stack.enter_context(closing(view))
        stats = stack.enter_context(closing(TableReader(settings, topics.article_stats, name=f"{NAME}.stats")))
        next_reads = stack.enter_context(closing(TableReader(settings, topics.co_reads, name=f"{NAME}.co-reads")))
        popularity = Popularity(settings.partitions, STATS_HALF_LIFE_MS, SHORT_HALF_LIVES_MINUTES)
        co_reads = CoReading(CO_READS_HALF_LIFE_MS)
        regions = RegionalCounts(STATS_HALF_LIFE_MS)
        fresh = FreshArticles(settings, articles.table, popularity, co_reads, regions)
        lists = RankerLists(settings, topics, model, fresh, formula)
        restored = articles.catch_up(pulse)
        groups = GroupCounts(settings.partitions, STATS_HALF_LIFE_MS)
        take_stats(popularity, regions, groups, stats.catch_up(pulse=pulse))
        take_co_reads(co_reads, next_reads.catch_up(pulse=pulse))
        feedback = FeedbackLoop(settings, groups.feedback, lists)
        shadow = stack.enter_context(closing(Shadow(settings, topics, lists)))
        lists.take_articles(restored, _now_ms())
        changelogs = [topics.recommendations]
        group = GroupInput(
            settings, topics.user_vectors, identity, lists, name=NAME, changelogs=changelogs, pulse=pulse,
            also_read=[topics.article_vectors, topics.article_stats, topics.co_reads],
        )  # fmt: skip
        source = stack.enter_context(closing(group))
        output = TransactionalOutput(
            settings, identity, name=NAME, pulse=pulse, reads=topics.user_vectors, writes=[topics.recommendations]
        )
        while not stop.requested:
            # 1. Consume changed users, new articles and statistics; a batch fills while nobody waits for a ranking.
            seconds = 0.0 if source.assigned and lists.put_off() else settings.batch_wait_ms / 1000
            records = source.consume(settings.batch_events, seconds)
            now = _now_ms()
            take_stats(popularity, regions, groups, stats.poll(limit=20_000))
            take_co_reads(co_reads, next_reads.poll(limit=20_000))
            feedback.turn(now)
            lists.take_articles(articles.poll(), now)
            if not source.assigned:
                continue  # what is revoked may be another's by now
            # 2. Find whose list is due, and rank.
            lists.take_users(records, now)
            publications = _rank(lists, now)
            if records or publications:
                try:
                    # 3. Write lists and the offsets of all owned partitions in one transaction.
                    with output.transaction(source, source.positions_after(records)):
                        for p in publications:
                            value = None if p.result is None else encode(p.result)
                            output.send(topics.recommendations, p.user_id.encode(), value, p.partition)
                except TransactionFailed:
                    # 4. Aborted or unknown: what was computed is dropped and read again.
                    source.reread(keep=False)
                    continue
                _count(publications, lists, groups)
            shadow.turn(publications, now)


def _rank(lists: RankerLists, now_ms: int) -> list[Publication]:
    due = lists.due(now_ms)
    began = time.perf_counter()
    publications = list(lists.rank(due, now_ms))
    if due:
        RANK_SECONDS.observe(time.perf_counter() - began)
        RANKED.inc(len(due))
    return [*publications, *lists.rank_reserved(now_ms, busy=len(due) >= BATCH_USERS)]


def _now_ms() -> int:
    return int(time.time() * 1000)


def _count(publications: Sequence[Publication], lists: RankerLists, groups: GroupCounts) -> None:
    now = _now_ms()
    groups.publish(now)
    reserved = [p.user_id for p in publications if p.user_id.startswith((POPULAR_IN, RELATED_TO))]
    related = sum(name.startswith(RELATED_TO) for name in reserved)
    RESERVED.labels("related").inc(related)
    RESERVED.labels("category").inc(len(reserved) - related)
    theirs = [p for p in publications if not p.user_id.startswith((POPULAR_IN, RELATED_TO))]
    lists_of = [p.result for p in theirs if p.result is not None]
    LISTS.labels("forget").inc(len(theirs) - len(lists_of))
    FALLBACKS.inc(sum(shown.fallback and not shown.user_id.startswith("~") for shown in lists_of))
    for reason, count in Counted([item.reason for shown in lists_of for item in shown.items]).items():
        ITEMS.labels(reason).inc(count)
    for cause, count in Counted(shown.cause.kind for shown in lists_of).items():
        LISTS.labels(cause).inc(count)
    for shown in lists_of:
        if shown.cause.kind == "event":
            EVENT_TO_LIST.observe(max(0, now - shown.cause.at) / 1000)
        elif shown.cause.kind == "article":
            PUBLISH_TO_LIST.observe(max(0, now - shown.cause.at) / 1000)
    READERS.set(lists.user_count())
    FRESH.set(lists.article_count())
    ranker_quality.publish(lists.quality(now))
    for kind, (count, seconds) in lists.waiting(now).items():
        PUT_OFF.labels(kind).set(count)
        PUT_OFF_SECONDS.labels(kind).set(seconds)
