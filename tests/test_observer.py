"""The demo's own account: what it counts, times and follows on a real Kafka, and whom it shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from confluent_kafka import KafkaException, Producer

from contract.messages import Article, Cause, CauseKind, Event, Item, List, encode
from contract.records import PARTITION_KEY, PartitionTotals, encode_plain
from contract.settings import Settings
from contract.topics import Topics
from demo.audience import LISTS, PATIENCE_SECONDS, Audience
from demo.latencies import LONGEST_MS, RECENT_SECONDS, Latencies
from demo.observer import Account, Observer
from demo.suggestions import LONGEST, suggested_headlines
from producers.newsroom import CATEGORIES
from streams.admin import create_topics
from streams.clients import make_admin, make_producer
from streams.table import end_offsets
from tests.pipeline import await_true, now_ms


class System:
    """Topics with nobody behind them: what the workers would write is written here."""

    def __init__(self, settings: Settings) -> None:
        self.topics = Topics(settings, "test")
        create_topics(settings, self.topics.specs())
        self._admin = make_admin(settings)
        self.producer: Producer = make_producer(settings, name="test")
        await_true(self._led, "leaders of all partitions", 30)
        self.observer = Observer(settings, self.topics)
        self.observer.start()

    def _led(self) -> bool:
        try:
            for spec in self.topics.specs():
                end_offsets(self._admin, spec.name, range(spec.partitions))
        except KafkaException:
            return False
        return True

    def events(self, partition: int, count: int) -> None:
        for _ in range(count):
            value = encode(Event(user_id="u", kind="click", at=now_ms(), article_id="a"))
            self.producer.produce(self.topics.user_events, value, b"u", partition)
        self.producer.flush()

    def totals(self, partition: int, **totals: int) -> None:
        """What the users worker says of a partition, as of some time after all that was sent until now."""
        value = encode_plain(msgspec.structs.replace(PartitionTotals(timestamp=now_ms() + 1000), **totals))
        self.producer.produce(self.topics.user_vectors, value, PARTITION_KEY, partition)
        self.producer.flush()

    def list(self, user_id: str, kind: CauseKind, at: int, *articles: str) -> None:
        items = [Item(article_id=a, score=0.0, reason="new", source="newest") for a in articles]
        value = encode(
            List(
                user_id=user_id, list_id="l", generated_at=now_ms(), generation="test", items=items,
                cause=Cause(kind=kind, id="c", at=at),
            )
        )  # fmt: skip
        self.producer.produce(self.topics.recommendations, value, user_id.encode())
        self.producer.flush()

    def await_account(self, what: str, of: Callable[[Account], bool]) -> Account:
        return await_true(
            lambda: account if of(account := self.observer.account()) else None, what, seen=self.observer.account
        )

    def await_lists(self, count: int) -> None:
        await_true(lambda: self.observer.lists_published == count, f"{count} lists")


@pytest.fixture
def system(settings: Settings) -> Iterator[System]:
    made = System(settings)
    yield made
    made.observer.close()
    assert made.observer.failure is None


def test_what_was_sent_is_folded_waiting_duplicate_dead_or_in_flight(system: System) -> None:
    system.events(0, 5)
    system.events(2, 3)
    assert not system.observer.wait_accounted(0.5)
    system.totals(0, read=5, folded=2, waiting=1, duplicate=1, dead=1)
    account = system.await_account("partition 0", lambda a: a.sent == 8 and a.read == 5)
    assert (account.folded, account.waiting, account.duplicate, account.dead) == (2, 1, 1, 1)
    assert (account.in_flight, account.lost) == (3, 0)
    system.totals(2, read=3, folded=3)
    assert system.observer.wait_accounted(20)
    assert system.observer.account().unaccounted == 0
    assert system.observer.has_read([5, 0, 3, 0])
    assert not system.observer.has_read([5, 0, 4, 0])


def test_totals_that_are_seen_before_their_events_wait_for_them(system: System) -> None:
    system.totals(1, read=3, folded=3)
    system.totals(1, read=4, folded=4)
    system.totals(2, read=1, folded=1)
    system.events(2, 1)
    system.await_account("the other partition", lambda a: a.sent == 1 and a.read == 1)
    system.events(1, 3)
    account = system.await_account("what is counted", lambda a: a.sent == 4)
    assert (account.read, account.folded, account.in_flight, account.lost) == (4, 4, 0, 0)
    assert not system.observer.wait_accounted(0.5), "the worker says it read more than was sent"
    system.events(1, 1)
    assert system.observer.wait_accounted(20)


def test_an_event_that_the_worker_passed_over_is_lost(system: System) -> None:
    system.events(1, 4)
    system.totals(1, read=3, folded=3)
    system.await_account("one lost", lambda a: a.sent == 4 and a.lost == 1)
    assert not system.observer.wait_accounted(0.5)


def test_an_event_read_of_which_nobody_says_what_became_is_lost(system: System) -> None:
    system.events(1, 4)
    system.totals(1, read=4, folded=2, duplicate=1)
    account = system.await_account("one lost", lambda a: a.sent == 4 and a.lost == 1)
    assert account.unaccounted == 1


def test_articles_are_accounted_for_once_they_have_their_vector(system: System) -> None:
    article = Article(article_id="a", title="A", published_at=now_ms())
    for _ in range(2):
        system.producer.produce(system.topics.articles, encode(article), b"a")
    system.producer.flush()
    await_true(lambda: system.observer.articles == (1, 0), "one article")
    assert not system.observer.wait_accounted(0.5)
    system.producer.produce(system.topics.article_vectors, b"any bytes", b"a")
    system.producer.flush()
    assert system.observer.wait_accounted(20)
    assert system.observer.articles == (1, 1)


def test_only_lists_caused_live_by_an_event_or_a_publication_are_timed(system: System) -> None:
    before = now_ms() - 5000
    system.list("u1", "event", before)
    system.await_lists(1)
    system.observer.begin(0)
    system.list("u2", "event", before)
    system.list("u3", "refresh", now_ms())
    system.list("u4", "event", now_ms())
    system.list("u5", "article", now_ms())
    system.list("~popular", "article", now_ms())
    system.await_lists(6)
    assert system.observer.event_to_list.total()["count"] == 1
    assert system.observer.publish_to_list.total()["count"] == 2
    assert 0 <= (system.observer.event_to_list.total()["p50"] or 0) < 5000, "those of before took longer"
    assert system.observer.users == 5


def test_latencies_of_the_first_seconds_do_not_count(system: System) -> None:
    system.observer.begin(1000)
    system.list("u1", "event", now_ms())
    system.await_lists(1)
    assert system.observer.event_to_list.total() == {"p50": None, "p95": None, "p99": None, "count": 0}
    assert system.observer.event_to_list.recent(time.monotonic())["count"] == 1


def test_a_watched_article_is_followed_into_the_lists_of_users(system: System) -> None:
    system.list("u0", "article", now_ms(), "a")
    system.await_lists(1)
    system.observer.watch("a", "A headline", now_ms())
    for user_id, articles in (("u1", ["b", "a"]), ("~popular", ["a"]), ("u2", ["b"]), ("u3", ["a"]), ("u1", ["a"])):
        system.list(user_id, "article", now_ms(), *articles)
    system.await_lists(6)
    reach = await_true(
        lambda: found if (found := system.observer.reach) and len(found.users) == 2 else None, "two users"
    )
    assert reach.users == {"u1", "u3"}
    await_true(lambda: reach.curve and reach.curve[-1][1] == 2, "the curve's end")


def test_percentiles_are_exact_and_recent_ones_forget() -> None:
    latencies = Latencies()
    values = np.random.default_rng(1).integers(0, 3000, 2000)
    for second, value in enumerate(values.tolist()):
        latencies.add(value, float(second), counts=True)
    p50, p95, p99 = np.percentile(values, [50, 95, 99], method="inverted_cdf").tolist()
    assert latencies.total() == {"p50": p50, "p95": p95, "p99": p99, "count": 2000}
    recent = values[-round(RECENT_SECONDS) - 1 :]
    assert latencies.recent(1999.0)["count"] == len(recent)
    assert latencies.recent(1999.0)["p50"] == np.percentile(recent, 50, method="inverted_cdf")
    assert latencies.recent(9999.0)["count"] == 0


def test_a_latency_beyond_any_bound_still_counts() -> None:
    latencies = Latencies()
    latencies.add(-5, 0.0, counts=True)
    latencies.add(10**9, 0.0, counts=True)
    assert latencies.total()["count"] == 2
    assert latencies.total()["p99"] == LONGEST_MS


def test_those_who_are_shown_have_least_in_common() -> None:
    audience = Audience()
    lists = {"sports": "abcde", "sports too": "abcdf", "politics": "vwxyz", "food": "mnopq", "sometimes": "12345"}
    for turn in range(LISTS):
        for user, articles in lists.items():
            if user != "sometimes" or turn == 0:
                audience.take(user, frozenset(articles), float(turn))
    chosen = audience.choose(3, 5.0)
    assert len(set(chosen)) == 3
    assert {"politics", "food"} < set(chosen)


def test_nobody_is_shown_before_there_is_something_to_see_but_not_forever() -> None:
    audience = Audience()
    assert audience.choose(3, 0.0) == []
    for user in "abc":
        audience.take(user, frozenset(user), 0.0)
    assert audience.choose(3, 1.0) == []
    assert set(audience.choose(3, PATIENCE_SECONDS)) == {"a", "b", "c"}
    assert audience.choose(4, PATIENCE_SECONDS) == []


def test_suggested_headlines_are_short_and_of_all_categories() -> None:
    headlines = suggested_headlines(2 * len(CATEGORIES))
    assert [headline.category for headline in headlines] == [*CATEGORIES, *CATEGORIES]
    assert len({headline.title for headline in headlines}) == len(headlines)
    assert all(headline.abstract and len(headline.title) <= LONGEST for headline in headlines)
