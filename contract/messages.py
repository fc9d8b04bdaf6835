"""The public messages: Article, Event and List, JSON in Kafka values.

Times are epoch milliseconds, UTC. Unknown fields are ignored and every new field has a default, so
an older reader understands a newer writer and the other way round. What does not fit raises
:class:`~contract.errors.BadRecord` with a stable reason:

    null_value         no value where one is needed
    invalid_utf8       key or value is not UTF-8
    not_json           the value is not JSON
    wrong_shape        a field is missing, has the wrong type or a value that cannot be
    unknown_kind       an event of a kind that the contract does not know
    bad_id             an id is empty, longer than 256 bytes, or begins with ``~``
    key_mismatch       the record's key is not the id inside
    too_large          the value is larger than its topic takes, or than what may wait in a user's state
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from contract.errors import BadRecord

MAX_ID_BYTES = 256
MAX_ARTICLE_BYTES = 8 << 20
MAX_EVENT_BYTES = 1 << 20
MAX_WAITING_EVENT_BYTES = 16 << 10
MAX_TAG_LENGTH = 35
LAST_TIME = 253_402_300_799_999
POPULAR = "~popular"
POPULAR_IN, RELATED_TO = "~popular/", "~related/"
"""What the keys of a category's popular list, and of the list of an article's related ones, begin with."""

Kind = Literal[
    "click", "impression", "dwell", "like", "dislike", "share",
    "follow", "mute", "merge", "absorb", "forget",
]  # fmt: skip
Placement = Literal["auto", "pinned", "boosted", "held"]
Empty = Literal["", "no_articles", "nothing_left"]
CauseKind = Literal["event", "article", "withdrawal", "refresh", "start"]
Device = Literal["", "mobile", "tablet", "desktop"]
KINDS: tuple[str, ...] = get_args(Kind)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
DEVICES: tuple[Device, ...] = get_args(Device)
_DEVICES: dict[str, Device] = {device: device for device in DEVICES}
UNKNOWN_KIND = "unknown"
ARTICLE_KINDS = frozenset({"click", "dwell", "like", "dislike", "share"})
CARRIED_KINDS = ARTICLE_KINDS | {"follow", "mute"}

Id = Annotated[
    str,
    Meta(
        description="1 to 256 bytes of UTF-8, not beginning with `~`.",
        extra_json_schema={"minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": "^[^~]"},
    ),
]
# Past the year 9999 it was not in milliseconds, and the records of the inner topics hold 64 bits.
Time = Annotated[int, Meta(ge=0, le=LAST_TIME, description="Epoch milliseconds, UTC.")]
# What goes with an article's vector is bounded, for those records are held in memory by every ranker.
Label = Annotated[str, Meta(max_length=256)]
Labels = Annotated[list[Label], Meta(max_length=128)]


class Article(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A published article, key ``article_id``; a null value in its place withdraws it."""

    article_id: Id
    title: str
    published_at: Annotated[Time, Meta(description="Epoch milliseconds, UTC; it is in no list before.")]
    abstract: str = ""
    body: str = ""
    url: str = ""
    image_url: str = ""
    category: Label = ""
    tags: Labels = []
    entities: Annotated[Labels, Meta(description="People, places, organisations it is about.")] = []
    authors: Labels = []
    source: Annotated[Label, Meta(description="The agency, desk or site that it comes from.")] = ""
    language: Label = ""
    expires_at: Annotated[Time | None, Meta(description="When it leaves all lists; null: by age alone.")] = None
    placement: Annotated[Placement, Meta(description="An editor's wish; `held` keeps it out of all lists.")] = "auto"
    attributes: Annotated[
        dict[str, Any], Meta(description="Anything else. Of this is read only `editor`, who changed it, for the log.")
    ] = {}


class ShownItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One item of an impression, as the list that showed it gave it."""

    article_id: Id
    position: Annotated[int | None, Meta(description="Place in the list, the first is 0.")] = None
    reason: str = ""
    source: str = ""
    propensity: Annotated[float | None, Meta(description="Probability with which it was shown there.")] = None


class Carried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An event that an absorb carries over. ``offset`` is given where the event had not been folded yet."""

    event: Annotated[
        msgspec.Raw,
        Meta(
            description="A click, dwell, like, dislike, share, follow or mute, as sent.",
            extra_json_schema={"type": "object"},
        ),
    ]
    partition: Annotated[int, Meta(ge=-1, le=1 << 31, description="Where its record lay.")] = -1
    offset: Annotated[int, Meta(ge=-1, le=1 << 62, description="Where its record lay.")] = -1
    timestamp: Annotated[Time, Meta(description="Its record's, epoch milliseconds; 0: not known.")] = 0


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something a user did, key ``user_id``. An empty ``event_id`` is never a duplicate."""

    user_id: Id
    kind: Kind
    at: Annotated[int, Meta(ge=0, description="Epoch milliseconds, UTC; never later than the record's timestamp.")]
    event_id: Annotated[str, Meta(description="Makes the event count once where it is sent again.")] = ""
    article_id: Annotated[
        str, Meta(description="Of a click, dwell, like, dislike or share; of a follow or mute, where it was made.")
    ] = ""
    shown: Annotated[list[ShownItem], Meta(description="Of an impression: the items seen.")] = []
    events: Annotated[list[Carried], Meta(description="Of an absorb: the events carried over.")] = []
    target: Annotated[str, Meta(description="Of a follow, mute or merge: entity, author, category or user.")] = ""
    dwell_ms: Annotated[int | None, Meta(description="Of a dwell: the milliseconds spent reading.")] = None
    list_id: Annotated[str, Meta(description="The list in which it happened.")] = ""
    position: Annotated[int | None, Meta(description="Place in that list, the first is 0.")] = None
    reason: str = ""
    source: str = ""
    session_id: str = ""
    context: Annotated[
        dict[str, Any],
        Meta(
            description="Anything else. Of this are read: `language`, the reader's own, as in `de` or `pt-BR`; "
            "`region`, where they are, as in `DE-BY`; `device`, one of `mobile`, `tablet` and `desktop`; and "
            "`group`, by which an evaluation slices."
        ),
    ] = {}


class Cause(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The oldest record that asked for this list; ``at`` is its Kafka timestamp."""

    kind: CauseKind
    id: Annotated[str, Meta(description="The event_id or article_id, where there is one.")]
    at: Annotated[int, Meta(description="Epoch milliseconds, UTC.")]


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place of a list. ``parts`` are the score's parts by name, where ``explain`` is set."""

    article_id: Id
    score: float
    reason: Annotated[str, Meta(description="Why it is here: the part that carried its score.")]
    source: Annotated[str, Meta(description="How it became a candidate.")]
    propensity: Annotated[float | None, Meta(description="Probability with which it was put here.")] = None
    parts: dict[str, float] = {}


class List(msgspec.Struct, frozen=True, kw_only=True):
    """A user's recommendations, best first; headlines are joined from ``articles`` when read."""

    user_id: Annotated[
        str, Meta(description="The record's key: a user, `~popular`, `~popular/CATEGORY`, or `~related/ARTICLE`.")
    ]
    list_id: str
    generated_at: Annotated[int, Meta(description="Epoch milliseconds, UTC.")]
    cause: Cause
    generation: Annotated[str, Meta(description="Names the encoder and interest model that made it.")]
    items: list[Item]
    fallback: Annotated[bool, Meta(description="Whether it is the popular list, as nothing is known of the user.")] = (
        False
    )
    empty: Annotated[
        Empty, Meta(description="Why there are no items: none may be listed, or this user read or muted them all.")
    ] = ""


def language_of(tag: object) -> str:
    """Return the language of a tag: ``pt`` for ``pt-BR`` and ``PT_br``; "" where it tells none."""
    if not isinstance(tag, str) or len(tag) > MAX_TAG_LENGTH:
        return ""
    return tag.replace("_", "-").partition("-")[0].strip().lower()


def region_of(tag: object) -> str:
    """Return a region as it is kept: ``US-CA`` for ``us_ca``; "" where ``tag`` is none."""
    if not isinstance(tag, str) or len(tag) > MAX_TAG_LENGTH:
        return ""
    return tag.replace("_", "-").strip().upper()


def device_of(name: object) -> Device:
    """Return the kind of device by its name, "" for one not known here."""
    return _DEVICES.get(name.strip().lower(), "") if isinstance(name, str) else ""


Message = TypeVar("Message", Article, Event, List)

encode: Callable[[Article | Event | List], bytes] = msgspec.json.Encoder().encode
_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    message: msgspec.json.Decoder(message) for message in (Article, Event, List)
}
_max_bytes: dict[type, int] = {Article: MAX_ARTICLE_BYTES, Event: MAX_EVENT_BYTES, List: MAX_EVENT_BYTES}


def decode(message: type[Message], value: bytes | None) -> Message:
    """Decode one JSON value. Raises :class:`BadRecord` that names the field and what it should be."""
    if value is None:
        raise BadRecord("null_value", f"the value is null; send a JSON {message.__name__}")
    _check_size(message.__name__, value, _max_bytes[message])  # a compressed batch carries more than its topic's limit
    if not value.isascii():
        try:
            value.decode()  # msgspec looks only at the fields it knows
        except UnicodeDecodeError as error:
            raise BadRecord("invalid_utf8", f"{message.__name__}: {error}") from None
    try:
        decoded: Message = _decoders[message].decode(value)
        return decoded
    except msgspec.ValidationError as error:
        reason = "unknown_kind" if "`$.kind`" in str(error) and "enum" in str(error) else "wrong_shape"
        raise BadRecord(reason, f"{message.__name__}: {error}") from None
    except msgspec.DecodeError as error:
        raise BadRecord("not_json", f"{message.__name__}: {error}; send one JSON object in UTF-8") from None
    except RecursionError:
        raise BadRecord("wrong_shape", f"{message.__name__}: arrays or objects are nested too deeply") from None


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
    return article


def decode_event(key: bytes | None, value: bytes | None) -> Event:
    """Decode and check a record of ``user-events``, all but its partition."""
    user_id = decode_key(key)
    event = decode(Event, value)
    if event.user_id != user_id:
        raise BadRecord("key_mismatch", f"key {user_id!r} is not the user_id {event.user_id!r} inside")
    _check_event(event, value)
    return event


def decode_waiting(value: bytes) -> Event:
    """Decode and check an event that waited: its key may be gone, its user is the one inside."""
    event = decode(Event, value)
    if event.kind not in ARTICLE_KINDS:
        raise BadRecord("wrong_shape", f"Event: a {event.kind} cannot wait for an article")
    _check_event(event, value)
    return event


def decode_carried(carried: Carried) -> Event:
    """Decode and check an event that an absorb carries."""
    value = bytes(carried.event)
    if carried.offset >= 0:
        return decode_waiting(value)
    event = decode(Event, value)
    if event.kind not in CARRIED_KINDS:
        raise BadRecord("wrong_shape", f"Event: an absorb cannot carry {event.kind!r} events")
    _check_event(event, value)
    return event


def _check_event(event: Event, value: bytes | None) -> None:
    check_id("user_id", event.user_id)
    if event.event_id:
        check_id("event_id", event.event_id)
    if event.kind in ARTICLE_KINDS:
        check_id("article_id", event.article_id)
        _check_size(f"Event: a {event.kind}, which may have to wait,", value, MAX_WAITING_EVENT_BYTES)
        if event.kind == "dwell" and (event.dwell_ms is None or event.dwell_ms < 0):
            raise BadRecord("wrong_shape", "Event: a dwell needs `dwell_ms`, the milliseconds spent reading")
    elif event.kind == "impression":
        if not event.shown:
            raise BadRecord("wrong_shape", "Event: an impression needs the items it showed in `shown`")
        for item in event.shown:
            check_id("shown[].article_id", item.article_id)
    elif event.kind in ("follow", "mute", "merge"):
        check_id("target", event.target)
        if event.article_id:
            check_id("article_id", event.article_id)
        if event.kind == "merge" and event.target == event.user_id:
            raise BadRecord(
                "wrong_shape", f"Event: {event.user_id!r} is merged into itself; `target` is the other user"
            )
    elif event.kind == "absorb":
        if not event.events:
            raise BadRecord("wrong_shape", "Event: an absorb needs what it carries in `events`")
        for carried in event.events:
            decode_carried(carried)


def _check_size(what: str, value: bytes | None, limit: int) -> None:
    if value is not None and len(value) > limit:
        raise BadRecord("too_large", f"{what} has {len(value):,} bytes; at most {limit:,} are allowed")
