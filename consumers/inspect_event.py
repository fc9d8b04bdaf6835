"""One event's story, from the topics alone: accepted, folded, and which list it caused, or why none."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from contract.errors import BadRecord, StoppressError, UnreadableState
from contract.messages import Event, List, decode
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, UserRecord, decode_totals, decode_user
from contract.settings import Settings
from contract.topics import Topics
from encoders.fold_rules import ASKS_FOR_NO_RANKING
from streams.dead_letters import letters
from streams.record import Record
from streams.table import read_to_end

NAME = "inspect"


class Step(msgspec.Struct, frozen=True):
    """What became of the event at one place; ``ms`` since its Kafka timestamp."""

    what: str
    topic: str
    partition: int
    offset: int
    at: int
    ms: int
    says: str


class Story(msgspec.Struct, frozen=True):
    """All steps of one record of ``user-events``, in order; ``end`` says how it ended."""

    event_id: str
    user_id: str
    kind: str
    article_id: str
    steps: list[Step]
    end: str


def inspect_event(settings: Settings, topics: Topics, event_id: str, user_id: str = "") -> list[Story]:
    """Return the story of each record with this event id: one sent twice has two. Blocks, and reads whole topics.

    With ``user_id`` only that user's partition is read. Raises :class:`StoppressError` where there is no such event.
    """
    partitions = [partition_of(user_id.encode(), settings.partitions)] if user_id else None
    wanted = msgspec.json.encode(event_id)
    found = [
        (record, event)
        for record in read_to_end(settings, topics.user_events, name=NAME, partitions=partitions)
        if (value := record.value()) is not None
        and wanted in value
        and (event := _event(value)) is not None
        and event.event_id == event_id
        and (not user_id or event.user_id == user_id)
    ]
    if not found:
        raise StoppressError(
            f"{topics.user_events} holds no event {event_id!r}: it never came, or is older than event_retention_days = "
            f"{settings.event_retention_days:g}"
        )
    return [_story(settings, topics, record, event) for record, event in found]


def _story(settings: Settings, topics: Topics, record: Record, event: Event) -> Story:
    sent_at, partition, offset = record.timestamp()[1], record.partition(), record.offset()
    steps = [_step("accepted", record, sent_at, f"{event.kind} of {event.article_id or event.target or 'no article'}")]

    def told(end: str) -> Story:
        return Story(event.event_id, event.user_id, event.kind, event.article_id, steps, end)

    for letter in letters(settings, topics):
        if (letter.topic, letter.partition, letter.offset) == (topics.user_events, partition, offset):
            return told(f"a dead letter: {letter.reason}; see `stoppress dead-letters list`")
    states = list(_states(settings, topics, partition, event.user_id))
    if _read_up_to(settings, topics, partition) <= offset:
        return told("not read by the users worker yet; `stoppress doctor` tells whether it runs")
    first = _sent_before(settings, topics, record, event)
    if first is not None:
        return told(f"a duplicate of {first.topic()}[{partition}]@{first.offset()}: an event_id counts once")
    taken = next(((r, s) for r, s in states if s and (s.last_offset >= offset or _waits(s, offset))), None)
    if taken is None:
        if states and states[-1][1] is None:
            return told("its user has been forgotten, or merged into another, or dropped after user_ttl_days")
        return told(
            "read by the users worker, and in no state that is still there: it waited too long, or among too many"
        )
    where, state = taken
    later = "" if state.last_offset <= offset else f", with later ones up to offset {state.last_offset}"
    waits = _waits(state, offset)
    steps.append(_step("waits for its article's vector" if waits else "folded", where, sent_at, f"in a state{later}"))
    if waits:
        taken = next(((r, s) for r, s in states if s and r.offset() > where.offset() and not _waits(s, offset)), None)
        if taken is None:
            return told(f"waits until article {event.article_id!r} has a vector, at most {settings.waiting_hours:g} h")
        where, state = taken
        steps.append(_step("folded", where, sent_at, "once its article had a vector"))
    if event.kind in ASKS_FOR_NO_RANKING:
        return told(f"caused no list: a {event.kind} asks for none")
    for shown_at, shown in _lists(settings, topics, partition, event.user_id):
        if shown_at.timestamp()[1] >= where.timestamp()[1] and shown.cause.at <= max(sent_at, _cause_at(state)):
            steps.append(
                _step("list", shown_at, sent_at, f"{shown.list_id}, caused by {shown.cause.kind} {shown.cause.id}")
            )
            own = shown.cause.at == sent_at
            return told("caused this list" if own else "is reflected in this list, which something older asked for")
    return told("caused no list that is still there: the list stayed as it was, or a later one took its place")


def _read_up_to(settings: Settings, topics: Topics, partition: int) -> int:
    """Return the offset before which the users worker has taken everything."""
    totals = b""
    for record in read_to_end(settings, topics.user_vectors, name=NAME, partitions=[partition]):
        if record.key() == PARTITION_KEY:
            totals = record.value() or b""
    return decode_totals(totals).next_offset if totals else 0


def _sent_before(settings: Settings, topics: Topics, record: Record, event: Event) -> Record | None:
    """Return the record of the same event for which the fold takes this one for a duplicate."""
    dead = {
        letter.offset
        for letter in letters(settings, topics)
        if (letter.topic, letter.partition) == (topics.user_events, record.partition())
    }
    seen: dict[str, Record] = {}
    for other in read_to_end(settings, topics.user_events, name=NAME, partitions=[record.partition()]):
        if other.offset() >= record.offset():
            break
        value = other.value()
        if other.key() != record.key() or value is None or other.offset() in dead:
            continue
        before = _event(value)
        if before is not None and before.kind == "forget":
            seen = {}
        elif before is not None and before.event_id and before.event_id not in seen:
            seen[before.event_id] = other
            if len(seen) > settings.seen_event_ids:
                del seen[next(iter(seen))]
    return seen.get(event.event_id)


def _step(what: str, record: Record, sent_at: int, says: str) -> Step:
    at = record.timestamp()[1]
    return Step(what, record.topic(), record.partition(), record.offset(), at, at - sent_at, says)


def _states(
    settings: Settings, topics: Topics, partition: int, user_id: str
) -> Iterator[tuple[Record, UserRecord | None]]:
    for record in read_to_end(settings, topics.user_vectors, name=NAME, partitions=[partition]):
        if record.key() == user_id.encode() and record.key() != PARTITION_KEY:
            value = record.value()
            try:
                yield record, None if value is None else decode_user(value)
            except UnreadableState:
                continue


def _lists(settings: Settings, topics: Topics, partition: int, user_id: str) -> Iterator[tuple[Record, List]]:
    for record in read_to_end(settings, topics.recommendations, name=NAME, partitions=[partition]):
        value = record.value()
        if record.key() == user_id.encode() and value is not None:
            try:
                yield record, decode(List, value)
            except BadRecord:
                continue


def _waits(state: UserRecord, offset: int) -> bool:
    return any(waiting.offset == offset for waiting in state.windows.waiting)


def _cause_at(state: UserRecord) -> int:
    return 0 if state.windows.cause is None else state.windows.cause.at


def _event(value: bytes) -> Event | None:
    try:
        return decode(Event, value)
    except BadRecord:
        return None
