"""What the articles worker decides, against any order of versions, withdrawals, batches and crashes."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumers.article_view import CAUSE_HEADER
from consumers.articles_desk import Desk
from consumers.articles_published import OFFSET_HEADER
from consumers.articles_runner import Embedded, Runner
from contract.errors import EncoderUnusable, UnreadableState
from contract.messages import Article, encode
from contract.records import ArticleRecord, decode_article, encode_article
from contract.settings import load
from contract.topics import Topics
from encoders.text import TextEncoder
from streams.record import Record
from streams.restore import Restore

DAY = 86_400_000
NOW = 1_750_000_000_000
DIMS = 4
SETTINGS = load(["article_ttl_days=30", "encoder_read_ahead=8"], environ={})
TOPICS = Topics(SETTINGS, "0badcafe")


@dataclass(frozen=True)
class Line:
    """A record of a log."""

    at: int
    place: int
    id: str
    content: bytes | None
    with_headers: Sequence[tuple[str, bytes]] = ()
    in_partition: int = 0

    def topic(self) -> str:
        return "log"

    def partition(self) -> int:
        return self.in_partition

    def offset(self) -> int:
        return self.place

    def key(self) -> bytes | None:
        return self.id.encode()

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 2, self.at

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self.with_headers)


class Restored(Restore):
    """The one partition's log of vectors, as it is restored from."""

    def __init__(self, committed: int, written: Sequence[Line]) -> None:
        self.committed = {0: committed}
        self._unreadable = {}
        self._written = written

    def read(self, topic: str, put: Callable[[Record], None], mended_by: object = None) -> None:
        for record in self._written:
            put(record)


class Letters(TextEncoder):
    """Tokens are the text's characters; the vector counts a few of them. Fails on texts with a bang."""

    def __init__(self) -> None:
        self.dims = DIMS
        self.provider = "letters"
        self.texts_run = 0

    def tokenise(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        if any("?" in text for text in texts):
            raise ValueError("what is this?")
        return [np.array([ord(letter) for letter in text], np.int32) for text in texts]

    def run(self, tokens: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        if any(ord("!") in each for each in tokens):
            raise RuntimeError("out of memory\nwith details")
        self.texts_run += len(tokens)
        numbers = [[np.nan if ord("%") in t else t.sum(), len(t), t[0], t[-1]] for t in tokens]
        vectors: NDArray[np.float32] = np.array(numbers, np.float32)
        return vectors


def vector(title: str) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = Letters().run(Letters().tokenise([title]))[0]
    return numbers


def line(offset: int, article_id: str, title: str | None, at: int = NOW, **fields: object) -> Line:
    """A record of ``articles``; a withdrawal where ``title`` is None."""
    if title is None:
        return Line(at, offset, article_id, None)
    article = Article(article_id=article_id, title=title, **{"published_at": at - 1000, **fields})  # type: ignore[arg-type]
    return Line(at, offset, article_id, encode(article))


@dataclass
class Worker:
    """A worker without Kafka: a log in, its own logs out, and transactions that never fail; crashes do happen."""

    log: list[Line]
    encoder: Letters = field(default_factory=Letters)
    written: list[Line] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    committed: int = 0
    now: int = NOW

    def __post_init__(self) -> None:
        self.crash()

    def crash(self) -> None:
        """Lose all that is not in a log."""
        self.desk = Desk(SETTINGS, TOPICS, self.encoder)
        self.desk.restore(Restored(self.committed, self.written))
        self.position = self.committed
        self.batch: list[object] = []
        self.running = Runner(self.encoder)

    def read(self, count: int) -> None:
        room = min(count, self.desk.backlog.room)
        records = self.log[self.position : self.position + room]
        self.position += len(records)
        self.desk.take_records(records, self.now)
        self.commit()

    def start(self, articles: int = 4) -> None:
        if not self.running.busy and (batch := self.desk.take_batch(articles, 100, self.now)):
            self.running.start(batch)
        self.commit()

    def end(self) -> None:
        self.running.wait(10)
        embedded = self.running.collect()
        if embedded is not None:
            self.desk.take_vectors(embedded)
        self.commit()

    def expire(self) -> None:
        self.desk.expire([0], self.now)
        self.commit()

    def commit(self) -> None:
        positions = self.desk.positions({0: self.committed})
        assert positions[0] >= self.committed
        self.committed = positions[0]
        staged = self.desk.adopt(positions)
        for (_, article_id), (value, headers) in staged.values.items():
            self.written.append(Line(self.now, len(self.written), article_id, value, headers or ()))
        self.dead += [record.offset() for record, _ in staged.dead]
        for outcome, count in staged.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count

    def finish(self) -> None:
        while self.committed < len(self.log):
            self.read(3)
            self.end()
            self.start()

    def of(self, article_id: str) -> list[ArticleRecord | None]:
        """What was written of an article, None for a tombstone."""
        return [None if w.content is None else decode_article(w.content) for w in self.written if w.id == article_id]

    def stands(self, article_id: str) -> ArticleRecord:
        """The newest that was written of an article, which is no tombstone."""
        newest = self.of(article_id)[-1]
        assert newest is not None
        return newest


def version_of(written: Line) -> int:
    if written.content is None:
        return int(dict(written.with_headers)[OFFSET_HEADER])
    return decode_article(written.content).meta.offset


def test_unchanged_text_keeps_its_vector_and_takes_the_new_metadata() -> None:
    worker = Worker([line(0, "a", "title")])
    worker.finish()
    worker.log.append(line(1, "a", "title", category="sport", expires_at=NOW + DAY))
    worker.read(1)
    changed = worker.stands("a")
    assert (changed.meta.category, changed.expires_at, changed.meta.offset) == ("sport", NOW + DAY, 1)
    np.testing.assert_array_equal(changed.vector, vector("title"))
    assert worker.committed == 2
    assert worker.encoder.texts_run == 1
    assert worker.outcomes == {"embedded": 1, "unchanged": 1}


def test_another_language_is_no_other_text_and_goes_with_the_metadata() -> None:
    worker = Worker([line(0, "a", "title", language="en")])
    worker.finish()
    worker.log.append(line(1, "a", "title", language="pt-BR"))
    worker.finish()
    assert worker.encoder.texts_run == 1
    assert worker.stands("a").meta.language == "pt-BR"
    assert worker.stands("a").vector.tolist() == vector("title").tolist()


def test_reading_tokenising_and_committing_go_on_while_a_batch_is_run() -> None:
    class Slow(Letters):
        def __init__(self) -> None:
            super().__init__()
            self.may_end = threading.Event()

        def run(self, tokens: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
            assert self.may_end.wait(30)
            return super().run(tokens)

    encoder = Slow()
    worker = Worker([line(0, "a", "first"), line(1, "b", None), line(2, "c", "third")], encoder)
    worker.read(1)
    worker.start()
    worker.read(2)
    assert worker.running.collect() is None
    assert worker.of("b") == [None]
    assert [version.article_id for version in worker.desk.backlog.take(9, 999)] == ["c"]
    encoder.may_end.set()
    worker.end()
    assert worker.stands("a").vector.tolist() == vector("first").tolist()


def test_a_vector_of_another_size_is_said_to_be_anothers() -> None:
    worker = Worker([line(0, "a", "title")])
    worker.finish()
    record = decode_article(worker.written[0].content or b"")
    wider = ArticleRecord(np.ones(DIMS + 1, np.float32), NOW, 0, NOW, record.meta)
    desk = Desk(SETTINGS, TOPICS, Letters())
    with pytest.raises(UnreadableState, match=r"5 numbers where this generation has 4; something else .* wrote it"):
        desk.restore(Restored(1, [Line(NOW, 0, "a", encode_article(wider))]))


def test_large_dead_letters_do_not_wait_for_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    log = [line(0, "a", "title"), Line(NOW, 1, "b", b"x" * 100)]
    worker = Worker(log)
    worker.read(2)
    assert worker.dead == [], "its offset is not committed yet"
    monkeypatch.setattr("consumers.articles_desk.HELD_BYTES", 99)
    worker.commit()
    assert worker.dead == [1]


def test_unchanged_text_is_not_embedded_again_after_a_crash() -> None:
    worker = Worker([line(0, "a", "title")])
    worker.finish()
    worker.log.append(line(1, "a", "title", placement="held"))
    worker.crash()
    worker.finish()
    assert worker.encoder.texts_run == 1
    newest = worker.stands("a")
    assert newest.meta.placement == "held"


def test_a_hold_with_a_new_text_goes_out_at_once_with_the_old_vector() -> None:
    worker = Worker([line(0, "a", "title")])
    worker.finish()
    worker.log.append(line(1, "a", "other", placement="held"))
    worker.read(1)
    held = worker.stands("a")
    assert held.meta.placement == "held"
    np.testing.assert_array_equal(held.vector, vector("title"))
    worker.crash()
    worker.finish()
    complete = worker.stands("a")
    assert complete.meta.placement == "held"
    np.testing.assert_array_equal(complete.vector, vector("other"))


def test_what_editors_change_is_in_the_log_with_who_and_when(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stoppress.articles")
    ann = {"editor": "ann"}
    by_header = [("editor", b"ben")]
    worker = Worker([
        line(0, "a", "title"),
        line(1, "p", "title", placement="pinned", attributes=ann),
        line(2, "a", "title", placement="held", attributes=ann),
        line(3, "a", "another title", placement="held", attributes={"editor": 7}),
        dataclasses.replace(line(4, "a", "another title", at=NOW + 5), with_headers=by_header),
        line(5, "p", "title", placement="pinned", expires_at=NOW + DAY),
        dataclasses.replace(line(6, "p", None), with_headers=by_header),
    ])  # fmt: skip
    for _ in worker.log:
        worker.read(1)
        worker.start()
        worker.end()
    told = [record.fields for record in caplog.records if record.message == "editors_change"]  # type: ignore[attr-defined]
    assert told == [
        {"article": "p", "by": "ann", "at": NOW, "placement": "auto -> pinned"},
        {"article": "a", "by": "ann", "at": NOW, "placement": "auto -> held"},
        {"article": "a", "by": "ben", "at": NOW + 5, "placement": "held -> auto"},
        {"article": "p", "by": "unknown", "at": NOW, "expires_at": f"never -> {NOW + DAY}"},
        {"article": "p", "by": "ben", "at": NOW, "placement": "withdrawn"},
    ]


def test_a_new_text_alone_is_written_once() -> None:
    worker = Worker([line(0, "a", "title", published_at=5 * DAY + NOW - 9 * DAY)])
    worker.finish()
    worker.log.append(line(1, "a", "other", published_at=5 * DAY + NOW - 9 * DAY))
    worker.finish()
    assert len(worker.of("a")) == 2


def test_a_hold_during_the_first_run_is_in_the_first_record() -> None:
    worker = Worker([line(0, "a", "title"), line(1, "a", "title", placement="held")])
    worker.read(1)
    worker.start()
    worker.read(1)
    worker.end()
    assert [w and w.meta.placement for w in worker.of("a")] == ["held"]
    assert worker.committed == 2
    assert worker.encoder.texts_run == 1


def test_a_withdrawal_during_the_run_leaves_no_vector() -> None:
    worker = Worker([line(0, "a", "title"), line(1, "a", None)])
    worker.read(1)
    worker.start()
    worker.read(1)
    worker.end()
    assert worker.of("a") == [None]


def test_what_is_expired_when_it_comes_needs_no_encoder() -> None:
    worker = Worker([
        line(0, "past", "title", expires_at=NOW - 1),
        line(1, "of age", "title", published_at=NOW - 31 * DAY),
        line(2, "fresh", "title", published_at=NOW - 29 * DAY),
    ])  # fmt: skip
    worker.finish()
    assert worker.of("past") == worker.of("of age") == [None]
    assert worker.encoder.texts_run == 1
    assert worker.outcomes == {"expired": 2, "embedded": 1}


def test_an_article_expires_in_the_backlog_too() -> None:
    worker = Worker([line(0, "a", "title", expires_at=NOW + 10)])
    worker.read(1)
    worker.now += 10
    worker.start()
    assert worker.of("a") == [None]
    assert worker.encoder.texts_run == 0


def test_an_expiry_is_written_once_at_its_time_also_after_a_crash() -> None:
    worker = Worker([line(0, "a", "title", expires_at=NOW + 10), line(1, "b", "title")])
    worker.finish()
    worker.crash()
    worker.now += 9
    worker.expire()
    assert None not in worker.of("a")
    worker.now += 1
    worker.expire()
    worker.expire()
    assert worker.of("a")[1:] == [None]
    assert dict(worker.written[-1].with_headers)[CAUSE_HEADER] == str(NOW + 10).encode()
    worker.now += 30 * DAY
    worker.crash()
    worker.expire()
    assert worker.of("a")[1:] == [None]
    assert worker.of("b")[1:] == [None]


def test_a_later_expiry_takes_the_place_of_an_earlier_one() -> None:
    worker = Worker([line(0, "a", "title", expires_at=NOW + 10), line(1, "a", "title", expires_at=NOW + 20)])
    worker.finish()
    worker.now += 15
    worker.expire()
    assert None not in worker.of("a")
    worker.now += 5
    worker.expire()
    assert worker.of("a")[-1] is None


def test_a_topic_made_anew_counts_from_zero_and_is_read_all_the_same() -> None:
    worker = Worker([line(0, "b", "b"), line(1, "c", "c"), line(2, "a", "title")])
    worker.finish()
    worker.log = [line(0, "a", "other", at=NOW + 5)]
    worker.committed = 0
    worker.crash()
    worker.finish()
    newest = worker.stands("a")
    np.testing.assert_array_equal(newest.vector, vector("other"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (encode(Article(article_id="x", title="<p></p>", body="<script>no end", published_at=NOW)), "empty_text"),
        (encode(Article(article_id="x", title=" ", published_at=NOW)), "wrong_shape"),
        (encode(Article(article_id="x", title="t", published_at=NOW, language="not a tag")), "wrong_language"),
        (b'{"article_id": "x", "title": "half \\ud800", "published_at": 1}', "not_json"),
        (encode(Article(article_id="x", title="why?", published_at=NOW)), "not_embeddable"),
    ],
)
def test_what_cannot_be_used_is_a_dead_letter_and_the_others_are_embedded(value: bytes, reason: str) -> None:
    worker = Worker([line(0, "a", "title"), Line(NOW, 1, "x", value), line(2, "b", "title")])
    worker.desk.take_records(worker.log, NOW)
    worker.start()
    worker.end()
    assert [(w.id, w.content is None) for w in worker.written] == [("b", False), ("a", False)]
    assert worker.dead == [1]
    assert worker.committed == 3
    worker.desk.take_records([Line(NOW, 3, "x", value)], NOW)
    worker.desk.positions({0: 3})
    ((_, error),) = worker.desk.staged.dead
    assert error.reason == reason


def test_a_dead_letter_is_written_with_the_commit_of_its_offset_and_only_then() -> None:
    worker = Worker([line(0, "a", "title"), Line(NOW, 1, "x", b"no json")])
    worker.read(2)
    assert worker.dead == []
    worker.crash()
    worker.read(2)
    worker.start()
    worker.end()
    assert (worker.dead, worker.committed) == ([1], 2)


def run(*titles: str) -> Embedded:
    desk = Desk(SETTINGS, TOPICS, encoder := Letters())
    desk.restore(Restored(0, []))
    desk.take_records([line(i, title, title) for i, title in enumerate(titles)], NOW)
    runner = Runner(encoder)
    runner.start(desk.take_batch(64, 512, NOW))
    runner.wait(10)
    embedded = runner.collect()
    assert embedded is not None
    return embedded


def test_a_text_on_which_the_encoder_fails_does_not_take_its_batch_with_it() -> None:
    embedded = run("good", "bad!", "fine", "odd%")
    failed = {embedded.batch[row].article_id: error for row, error in embedded.failed.items()}
    assert {title: error.reason for title, error in failed.items()} == dict.fromkeys(("bad!", "odd%"), "not_embeddable")
    assert "out of memory" in failed["bad!"].detail
    assert "details" not in failed["bad!"].detail
    for row, each in enumerate(embedded.batch):
        if row not in embedded.failed:
            np.testing.assert_array_equal(embedded.vectors[row], vector(each.article_id))


def test_an_encoder_that_fails_on_everything_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> NDArray[np.float32]:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Letters, "run", broken)
    with pytest.raises(EncoderUnusable, match="the device is gone"):
        run("good", "fine")


ARTICLES = ("a", "b", "c")
publications = st.tuples(
    st.sampled_from(ARTICLES),
    st.sampled_from(["one", "two", "a long title", "three", None, "?", ""]),
    st.sampled_from(["auto", "held"]),
    st.sampled_from(["", "sport"]),
    st.sampled_from([None, None, NOW - 5, NOW + DAY]),
    st.sampled_from([0, 1, DAY, 29 * DAY]),
)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["start", "end", "start", "end", "crash", "expire"]), st.integers(1, 4)),
    ),
    max_size=40,
)


@given(st.lists(publications, max_size=20), acts)
@example(
    [("a", "?", "auto", "", None, 0), ("a", "one", "auto", "", None, 0), ("a", "", "auto", "", None, 0)],
    [("read", 3), ("crash", 1)],
)
@hypothesis_settings(deadline=None, max_examples=300)
def test_whatever_happens_nothing_older_follows_and_the_newest_stands(
    published: list[tuple[str, str | None, str, str, int | None, int]], happens: list[tuple[str, int]]
) -> None:
    log = [
        line(n, a, title, NOW + n, placement=placement, category=category, expires_at=expires, published_at=NOW - age)
        for n, (a, title, placement, category, expires, age) in enumerate(published)
    ]
    worker = Worker(log)
    for what, count in happens:
        if what == "read":
            worker.read(count)
        elif what == "start":
            worker.start(count)
        else:
            getattr(worker, what)()
    worker.finish()

    newest = {a: n for n, (a, title, *_) in enumerate(published) if title not in ("?", "")}
    unusable = {n for n, (_, title, *_) in enumerate(published) if title == ""}
    # Whether a text makes tokens is not asked any more once something newer is published.
    refused = {n for n, (_, title, *_) in enumerate(published) if title == "?"}
    current = {n for n in refused if n > newest.get(published[n][0], -1)}
    assert len(worker.dead) == len(set(worker.dead)), "each once"
    assert unusable | current <= set(worker.dead) <= unusable | refused
    for article_id in ARTICLES:
        written = [w for w in worker.written if w.id == article_id]
        versions = [version_of(w) for w in written]
        assert versions == sorted(versions), "an older version followed a newer one"
        if article_id not in newest:
            assert not written
            continue
        _, title, placement, category, expires, _ = published[newest[article_id]]
        assert versions[-1] == newest[article_id]
        stands = worker.of(article_id)[-1]
        if title is None or expires == NOW - 5:
            assert stands is None
        else:
            assert stands is not None
            assert (stands.meta.placement, stands.meta.category) == (placement, category)
            np.testing.assert_array_equal(stands.vector, vector(title))
