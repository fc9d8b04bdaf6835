"""What one user hands over to another when they turn out to be the same person."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from contract.messages import Carried, Event, encode
from contract.records import UserRecord, recents_of
from encoders.articles import ArticleTable
from encoders.fold_rules import ABSORB_BYTES, Absorb


def absorbs_of(
    state: UserRecord, merge: Event, at: int, place: tuple[int, int], articles: ArticleTable
) -> Iterator[Absorb]:
    """Yield the events by which ``merge.target`` takes over what is known of ``merge.user_id``.

    One where its size allows that, none where nothing is known. ``place`` is the partition and offset of the merge:
    the ids come from it, so that two workers of different generations write the same one.
    """
    batch: list[Carried] = []
    size = number = 0
    for carried in _carried(state, merge.user_id, at, place[0], articles):
        length = len(bytes(carried.event)) + 100
        if batch and size + length > ABSORB_BYTES:
            yield _absorb(merge, at, place, number, batch)
            batch, size, number = [], 0, number + 1
        batch.append(carried)
        size += length
    if batch:
        yield _absorb(merge, at, place, number, batch)


def _carried(state: UserRecord, user_id: str, at: int, partition: int, articles: ArticleTable) -> Iterator[Carried]:
    windows = state.windows
    for target in windows.follows:
        yield _as_sent(Event(user_id=user_id, kind="follow", at=at, target=target))
    for target in windows.mutes:
        yield _as_sent(Event(user_id=user_id, kind="mute", at=at, target=target))
    for recent in recents_of(windows):
        row = articles.row_of_hash(recent.article)
        if row is not None:  # what is gone would move nothing
            dwell_ms = recent.dwell_ms if recent.kind == "dwell" else None
            yield _as_sent(
                Event(user_id=user_id, kind=recent.kind, at=recent.at, article_id=articles.ids[row], dwell_ms=dwell_ms)
            )
    for wait in windows.waiting:
        event = msgspec.Raw(wait.value)
        if wait.counted:
            yield Carried(event=event, timestamp=wait.timestamp)
        else:
            lay_in = partition if wait.carried_from < 0 else wait.carried_from
            yield Carried(event=event, partition=lay_in, offset=wait.offset, timestamp=wait.timestamp)


def _as_sent(event: Event) -> Carried:
    return Carried(event=msgspec.Raw(encode(event)))


def _absorb(merge: Event, at: int, place: tuple[int, int], number: int, carried: list[Carried]) -> Absorb:
    event_id = "absorb-" + "-".join(map(str, (*place, number) if number else place))
    absorb = Event(
        user_id=merge.target, kind="absorb", at=at, event_id=event_id, target=merge.user_id, events=carried
    )  # fmt: skip
    return Absorb(merge.target, encode(absorb))
