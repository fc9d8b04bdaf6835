"""``dead-letters list`` and ``requeue``: what was kept is shown as it came, and sent again once."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from contract.errors import Fenced
from contract.settings import Settings
from contract.topics import Topics
from demo.processes import environment
from streams.admin import create_topics
from streams.clients import make_producer
from streams.dead_letters import BATCH_LETTERS, Requeued, requeue
from tests.command import stoppress
from tests.pipeline import Records, Seen, now_ms

DAY_MS = 86_400_000
Header = tuple[str, str | bytes | None]


class Letters:
    """Writes dead letters as workers do, and reads what comes of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        create_topics(settings, self.topics.public())
        self._producer = make_producer(settings, name="test")

    def write(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        topic: str | None = None,
        reason: str = "not_json",
        further: Sequence[Header] = (),
        timestamp: int = 0,
    ) -> None:
        headers: list[Header] = [
            ("topic", (topic or self.topics.user_events).encode()), ("partition", b"1"), ("offset", b"42"),
            ("worker", b"users"), ("reason", reason.encode()), ("detail", b"it was bad"), *further,
        ]  # fmt: skip
        self.write_raw(key, value, headers, timestamp)

    def write_raw(self, key: bytes | None, value: bytes | None, headers: list[Header], timestamp: int = 0) -> None:
        self._producer.produce(self.topics.dead_letters, value, key, headers=headers, timestamp=timestamp or now_ms())
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def requeue(self, reason: str = "not_json") -> Requeued:
        return requeue(self.settings, self.topics, reason)

    def sent_again(self, topic: str | None = None) -> list[Seen]:
        with closing(Records(self.settings, topic or self.topics.user_events)) as records:
            return records.to_the_end()


@pytest.fixture
def letters(settings: Settings) -> Letters:
    return Letters(settings)


def test_letters_are_listed_with_their_place_and_reason(letters: Letters) -> None:
    letters.write(b"u", b"\xff\x00", reason="invalid_utf8")
    letters.write(None, None, topic=letters.topics.articles, reason="key_mismatch")
    letters.flush()
    prefix = letters.settings.namespace
    lines = [
        f"{prefix}user-events[1]@42 invalid_utf8: it was bad",
        f"{prefix}articles[1]@42 key_mismatch: it was bad",
    ]
    listed = stoppress(letters.settings, "dead-letters", "list")
    assert (listed.code, listed.err) == (0, "")
    assert sorted(listed.lines[:-1]) == sorted(lines)
    assert listed.lines[-1] == "2 dead letters"
    some = stoppress(letters.settings, "dead-letters", "list", "--reason", "invalid_utf8")
    assert some.lines == [lines[0], "1 dead letter"]


def test_letters_as_json_hold_the_original_bytes(letters: Letters) -> None:
    letters.write(b"\xfe", b"\xff\x00\n", timestamp=1_750_000_000_000)
    letters.flush()
    listed = stoppress(letters.settings, "dead-letters", "list", "--json")
    (line,) = listed.lines
    assert json.loads(line) == {
        "topic": letters.topics.user_events, "partition": 1, "offset": 42, "worker": "users", "reason": "not_json",
        "detail": "it was bad", "key": base64.b64encode(b"\xfe").decode(),
        "value": base64.b64encode(b"\xff\x00\n").decode(), "cut_from": 0, "timestamp_ms": 1_750_000_000_000,
    }  # fmt: skip


def test_a_line_is_a_line_whatever_was_sent(letters: Letters) -> None:
    letters.write_raw(b"u", b"", [("topic", b"t"), ("reason", b"r"), ("detail", b"\x1b[2Jgone\nstoppress: 0\xff")])
    letters.flush()
    listed = stoppress(letters.settings, "dead-letters", "list")
    assert listed.lines == ["t[-1]@-1 r: �[2Jgone�stoppress: 0�", "1 dead letter"]


def test_letters_of_one_reason_are_sent_again_once(letters: Letters) -> None:
    letters.write(b"u", b"first")
    letters.write(b"u", b"second")
    letters.write(b"v", None)
    letters.write(b"w", b"another reason", reason="wrong_partition")
    letters.flush()
    command = ["dead-letters", "requeue", "--reason", "not_json"]
    first = stoppress(letters.settings, *command)
    assert (first.code, first.out, first.err) == (0, "3 sent again\n", "")
    sent = letters.sent_again()
    assert Counter((s.key, s.value) for s in sent) == Counter([(b"u", b"first"), (b"u", b"second"), (b"v", None)])
    assert [s.value for s in sent if s.key == b"u"] == [b"first", b"second"], "in their order"

    assert stoppress(letters.settings, *command).out == "0 sent again\n"
    letters.write(b"u", b"third")
    letters.flush()
    assert stoppress(letters.settings, *command).out == "1 sent again\n"
    assert len(letters.sent_again()) == 4
    assert letters.requeue("wrong_partition") == Requeued(sent=1)


def test_articles_go_back_to_their_topic(letters: Letters) -> None:
    letters.write(b"a", b"{}", topic=letters.topics.articles)
    letters.flush()
    assert letters.requeue() == Requeued(sent=1)
    assert [(s.key, s.value) for s in letters.sent_again(letters.topics.articles)] == [(b"a", b"{}")]


def test_what_cannot_be_sent_again_stays_and_is_counted(letters: Letters) -> None:
    letters.write(b"u", b"good")
    letters.write(b"u", b"a stranger's", topic="__consumer_offsets")
    letters.write(b"u", b"cut", further=[("cut-from", b"20000000")])
    letters.write(b"u", b"x" * (1 << 20))
    letters.write(b"u", b"old", timestamp=now_ms() - 8 * DAY_MS)
    letters.flush()
    command = ["dead-letters", "requeue", "--reason", "not_json"]
    answer = stoppress(letters.settings, *command)
    assert answer.code == 0
    assert answer.lines[0] == "1 sent again"
    assert sorted(answer.lines[1:]) == [
        "1 not: not from a topic of this namespace",
        "1 not: older than Kafka remembers what was sent again",
        "2 not: larger than its topic takes",
    ]
    assert [s.value for s in letters.sent_again()] == [b"good"]


def test_whatever_stands_in_the_topic_is_listed_and_passed_over(letters: Letters) -> None:
    letters.write_raw(None, None, [])
    letters.write_raw(b"", b"", [("reason", None), ("partition", b"many"), ("offset", b""), ("topic", b"\xff")])
    letters.write_raw(b"u", b"{}", [("reason", b"not_json"), ("topic", None)])
    letters.flush()
    listed = stoppress(letters.settings, "dead-letters", "list")
    assert (listed.code, listed.err) == (0, "")
    assert listed.lines[-1] == "3 dead letters"
    assert stoppress(letters.settings, "dead-letters", "list", "--json").code == 0
    assert letters.requeue() == Requeued(sent=0, kept={"not from a topic of this namespace": 1})


def many(letters: Letters) -> set[bytes]:
    """More letters than go into one transaction, each told from all others."""
    values = {b"%d" % number for number in range(5 * BATCH_LETTERS // 2)}
    for value in values:
        letters.write(value, value)
    letters.flush()
    return values


def test_more_letters_than_a_transaction_holds_are_sent_once_each(letters: Letters) -> None:
    values = many(letters)
    assert letters.requeue() == Requeued(sent=len(values))
    assert Counter(s.value for s in letters.sent_again()) == Counter(values)


def test_two_at_once_send_each_letter_once(letters: Letters) -> None:
    values = many(letters)

    def attempt(_: int) -> int | None:
        try:
            return letters.requeue().sent
        except Fenced:
            return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, range(2)))
    assert any(outcome is not None for outcome in outcomes)
    assert Counter(s.value for s in letters.sent_again()) == Counter(values)


def test_one_that_is_killed_is_taken_up_where_it_was(letters: Letters) -> None:
    values = many(letters)
    command = [sys.executable, "-m", "stoppress", "dead-letters", "requeue", "--reason", "not_json"]
    with closing(Records(letters.settings, letters.topics.user_events)) as records:
        with subprocess.Popen(command, env=environment(letters.settings), stdout=subprocess.PIPE) as killed:
            records.until(lambda seen: len(seen) > 0, "the first are sent")
            killed.send_signal(signal.SIGKILL)
        letters.requeue()
        assert Counter(s.value for s in records.to_the_end()) == Counter(values)
