"""The public messages: Article, Event and List, JSON in Kafka values.

Times are epoch milliseconds, UTC. Unknown fields are ignored and every new field has a default, so
an older reader understands a newer writer and the other way round. What does not fit raises
:class:`~contract.errors.BadRecord` with a stable reason:

    null_value         no value where one is needed
    invalid_utf8       key or value is not UTF-8
    not_json           the value is not JSON
    wrong_shape        a field is missing or has the wrong type
    unknown_kind       an event of a kind that the contract does not know
    bad_id             an id is empty, longer than 256 bytes, or begins with ``~``
    key_mismatch       the record's key is not the id inside
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import msgspec

from contract.errors import BadRecord

MAX_ID_BYTES = 256
POPULAR = "~popular"

Kind = Literal[
    "click", "impression", "dwell", "like", "dislike", "share",
    "follow", "mute", "merge", "absorb", "forget",
]  # fmt: skip
Placement = Literal["auto", "pinned", "boosted", "held"]
CauseKind = Literal["event", "article", "withdrawal", "refresh", "start"]
KINDS: tuple[str, ...] = get_args(Kind)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
ARTICLE_KINDS = frozenset({"click", "dwell", "like", "dislike", "share"})


class Article(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A published article, key ``article_id``; a null value in its place withdraws it."""

    article_id: str
    title: str
    published_at: int
    abstract: str = ""
    body: str = ""
    url: str = ""
    image_url: str = ""
    category: str = ""
    tags: list[str] = []
    entities: list[str] = []
    authors: list[str] = []
    source: str = ""
    language: str = ""
    expires_at: int | None = None
    placement: Placement = "auto"
    attributes: dict[str, Any] = {}


class ShownItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of an impression, as the list that showed it gave it."""

    article_id: str
    position: int | None = None
    reason: str = ""
    source: str = ""
    propensity: float | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a user did, key ``user_id``. An empty ``event_id`` is never a duplicate."""

    user_id: str
    kind: Kind
    at: int
    event_id: str = ""
    article_id: str = ""
    shown: list[ShownItem] = []
    events: list[dict[str, Any]] = []
    target: str = ""
    dwell_ms: int | None = None
    list_id: str = ""
    position: int | None = None
    reason: str = ""
    source: str = ""
    session_id: str = ""
    context: dict[str, Any] = {}


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest record that asked for this list; ``at`` is its Kafka timestamp."""

    kind: CauseKind
    id: str
    at: int


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place of a list. ``parts`` are the score's parts by name, where ``explain`` is set."""

    article_id: str
    score: float
    reason: str
    source: str
    propensity: float | None = None
    parts: dict[str, float] = {}


class List(msgspec.Struct, frozen=True, kw_only=True):
    """A user's recommendations, best first; headlines are joined from ``articles`` when read."""

    user_id: str
    list_id: str
    generated_at: int
    cause: Cause
    generation: str
    items: list[Item]
    fallback: bool = False


Message = TypeVar("Message", Article, Event, List)

encode: Callable[[Article | Event | List], bytes] = msgspec.json.Encoder().encode
_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    message: msgspec.json.Decoder(message) for message in (Article, Event, List)
}


def decode(message: type[Message], value: bytes | None) -> Message:
    """Decode one JSON value. Raises :class:`BadRecord` that names the field and what it should be."""
    if value is None:
        raise BadRecord("null_value", f"the value is null; send a JSON {message.__name__}")
    try:
        decoded: Message = _decoders[message].decode(value)
        return decoded
    except msgspec.ValidationError as error:
        reason = "unknown_kind" if "`$.kind`" in str(error) and "enum" in str(error) else "wrong_shape"
        raise BadRecord(reason, f"{message.__name__}: {error}") from None
    except msgspec.DecodeError as error:
        try:
            value.decode()
        except UnicodeDecodeError as utf8:
            raise BadRecord("invalid_utf8", f"{message.__name__}: {utf8}") from None
        raise BadRecord("not_json", f"{message.__name__}: {error}") from None
    except UnicodeDecodeError as error:
        raise BadRecord("invalid_utf8", f"{message.__name__}: {error}") from None


def check_id(name: str, value: str) -> None:
    """Raise :class:`BadRecord` unless ``value`` is 1 to 256 bytes of UTF-8 and not reserved."""
    if not value:
        raise BadRecord("bad_id", f"{name} is empty; an id has 1 to {MAX_ID_BYTES} bytes")
    if len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
        raise BadRecord("bad_id", f"{name} has {len(value.encode())} bytes; at most {MAX_ID_BYTES} are allowed")
    if value[0] == "~":
        raise BadRecord("bad_id", f"{name} begins with '~', which is reserved for stoppress's own lists")


def decode_key(key: bytes | None) -> str:
    """Decode a record's key. Raises :class:`BadRecord` where it is missing or not UTF-8."""
    if key is None:
        raise BadRecord("key_mismatch", "the record has no key; the key must be the id inside")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise BadRecord("invalid_utf8", f"key: {error}") from None


def decode_article(key: bytes | None, value: bytes | None) -> Article | None:
    """Decode and check a record of ``articles``; None where it withdraws the article."""
    article_id = decode_key(key)
    check_id("article_id", article_id)
    if value is None:
        return None
    article = decode(Article, value)
    if article.article_id != article_id:
        raise BadRecord("key_mismatch", f"key {article_id!r} is not the article_id {article.article_id!r} inside")
    if not article.title.strip() and not article.abstract.strip() and not article.body.strip():
        raise BadRecord("wrong_shape", "Article: title, abstract and body are all empty; give at least a title")
    if article.published_at < 0 or (article.expires_at or 0) < 0:
        raise BadRecord("wrong_shape", "Article: published_at and expires_at are epoch milliseconds, not negative")
    return article


def decode_event(key: bytes | None, value: bytes | None) -> Event:
    """Decode and check a record of ``user-events``, all but its partition."""
    user_id = decode_key(key)
    event = decode(Event, value)
    if event.user_id != user_id:
        raise BadRecord("key_mismatch", f"key {user_id!r} is not the user_id {event.user_id!r} inside")
    check_id("user_id", user_id)
    if event.at < 0:
        raise BadRecord("wrong_shape", "Event: at is in epoch milliseconds and cannot be negative")
    if event.event_id:
        check_id("event_id", event.event_id)
    if event.kind in ARTICLE_KINDS:
        check_id("article_id", event.article_id)
        if event.kind == "dwell" and (event.dwell_ms is None or event.dwell_ms < 0):
            raise BadRecord("wrong_shape", "Event: a dwell needs `dwell_ms`, the milliseconds spent reading")
    elif event.kind == "impression":
        if not event.shown:
            raise BadRecord("wrong_shape", "Event: an impression needs the items it showed in `shown`")
        for item in event.shown:
            check_id("shown[].article_id", item.article_id)
    return event
