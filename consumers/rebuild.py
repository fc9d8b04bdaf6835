"""``stoppress rebuild user``: a user's state made anew from the log, while the users worker runs.

Only the user's state is written, and the partition's totals where something no longer waits: statistics stay as they
are. It is folded up to the offset that the worker has committed, with the article vectors of now, so it is the state
that the worker would have, but for articles that changed since.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

import msgspec

from consumers.article_view import vector_of
from consumers.mending import REBUILD_ALL
from contract.errors import BadRecord, NewerState, StoppressError, UnreadableState
from contract.messages import ARTICLE_KINDS, Cause, Event, decode_carried, decode_event
from contract.murmur2 import partition_of
from contract.records import (
    PARTITION_KEY,
    PartitionTotals,
    UserRecord,
    decode_totals,
    decode_user,
    encode_plain,
    encode_user,
)
from contract.settings import Settings
from contract.topics import Topics
from encoders.articles import ArticleTable
from encoders.fold import Fold
from encoders.fold_rules import Arrival, FoldLimits
from encoders.interest import InterestModel
from encoders.user_state import MASK64, PartitionState, event_hash
from streams.clients import make_admin
from streams.dead_letters import read as read_letter
from streams.owners_place import Output, write_in_owners_place
from streams.record import text_key
from streams.table import TableReader, first_offsets
from streams.worker import Identity

NAME = "rebuild"


@dataclass(frozen=True)
class Rebuilt:
    """What became of a user: ``events`` folded up to ``offset``, None where they have no state (any more)."""

    user_id: str
    partition: int
    offset: int
    events: int | None
    waiting: int
    log_begins_at: int

    def __str__(self) -> str:
        what = "no state" if self.events is None else f"a state of {self.events} events, {self.waiting} waiting"
        missing = f"; the log begins at offset {self.log_begins_at}" if self.log_begins_at else ""
        return f"{self.user_id}: {what}, up to offset {self.offset} of partition {self.partition}{missing}"


def rebuild_user(settings: Settings, topics: Topics, model: InterestModel, user_id: str) -> Rebuilt:
    """Make the user's state anew, exactly once; blocks.

    Raises :class:`StoppressError` where nothing was changed, :class:`NewerState` among it: what a newer version wrote
    is that version's to read.
    """
    group = Identity.of(settings, "users", topics.generation).group
    partition = partition_of(user_id.encode(), settings.partitions)
    with closing(_Rebuild(settings, topics, model, user_id, partition)) as rebuild:
        write_in_owners_place(settings, group, topics.user_events, partition, rebuild.outputs)
        return rebuild.result()


@dataclass
class _Changelog:
    """What the partition's changelog says: the user's own state, or what is wrong with it, and who else waits."""

    own: UserRecord | str | None = None
    totals: PartitionTotals | str = field(default_factory=PartitionTotals)
    waits: dict[str, int] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)


class _Rebuild:
    def __init__(self, settings: Settings, topics: Topics, model: InterestModel, user_id: str, partition: int) -> None:
        def reader(topic: str, *, whole: bool = False) -> TableReader:
            return TableReader(settings, topic, name=NAME, partitions=None if whole else [partition], fetch_wait_ms=5)

        self._topics = topics
        self._model = model
        self._user_id = user_id
        self._partition = partition
        self._limits = FoldLimits.of(settings)
        self._begins_at = first_offsets(make_admin(settings), topics.user_events, [partition])[partition]
        self._log = reader(topics.user_events)
        self._states = reader(topics.user_vectors)
        self._vectors = reader(topics.article_vectors, whole=True)
        self._letters = reader(topics.dead_letters, whole=True)
        self._articles = ArticleTable(model.dims)
        self._written: dict[str, int] = {}
        self._dropped: set[int] = set()
        self._arrivals: list[Arrival] = []
        self._changelog = _Changelog()
        self._made: tuple[int, UserRecord | None] = (-1, None)

    def close(self) -> None:
        for reader in (self._log, self._states, self._vectors, self._letters):
            reader.close()

    def result(self) -> Rebuilt:
        offset, state = self._made
        events, waiting = (None, 0) if state is None else (state.folded, len(state.windows.waiting))
        return Rebuilt(self._user_id, self._partition, offset, events, waiting, self._begins_at)

    def outputs(self, offset: int) -> list[Output]:
        """Return what is to be written where the worker has folded up to ``offset``."""
        self._catch_up()
        changelog = self._changelog
        if isinstance(changelog.totals, str):
            raise StoppressError(
                f"the totals of partition {self._partition} cannot be read: {changelog.totals}; {REBUILD_ALL} counts "
                "them anew first"
            )
        offset = max(offset, changelog.totals.next_offset)  # Kafka may have lost commits of the group
        arrivals = [arrival for arrival in self._arrivals if arrival.offset < offset]
        state = self._fold(arrivals, changelog.totals)
        self._refuse_to_lose(state)
        self._made = offset, state
        value = None if state is None else encode_user(state)
        outputs = [Output(self._topics.user_vectors, self._user_id.encode(), value)]
        totals = self._settled(changelog.totals, arrivals, state)
        if totals != changelog.totals:
            outputs.append(Output(self._topics.user_vectors, PARTITION_KEY, encode_plain(totals)))
        return outputs

    def _catch_up(self) -> None:
        """Take in what has come since the last call, all of it at the first."""
        for record in self._states.catch_up():
            self._take_state(text_key(record), record.value())
        for record in self._vectors.catch_up():
            article_id = text_key(record)
            if record.value() is None:
                self._articles.withdraw(article_id)
                continue
            with suppress(UnreadableState):  # the worker left it out too
                self._articles.put(article_id, vector_of(record, self._model.dims))
                self._written[article_id] = record.timestamp()[1]
        for record in self._letters.catch_up():
            letter = read_letter(record)
            if (letter.topic, letter.partition) == (self._topics.user_events, self._partition):
                self._dropped.add(letter.offset)
        for record in self._log.catch_up():
            if record.key() == self._user_id.encode():
                try:
                    event = decode_event(record.key(), record.value())
                except BadRecord:
                    continue
                self._arrivals.append(Arrival(record.offset(), record.timestamp()[1], event, record.value() or b""))

    def _take_state(self, key: str, value: bytes | None) -> None:
        changelog = self._changelog
        if key == PARTITION_KEY.decode():
            try:
                changelog.totals = PartitionTotals() if value is None else decode_totals(value)
            except UnreadableState as error:
                changelog.totals = str(error)
            return
        state = readable_state(value, self._model)
        if key == self._user_id:
            changelog.own = state
            return
        changelog.waits.pop(key, None)
        changelog.unreadable.discard(key)
        if isinstance(state, str):
            changelog.unreadable.add(key)
        elif state is not None and state.windows.waiting:
            changelog.waits[key] = len(own_waits(state))

    def _fold(self, arrivals: Sequence[Arrival], totals: PartitionTotals) -> UserRecord | None:
        arrivals = [arrival for arrival in arrivals if arrival.offset not in self._dropped]
        self._let_go(arrivals, totals)
        alone = PartitionState(self._partition)
        fold = Fold(alone, self._articles, self._model, self._limits)
        fold.take(arrivals)
        fold.finish()
        fold.adopt()
        state = alone.users.get(self._user_id)
        if state is not None:
            state.windows.cause = Cause(kind="refresh", id="", at=time.time_ns() // 1_000_000)
        return state

    def _let_go(self, arrivals: Sequence[Arrival], totals: PartitionTotals) -> None:
        """Of articles without a vector, let those count as gone for which nothing can be waiting any more."""
        own, awaited = self._changelog.own, set()
        if isinstance(own, UserRecord):
            awaited = {wait.article_id for wait in own.windows.waiting}
        elif isinstance(own, str):  # what cannot be read may have held anything that is not overdue
            newest = (totals.timestamp - self._limits.waiting_ms) if totals.timestamp else 0
            awaited = {a for arrival in arrivals if arrival.timestamp >= newest for a in _articles_of(arrival.event)}
        for article_id in {a for arrival in arrivals for a in _articles_of(arrival.event)} - awaited:
            if self._articles.row(article_id) is None:
                self._articles.withdraw(article_id)

    def _refuse_to_lose(self, state: UserRecord | None) -> None:
        own = self._changelog.own
        if self._begins_at and isinstance(own, UserRecord) and (state is None or state.folded < own.folded):
            raise StoppressError(
                f"the state can be read and holds {own.folded} events, of which the log from offset {self._begins_at} "
                f"on still has {0 if state is None else state.folded}: nothing is changed; where the rest is to go, "
                "send a `forget` event"
            )

    def _settled(
        self, totals: PartitionTotals, arrivals: Sequence[Arrival], state: UserRecord | None
    ) -> PartitionTotals:
        """The totals where what waited in the state before, and does not in the new one, counts as folded."""
        own, now = self._changelog.own, own_waits(state)
        if isinstance(own, UserRecord):
            moved = [offset for offset in own_waits(own) if offset not in now]
        elif self._changelog.unreadable:  # what waits in theirs is not known either
            return totals
        else:
            count = totals.waiting - sum(self._changelog.waits.values()) - len(now)
            came_late = [
                arrival.offset
                for arrival in arrivals
                if arrival.offset not in self._dropped
                and arrival.offset not in now
                and arrival.event.kind in ARTICLE_KINDS
                and self._written.get(arrival.event.article_id, 0) > arrival.timestamp
            ]
            moved = came_late[max(0, len(came_late) - count) :] if count > 0 else []
        hashes = sum(event_hash(self._partition, offset) for offset in moved)
        return msgspec.structs.replace(
            totals,
            waiting=totals.waiting - len(moved),
            folded=totals.folded + len(moved),
            hash_sum=(totals.hash_sum + hashes) & MASK64,
        )


def readable_state(value: bytes | None, model: InterestModel) -> UserRecord | str | None:
    """Return a user's state, or what is wrong with it. Raises :class:`NewerState`."""
    if value is None:
        return None
    try:
        state = decode_user(value)
    except NewerState:
        raise
    except UnreadableState as error:
        return str(error)
    size = len(state.numbers) // 4
    return state if size == model.state_size else f"it has {size} numbers where the model keeps {model.state_size}"


def own_waits(state: UserRecord | None) -> list[int]:
    return [] if state is None else [w.offset for w in state.windows.waiting if w.carried_from < 0]


def _articles_of(event: Event) -> set[str]:
    if event.kind == "absorb":
        return {inside.article_id for inside in map(decode_carried, event.events) if inside.article_id}
    return {event.article_id} if event.kind in ARTICLE_KINDS else set()
