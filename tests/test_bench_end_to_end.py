"""The clock of the end-to-end benchmark: which list ends the wait of a click, and of which clicks none ever does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.end_to_end.load import Readers
from contract.messages import Article, Cause, CauseKind, Event, Item, List, encode
from producers.newsroom import Newsroom

HELD = ["one", "two", "three"]


@dataclass
class Told:
    """A record of ``recommendations``."""

    value_: bytes
    key_: bytes = b"ann"

    def key(self) -> bytes:
        return self.key_

    def value(self) -> bytes:
        return self.value_


@dataclass
class Topic:
    """Hands out what was told, once."""

    records: list[Told] = field(default_factory=list)

    def tell(self, articles: Sequence[str], kind: CauseKind = "start", cause: str = "") -> None:
        items = [Item(article_id=article, score=0.0, reason="similar", source="similar") for article in articles]
        shown = List(user_id="ann", list_id="l", generated_at=0, cause=Cause(kind=kind, id=cause, at=0), generation="g",
                     items=items)  # fmt: skip
        self.records.append(Told(encode(shown)))

    def poll(self, seconds: float = 0.0, limit: int = 1000) -> list[Told]:
        handed, self.records = self.records, []
        return handed


@dataclass
class Sent:
    """Keeps what is sent."""

    events: list[Event] = field(default_factory=list)
    articles: list[Article] = field(default_factory=list)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def article(self, article: Article) -> None:
        self.articles.append(article)

    def serve(self) -> None:
        """Nothing is ever refused."""


@pytest.fixture
def topic() -> Topic:
    topic = Topic()
    topic.tell(HELD)
    return topic


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def readers(topic: Topic, sent: Sent) -> Readers:
    anybody: Any = topic, sent
    readers = Readers(["ann"], anybody[0], anybody[1], Newsroom(1), seed=1)
    readers.listen(0)
    return readers


def test_each_click_comes_after_an_impression_of_the_items_that_were_looked_at(readers: Readers, sent: Sent) -> None:
    readers.click(2, counts=True)
    viewed, clicked = sent.events
    assert (viewed.kind, [item.article_id for item in viewed.shown]) == ("impression", HELD[:2])
    assert (clicked.kind, clicked.article_id) == ("click", HELD[clicked.position or 0])


def test_a_click_waits_while_lists_hold_its_article(readers: Readers, sent: Sent, topic: Topic) -> None:
    readers.click(2, counts=True)
    topic.tell(HELD, "article", "one")
    readers.listen(0)
    assert readers.open_clicks == 1
    assert not len(readers.measured.event_to_list)
    assert readers.forget_open() == 1


def test_the_first_list_without_its_article_ends_the_wait_of_a_click(
    readers: Readers, sent: Sent, topic: Topic
) -> None:
    readers.click(2, counts=True)
    topic.tell(["four"])
    readers.listen(0)
    assert (readers.open_clicks, len(readers.measured.event_to_list)) == (0, 1)


def test_a_list_that_names_the_click_ends_its_wait_whatever_it_holds(
    readers: Readers, sent: Sent, topic: Topic
) -> None:
    readers.click(2, counts=True)
    clicked = sent.events[1]
    topic.tell(HELD, "event", clicked.event_id)
    readers.listen(0)
    assert (readers.open_clicks, len(readers.measured.event_to_list)) == (0, 1)


def test_a_publication_is_timed_by_the_lists_that_name_it(readers: Readers, sent: Sent, topic: Topic) -> None:
    readers.publish(counts=True)
    published = sent.articles[0].article_id
    topic.tell([published, *HELD], "article", published)
    topic.tell([published, *HELD], "article", "another")
    readers.listen(0)
    assert len(readers.measured.publish_to_list) == 1
