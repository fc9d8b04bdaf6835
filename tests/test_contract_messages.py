"""The public messages: what is taken, and the reason given for what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.errors import BadRecord
from contract.messages import (
    KINDS,
    MAX_ARTICLE_BYTES,
    MAX_EVENT_BYTES,
    MAX_WAITING_EVENT_BYTES,
    Article,
    Event,
    List,
    decode,
    decode_article,
    decode_event,
    encode,
)
from tests.contract_strategies import articles, events, lists

CLICK: dict[str, Any] = {"user_id": "u", "kind": "click", "at": 1, "article_id": "a"}
IMPRESSION: dict[str, Any] = {"user_id": "u", "kind": "impression", "at": 1, "shown": [{"article_id": "a"}]}
FOLLOW: dict[str, Any] = {"user_id": "u", "kind": "follow", "at": 1, "target": "sport"}
ABSORB: dict[str, Any] = {"user_id": "u", "kind": "absorb", "at": 1, "events": [{"event": CLICK}]}
ARTICLE: dict[str, Any] = {"article_id": "a", "title": "News", "published_at": 1}
LONG = "x" * 257


def without(message: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != field}


BAD_EVENTS: dict[str, tuple[str, bytes | None, object, str]] = {
    "nothing": ("null_value", b"u", None, "null"),
    "an empty value": ("not_json", b"u", b"", "truncated"),
    "no JSON": ("not_json", b"u", b"click!", "byte 0"),
    "JSON cut short": ("not_json", b"u", json.dumps(CLICK).encode()[:-1], "truncated"),
    "something after the JSON": ("not_json", b"u", json.dumps(CLICK).encode() + b"x", "trailing"),
    "two lines of JSON": ("not_json", b"u", json.dumps(CLICK).encode() + b"\n{}", "trailing"),
    "single quotes": ("not_json", b"u", b"{'user_id':'u'}", "byte 1"),
    "not a number": ("not_json", b"u", b'{"user_id":"u","kind":"click","article_id":"a","at":NaN}', "byte 52"),
    "a byte order mark": ("not_json", b"u", b"\xef\xbb\xbf" + json.dumps(CLICK).encode(), "byte 0"),
    "half a surrogate pair": ("not_json", b"u", b'{"user_id":"\\udc00b","kind":"click","at":1}', "surrogate"),
    "latin-1": ("invalid_utf8", b"u", b'{"user_id":"u","kind":"click","at":1,"article_id":"caf\xe9"}', "0xe9"),
    "latin-1 in an unknown field": ("invalid_utf8", b"u", b'{"user_id":"u","kind":"click","x":"\xe9"}', "0xe9"),
    "a list of events": ("wrong_shape", b"u", [CLICK], "Expected `object`, got `array`"),
    "null in JSON": ("wrong_shape", b"u", b"null", "got `null`"),
    "no user": ("wrong_shape", b"u", without(CLICK, "user_id"), "`user_id`"),
    "no kind": ("wrong_shape", b"u", without(CLICK, "kind"), "`kind`"),
    "no time": ("wrong_shape", b"u", without(CLICK, "at"), "`at`"),
    "a user who is a number": ("wrong_shape", b"7", CLICK | {"user_id": 7}, "$.user_id"),
    "a time as text": ("wrong_shape", b"u", CLICK | {"at": "2026-01-01T00:00:00Z"}, "$.at"),
    "a time as a fraction": ("wrong_shape", b"u", CLICK | {"at": 1.5}, "$.at"),
    "a time before 1970": ("wrong_shape", b"u", CLICK | {"at": -1}, "$.at"),
    "a time of 5,000 digits": ("wrong_shape", b"u", json.dumps(CLICK).replace(": 1,", ": " + "9" * 5000 + ","), "$.at"),
    "a number out of range": ("wrong_shape", b"u", b'{"user_id":"u","kind":"click","context":{"x":1e999}}', "range"),
    "a kind that is null": ("wrong_shape", b"u", CLICK | {"kind": None}, "$.kind"),
    "a kind nobody knows": ("unknown_kind", b"u", CLICK | {"kind": "stare"}, "stare"),
    "a kind in capitals": ("unknown_kind", b"u", CLICK | {"kind": "CLICK"}, "CLICK"),
    "deep nesting": ("wrong_shape", b"u", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "an impression of nothing": ("wrong_shape", b"u", IMPRESSION | {"shown": []}, "shown"),
    "an impression of no list": ("wrong_shape", b"u", IMPRESSION | {"shown": {"article_id": "a"}}, "$.shown"),
    "an impression of an empty id": ("bad_id", b"u", IMPRESSION | {"shown": [{"article_id": ""}]}, "shown[]"),
    "a dwell without its time": ("wrong_shape", b"u", CLICK | {"kind": "dwell"}, "dwell_ms"),
    "a dwell of less than nothing": ("wrong_shape", b"u", CLICK | {"kind": "dwell", "dwell_ms": -1}, "dwell_ms"),
    "a follow of nothing": ("bad_id", b"u", FOLLOW | {"target": ""}, "target is empty"),
    "a mute without its target": ("bad_id", b"u", without(FOLLOW, "target") | {"kind": "mute"}, "target is empty"),
    "a merge into oneself": ("wrong_shape", b"u", FOLLOW | {"kind": "merge", "target": "u"}, "into itself"),
    "a merge into a list": ("bad_id", b"u", FOLLOW | {"kind": "merge", "target": "~popular"}, "~"),
    "an absorb of nothing": ("wrong_shape", b"u", ABSORB | {"events": []}, "`events`"),
    "an absorb of no event": ("wrong_shape", b"u", ABSORB | {"events": [{"event": "click"}]}, "Expected `object`"),
    "an absorb of an impression": ("wrong_shape", b"u", ABSORB | {"events": [{"event": IMPRESSION}]}, "cannot carry"),
    "an absorb of an absorb": ("wrong_shape", b"u", ABSORB | {"events": [{"event": ABSORB}]}, "cannot carry"),
    "an absorb of a bad click": ("bad_id", b"u", ABSORB | {"events": [{"event": CLICK | {"article_id": ""}}]}, "empty"),
    "an absorb of no offset": ("wrong_shape", b"u", ABSORB | {"events": [{"event": CLICK, "offset": -2}]}, "offset"),
    "an empty user": ("bad_id", b"", CLICK | {"user_id": ""}, "user_id is empty"),
    "a user too long": ("bad_id", LONG.encode(), CLICK | {"user_id": LONG}, "257 bytes"),
    "a user too long in bytes": ("bad_id", ("é" * 129).encode(), CLICK | {"user_id": "é" * 129}, "258 bytes"),
    "a user named as a list is": ("bad_id", b"~popular", CLICK | {"user_id": "~popular"}, "~"),
    "an empty article": ("bad_id", b"u", CLICK | {"article_id": ""}, "article_id is empty"),
    "a click on nothing": ("bad_id", b"u", without(CLICK, "article_id"), "article_id is empty"),
    "an article too long": ("bad_id", b"u", CLICK | {"article_id": LONG}, "article_id has 257"),
    "an event_id too long": ("bad_id", b"u", CLICK | {"event_id": LONG}, "event_id has 257"),
    "no key": ("key_mismatch", None, CLICK, "no key"),
    "another user's key": ("key_mismatch", b"v", CLICK, "'v' is not the user_id 'u'"),
    "a key with a space more": ("key_mismatch", b"u ", CLICK, "'u '"),
    "two users in one object": ("key_mismatch", b"u", b'{"user_id":"u","user_id":"v","kind":"forget","at":1}', "'v'"),
    "a key that is no UTF-8": ("invalid_utf8", b"\xff", CLICK, "key"),
    "a click that could not wait": (
        "too_large", b"u", CLICK | {"context": {"x": "x" * MAX_WAITING_EVENT_BYTES}}, "at most 16,384",
    ),
    "an event larger than its topic takes": (
        "too_large", b"u", IMPRESSION | {"context": {"x": "x" * MAX_EVENT_BYTES}}, "at most 1,048,576",
    ),
}  # fmt: skip

BAD_ARTICLES: dict[str, tuple[str, bytes | None, object, str]] = {
    "no JSON": ("not_json", b"a", b"<rss/>", "byte 0"),
    "no title": ("wrong_shape", b"a", without(ARTICLE, "title"), "`title`"),
    "no words at all": ("wrong_shape", b"a", ARTICLE | {"title": " \n"}, "title, abstract and body are all empty"),
    "no time": ("wrong_shape", b"a", without(ARTICLE, "published_at"), "`published_at`"),
    "a time in microseconds": (
        "wrong_shape",
        b"a",
        ARTICLE | {"published_at": 1_750_000_000_000_000},
        "$.published_at",
    ),
    "a time before 1970": ("wrong_shape", b"a", ARTICLE | {"expires_at": -1}, "$.expires_at"),
    "tags that are no list": ("wrong_shape", b"a", ARTICLE | {"tags": "sport"}, "$.tags"),
    "a tag that is null": ("wrong_shape", b"a", ARTICLE | {"tags": [None]}, "$.tags"),
    "tags without end": ("wrong_shape", b"a", ARTICLE | {"tags": [""] * 129}, "length <= 128"),
    "a category without end": ("wrong_shape", b"a", ARTICLE | {"category": "x" * 257}, "length <= 256"),
    "a placement nobody knows": ("wrong_shape", b"a", ARTICLE | {"placement": "top"}, "top"),
    "an empty id": ("bad_id", b"", ARTICLE | {"article_id": ""}, "article_id is empty"),
    "an id too long": ("bad_id", LONG.encode(), ARTICLE | {"article_id": LONG}, "257"),
    "an id named as a list is": ("bad_id", b"~a", ARTICLE | {"article_id": "~a"}, "~"),
    "a withdrawal of no id": ("bad_id", b"", None, "article_id is empty"),
    "a withdrawal without a key": ("key_mismatch", None, None, "no key"),
    "another article's key": ("key_mismatch", b"b", ARTICLE, "'b' is not the article_id 'a'"),
    "a key that is no UTF-8": ("invalid_utf8", b"\xff", ARTICLE, "key"),
    "latin-1": ("invalid_utf8", b"a", b'{"article_id":"a","title":"caf\xe9","published_at":1}', "0xe9"),
    "more than a topic takes": ("too_large", b"a", ARTICLE | {"body": "x" * MAX_ARTICLE_BYTES}, "at most 8,388,608"),
}


REASONS = {
    "",
    "null_value",
    "invalid_utf8",
    "not_json",
    "wrong_shape",
    "unknown_kind",
    "bad_id",
    "key_mismatch",
    "too_large",
}


def reason_against(
    decoder: Callable[[bytes | None, bytes | None], object], key: bytes | None, value: bytes | None
) -> str:
    """The reason for which a record is refused; empty where it is taken."""
    try:
        decoder(key, value)
    except BadRecord as error:
        return error.reason
    return ""


def as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.parametrize(("reason", "key", "value", "says"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_event_is_refused_with_its_reason(reason: str, key: bytes | None, value: object, says: str) -> None:
    with pytest.raises(BadRecord) as refused:
        decode_event(key, as_bytes(value))
    assert refused.value.reason == reason
    assert says in refused.value.detail


@pytest.mark.parametrize(("reason", "key", "value", "says"), BAD_ARTICLES.values(), ids=BAD_ARTICLES)
def test_a_bad_article_is_refused_with_its_reason(reason: str, key: bytes | None, value: object, says: str) -> None:
    with pytest.raises(BadRecord) as refused:
        decode_article(key, as_bytes(value))
    assert refused.value.reason == reason
    assert says in refused.value.detail


def test_null_withdraws_an_article() -> None:
    assert decode_article(b"a", None) is None


def test_defaults_are_given_for_what_is_not_said() -> None:
    event = decode_event(b"u", as_bytes(CLICK))
    assert event == Event(user_id="u", kind="click", at=1, article_id="a")
    assert (event.event_id, event.shown, event.position, event.context) == ("", [], None, {})
    article = decode_article(b"a", as_bytes(ARTICLE))
    assert article is not None
    assert (article.body, article.tags, article.expires_at, article.placement) == ("", [], None, "auto")


def test_unknown_fields_are_ignored_whatever_they_hold() -> None:
    further = {"colour": "red", "nested": {"at": [1, {}]}, "huge": 10**400, "": None}
    assert decode_event(b"u", as_bytes(CLICK | further)) == decode_event(b"u", as_bytes(CLICK))
    assert decode_article(b"a", as_bytes(ARTICLE | further)) == decode_article(b"a", as_bytes(ARTICLE))
    shown = [{"article_id": "a", "colour": "red"}]
    assert decode_event(b"u", as_bytes(IMPRESSION | {"shown": shown})) == decode_event(b"u", as_bytes(IMPRESSION))


def test_the_last_of_two_equal_names_counts() -> None:
    event = decode_event(b"u", b'{"user_id":"v","user_id":"u","kind":"forget","at":1}')
    assert event.user_id == "u"


def test_an_id_may_have_256_bytes() -> None:
    longest = "é" * 128
    assert decode_event(longest.encode(), as_bytes(CLICK | {"user_id": longest})).user_id == longest


def test_a_time_in_the_far_future_is_taken_as_it_is() -> None:
    assert decode_event(b"u", as_bytes(CLICK | {"at": 10**30})).at == 10**30


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_known(kind: str) -> None:
    assert decode(Event, as_bytes(CLICK | {"kind": kind})).kind == kind


@given(events())
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    assert decode_event(event.user_id.encode(), encode(event)) == event


@given(articles())
def test_an_article_comes_back_as_it_was_sent(article: Article) -> None:
    assert decode_article(article.article_id.encode(), encode(article)) == article


@given(lists)
def test_a_list_comes_back_as_it_was_published(published: List) -> None:
    assert decode(List, encode(published)) == published


@given(st.none() | st.binary(), st.none() | st.binary())
@example(b"u", b'{"user_id":"u","kind":"click","at":' + b"9" * 5000 + b"}")
@example(b"u", b'{"a":' * 100_000)
@example(b"u", b"\x00")
def test_whatever_comes_is_taken_or_refused_with_a_reason(key: bytes | None, value: bytes | None) -> None:
    assert reason_against(decode_event, key, value) in REASONS
    assert reason_against(decode_article, key, value) in REASONS


@given(events(), st.data())
def test_an_event_damaged_anywhere_is_taken_or_refused_with_a_reason(event: Event, data: st.DataObject) -> None:
    value = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    assert reason_against(decode_event, event.user_id.encode(), bytes(value)) in REASONS
