"""What a running system showed and what came of it, read from its own topics: for ``evaluate --from-topics``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from consumers.article_view import vector_of
from contract.errors import BadRecord, SetupError, UnreadableState
from contract.messages import ShownItem, decode_event
from contract.records import ArticleRecord
from contract.settings import Settings
from contract.topics import Topics
from streams.record import Record, text_key
from streams.table import read_to_end

NAME = "evaluate"
CLICKED_WITHIN_MS = 30 * 60_000
"""A click later than this after an impression was made in another way."""
HOUR_MS = 3_600_000
TOLD = ("language", "region", "device")
UNREADABLE, TWICE = "records that cannot be used", "events sent twice, taken once"
OnLeftOut = Callable[[str, str], None]
"""Is told what is wrong with a record, and which it is."""


class Shown(msgspec.Struct, gc=False):
    """An impression with what was clicked in it, or (``elsewhere``) a click that no list led to.

    ``at`` is epoch ms; ``clicked`` goes with ``items``. ``group`` is what the event's context says of the user.
    """

    impression_id: str
    user_id: str
    at: int
    list_id: str
    group: str
    items: list[ShownItem]
    clicked: list[bool]
    elsewhere: bool = False
    context: dict[str, str] = {}
    """What it tells of the user that the fold reads: language, region and device."""

    @property
    def candidates(self) -> list[str]:
        return [item.article_id for item in self.items]

    @property
    def history(self) -> list[str]:
        """Nothing is known of what the user read before the log begins."""
        return []


@dataclass(frozen=True)
class ShownLog:
    """``shown`` in the order of time. ``clicks`` of them were made in lists."""

    shown: list[Shown]
    clicks: int


def read_vectors(
    settings: Settings, topics: Topics, dims: int, on_left_out: OnLeftOut
) -> Iterator[tuple[str, ArticleRecord]]:
    """Yield the articles with their vectors, those withdrawn since where Kafka still has them; blocks."""
    for record in read_to_end(settings, topics.article_vectors, name=NAME):
        if record.value() is None:
            continue
        try:
            yield text_key(record), vector_of(record, dims)
        except UnreadableState as error:
            on_left_out(UNREADABLE, f"{_place(record)}: {error}")


def read_shown(settings: Settings, topics: Topics, on_left_out: OnLeftOut, *, hours: float | None = None) -> ShownLog:
    """Read impressions and clicks up to the present end, of the last ``hours`` or all that is kept; blocks.

    A click belongs to the last impression before it in which its user was shown the article, in the list that it names
    where it names one, at most half an hour earlier. An event's time is ``at``, but never later than its record's
    timestamp. What was read is held in memory. Raises :class:`SetupError` where there is no impression.
    """
    found: list[tuple[int, int, int, Shown]] = []
    seen: set[tuple[str, str]] = set()
    newest = 0
    for record in read_to_end(settings, topics.user_events, name=NAME):
        timestamp = record.timestamp()[1]
        newest = max(newest, timestamp)
        shown = _decoded(record, timestamp, on_left_out)
        if shown is None:
            continue
        if shown.impression_id:
            key = shown.user_id, shown.impression_id
            if key in seen:
                on_left_out(TWICE, _place(record))
                continue
            seen.add(key)
        shown.impression_id = _place(record)
        found.append((shown.at, record.partition(), record.offset(), shown))
    begin = newest - hours * HOUR_MS if hours is not None else 0
    found = [entry for entry in found if entry[0] >= begin]
    if all(shown.elsewhere for _, _, _, shown in found):
        raise SetupError(
            f"{topics.user_events} holds no impression{'' if hours is None else f' of the last {hours:g} hours'}: "
            "clients have to send an `impression` event for what they show; nothing can be judged without"
        )
    found.sort(key=lambda entry: entry[:3])
    return _joined([shown for _, _, _, shown in found])


def _decoded(record: Record, timestamp: int, on_left_out: OnLeftOut) -> Shown | None:
    try:
        event = decode_event(record.key(), record.value())
    except BadRecord as error:
        on_left_out(UNREADABLE, f"{_place(record)}: {error}")
        return None
    if event.kind == "impression":
        items, clicked = event.shown, [False] * len(event.shown)
    elif event.kind == "click":
        items, clicked = [ShownItem(article_id=event.article_id)], [True]
    else:
        return None
    group = event.context.get("group", "")
    return Shown(
        event.event_id, event.user_id, min(timestamp, event.at), event.list_id,
        str(group) if isinstance(group, str | int) else "", items, clicked, event.kind == "click",
        {name: told for name in TOLD if isinstance(told := event.context.get(name), str)},
    )  # fmt: skip


def _joined(events: list[Shown]) -> ShownLog:
    """Write clicks into the impressions that they answer."""
    last: dict[tuple[str, str, str], tuple[Shown, int]] = {}
    kept: list[Shown] = []
    clicks = 0
    for event in events:
        if not event.elsewhere:
            kept.append(event)
            for place, item in enumerate(event.items):
                last[event.user_id, item.article_id, event.list_id] = event, place
                last[event.user_id, item.article_id, ""] = event, place
            continue
        answered = last.get((event.user_id, event.items[0].article_id, event.list_id))
        if answered is None or event.at - answered[0].at > CLICKED_WITHIN_MS:
            kept.append(event)
        else:
            impression, place = answered
            impression.clicked[place] = True
            clicks += 1
    return ShownLog(kept, clicks)


def _place(record: Record) -> str:
    return f"{record.topic()}[{record.partition()}]@{record.offset()}"
