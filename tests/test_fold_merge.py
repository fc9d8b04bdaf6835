"""Merges: what one user was known for goes over to another, in every order, across partitions and in circles."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import BadRecord
from contract.messages import Event, decode_event, encode
from contract.records import recents_of
from encoders.articles import hash64
from encoders.fold_rules import ABSORB_BYTES, STATS_HALF_LIFE_MS, FoldLimits
from encoders.user_state import MASK64, event_hash
from tests.reference_fold import Reference
from tests.replay import Replay, hashes
from tests.strategies import ARTICLES, DAY, HOUR, LIMITS, MODEL, START, Change, Op, Record, events, published
from tests.test_fold import assert_same_as_reference, handed_over

PARTITIONS = 3
PLACES = {"ann": 0, "bob": 1, "eve": 1, "joe": 2}
WIDE = FoldLimits(waiting_clicks=100, waiting_ms=10_000 * DAY, user_ttl_ms=10_000 * DAY)
few = settings(max_examples=100, deadline=None)


@dataclass
class World:
    """Several partitions; what one writes for another comes to the end of that one's log, as in Kafka."""

    limits: FoldLimits = LIMITS
    now: int = START
    logs: list[list[Op]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    replays: list[Replay] = field(init=False)
    read: list[int] = field(default_factory=lambda: [0] * PARTITIONS)

    def __post_init__(self) -> None:
        self.replays = [Replay(self.limits, partition=p) for p in range(PARTITIONS)]

    def send(self, event: Event) -> None:
        log = self.logs[PLACES[event.user_id]]
        log.append(Record(sum(isinstance(op, Record) for op in log), self.now, event))

    def change(self, change: Change) -> None:
        """All workers learn of an article when they have read so far; what is still to be read comes after it."""
        for partition, log in enumerate(self.logs):
            log.insert(self.read[partition], change)
            self.work(partition, 1)

    def work(self, partition: int, count: int) -> None:
        """Take the next records of a partition in one batch."""
        batch = self.logs[partition][self.read[partition] : self.read[partition] + count]
        self.read[partition] += len(batch)
        if batch:
            for absorb in self.replays[partition].take(batch).absorbs:
                self.send(decode_event(absorb.user_id.encode(), absorb.value))

    def come_to_rest(self) -> World:
        while any(self.read[p] < len(log) for p, log in enumerate(self.logs)):
            for partition, log in enumerate(self.logs):
                self.work(partition, len(log))
        return self


@st.composite
def worlds(
    draw: st.DrawFn,
    limits: FoldLimits,
    kinds: tuple[str, ...],
    gaps: tuple[int, ...],
    event_ids: tuple[str, ...] = ("", "", "e0", "e1"),
) -> World:
    """A world in which users act and merge while partitions are worked on in any order, brought to rest."""
    world = World(limits)
    for what in draw(st.lists(st.sampled_from(["send"] * 6 + ["work"] * 3 + ["publish"]), max_size=40)):
        if what == "send":
            world.now += draw(st.sampled_from(gaps))
            users = tuple(PLACES)
            world.send(draw(events(world.now, kinds=kinds, event_ids=event_ids, users=users)))
        elif what == "publish":
            world.change(published(draw(st.sampled_from(ARTICLES)), cause_at=world.now))
        else:
            world.work(draw(st.integers(0, PARTITIONS - 1)), draw(st.integers(1, 4)))
    return world.come_to_rest()


ACTS = ("click", "click", "click", "dwell", "impression", "follow", "merge", "merge", "forget")


class TestManyPartitions:
    @few
    @given(worlds(LIMITS, ACTS, (0, 1, 60_000, HOUR, 25 * HOUR)))
    def test_every_partition_is_what_the_reference_makes_of_its_log(self, world: World) -> None:
        for partition, log in enumerate(world.logs):
            expected = Reference(MODEL, LIMITS, partition).run(log)
            assert_same_as_reference(world.replays[partition], expected)

    @few
    @given(worlds(LIMITS, ACTS, (0, 1, 60_000, HOUR, 25 * HOUR)))
    def test_all_that_is_sent_is_accounted_for(self, world: World) -> None:
        """tests/replay.py checks that each batch; here over all partitions, absorbs included."""
        sent = sum(isinstance(op, Record) for log in world.logs for op in log)
        totals = [replay.state.totals for replay in world.replays]
        assert sent == sum(t.folded + t.waiting + t.duplicate + t.dead for t in totals)
        for partition, log in enumerate(world.logs):
            outcome = Reference(MODEL, LIMITS, partition).run(log).outcome
            folded = [offset for offset, what in outcome.items() if what == "folded"]
            assert totals[partition].hash_sum == sum(event_hash(partition, offset) for offset in folded) & MASK64

    @few
    @given(worlds(WIDE, ("click", "click", "like", "merge"), (0, 1, 60_000), event_ids=("",)))
    def test_whoever_merges_with_whom_every_reading_ends_with_exactly_one_user(self, world: World) -> None:
        read: list[tuple[int, int]] = []
        for replay in world.replays:
            for user in replay.state.users.values():
                read += [(recent.article, recent.at) for recent in recents_of(user.windows)]
                for wait in user.windows.waiting:
                    event = msgspec.json.decode(wait.value, type=Event)
                    read.append((hash64(event.article_id), min(event.at, wait.timestamp)))
        sent = [
            (hash64(op.event.article_id), min(op.event.at, op.timestamp))
            for log in world.logs
            for op in log
            if isinstance(op, Record) and op.event is not None and op.event.article_id
        ]
        assert sorted(read) == sorted(sent)

    @few
    @given(worlds(WIDE, ("click", "click", "like", "merge"), (0, 1, 60_000), event_ids=("",)))
    def test_no_click_counts_twice_in_statistics(self, world: World) -> None:
        clicks = [
            min(op.event.at, op.timestamp)
            for log in world.logs
            for op in log
            if isinstance(op, Record) and op.event is not None and op.event.kind == "click"
        ]
        as_of = max(clicks, default=0)
        most = sum(0.5 ** ((as_of - at) / STATS_HALF_LIFE_MS) for at in clicks)
        counted = sum(
            stats.clicks * 0.5 ** ((as_of - stats.at) / STATS_HALF_LIFE_MS)
            for replay in world.replays
            for key, stats in replay.state.stats.items()
            if not key.startswith("~")
        )
        assert counted <= most * (1 + 1e-9)


class TestMerge:
    """ann and bob live in different partitions; ann turns out to be bob."""

    @staticmethod
    def world(*acts: Event, known: tuple[str, ...] = ("a0", "a1")) -> World:
        world = World(WIDE)
        for article_id in known:
            world.change(published(article_id))
        for act in acts:
            world.now += 1000
            world.send(act)
        return world

    @staticmethod
    def act(user: str, kind: str, article_id: str = "", *, target: str = "", event_id: str = "") -> Event:
        return Event(user_id=user, kind=kind, at=START, article_id=article_id, target=target, event_id=event_id)  # type: ignore[arg-type]

    def test_the_new_user_is_as_if_the_old_ones_reading_had_been_theirs(self) -> None:
        act = self.act
        merged = self.world(
            act("ann", "click", "a0"), act("ann", "follow", target="x"), act("bob", "click", "a1"),
            act("ann", "merge", target="bob"),
        ).come_to_rest()  # fmt: skip
        alone = self.world(act("bob", "click", "a1"), act("bob", "click", "a0")).come_to_rest()
        bob, wanted = (world.replays[1].state.users["bob"] for world in (merged, alone))
        assert "ann" not in merged.replays[0].state.users
        np.testing.assert_allclose(bob.vector, wanted.vector, rtol=1e-5)
        assert set(hashes(bob.windows.read)) == {hash64("a0"), hash64("a1")}
        assert bob.windows.follows == ("x",)
        assert bob.folded == 2, "the click and the absorb, which is one event"

    def test_the_old_state_goes_and_later_events_begin_a_new_user(self) -> None:
        act = self.act
        world = self.world(act("ann", "click", "a0"), act("ann", "merge", target="bob"), act("ann", "click", "a1"))
        ann = world.come_to_rest().replays[0].state.users["ann"]
        assert hashes(ann.windows.read) == [hash64("a1")]
        assert ann.folded == 1

    def test_a_click_that_waited_waits_on_where_it_went_and_is_counted_once(self) -> None:
        act = self.act
        world = self.world(act("ann", "click", "a4", event_id="w"), act("ann", "merge", target="bob")).come_to_rest()
        old, new = world.replays[0].state, world.replays[1].state
        assert (old.totals.folded, old.totals.waiting) == (2, 0)
        assert (new.totals.folded, new.totals.waiting) == (1, 0)
        assert list(new.waiting_for) == ["a4"]
        world.change(published("a4"))
        assert (new.totals.folded, new.users["bob"].folded) == (1, 1)
        assert hashes(new.users["bob"].windows.read) == [hash64("a4")]
        assert new.stats["a4"].clicks > 0, "it had not been counted where it waited"
        assert "a4" not in old.stats

    def test_a_click_carried_over_twice_still_knows_where_it_lay(self) -> None:
        act = self.act
        world = self.world(act("ann", "click", "a4", event_id="w"), act("ann", "merge", target="bob")).come_to_rest()
        world.send(act("bob", "merge", target="joe"))
        world.come_to_rest()
        (wait,) = world.replays[2].state.users["joe"].windows.waiting
        assert (wait.carried_from, wait.offset, wait.timestamp) == (0, 0, START + 1000)
        assert msgspec.json.decode(wait.value, type=Event).user_id == "ann"
        assert [replay.state.totals.folded for replay in world.replays] == [2, 2, 1]

    def test_what_the_new_owner_has_no_vector_of_yet_waits_but_counts_no_second_time(self) -> None:
        """The two workers may have read the articles up to different places."""
        act = self.act
        world = self.world(act("ann", "click", "a0"), act("ann", "merge", target="bob"), known=())
        world.replays[0].take([published("a0")])
        world.come_to_rest()
        world.send(act("bob", "merge", target="joe"))
        world.come_to_rest()
        (wait,) = world.replays[2].state.users["joe"].windows.waiting
        assert (wait.carried_from, wait.counted) == (2, True)
        world.replays[2].take([published("a0")])
        assert hashes(world.replays[2].state.users["joe"].windows.read) == [hash64("a0")]
        assert [list(replay.state.stats) for replay in world.replays] == [["a0"], [], []]
        assert [replay.state.totals.waiting for replay in world.replays] == [0, 0, 0]

    def test_what_it_pushes_out_is_a_dead_letter_of_the_old_user(self) -> None:
        act = self.act
        world = self.world(act("ann", "click", "a4", event_id="w"), act("ann", "merge", target="bob"))
        world.limits = world.replays[1].limits = FoldLimits(waiting_ms=HOUR)
        world.come_to_rest()
        world.now += 2 * HOUR
        world.send(act("bob", "click", "a0"))
        world.come_to_rest()
        (dropped,) = world.replays[1].dropped
        assert (dropped.user_id, dropped.partition, dropped.waited.offset) == ("ann", 0, 0)
        assert world.replays[1].state.totals.dead == 0, "it was counted as folded where it lay"

    def test_a_circle_hands_each_the_others_past(self) -> None:
        act = self.act
        world = self.world(
            act("ann", "click", "a0"), act("bob", "click", "a1"),
            act("ann", "merge", target="bob"), act("bob", "merge", target="ann"),
        )  # fmt: skip
        for partition in (0, 1):
            world.work(partition, 2)
        world.come_to_rest()
        ann, bob = world.replays[0].state.users["ann"], world.replays[1].state.users["bob"]
        assert (hashes(ann.windows.read), hashes(bob.windows.read)) == ([hash64("a1")], [hash64("a0")])

    def test_a_user_of_whom_nothing_is_known_hands_over_nothing(self) -> None:
        world = self.world(self.act("ann", "merge", target="bob")).come_to_rest()
        assert not any(isinstance(op, Record) for op in world.logs[1])
        assert world.replays[1].state.users == {}
        assert world.replays[0].state.totals.folded == 1

    def test_two_workers_of_different_generations_write_the_same_id(self) -> None:
        act = self.act
        world = self.world(act("ann", "click", "a0"), act("ann", "merge", target="bob"))
        world.work(0, 2)
        absorb = world.replays[0].absorbs[0]
        event = decode_event(b"bob", absorb.value)
        assert event.event_id == "absorb-0-1"
        world.send(event)
        world.come_to_rest()
        totals = world.replays[1].state.totals
        assert (totals.folded, totals.duplicate) == (1, 1)

    def test_what_is_too_much_for_one_record_goes_in_several(self) -> None:
        replay = Replay(FoldLimits(waiting_clicks=512), partition=0)
        large = {"note": "x" * 14_000}
        log: list[Op] = [
            Record(i, START, Event(user_id="ann", kind="click", at=START, article_id=f"late {i}", context=large))
            for i in range(200)
        ]
        replay.run([*log, Record(200, START, self.act("ann", "merge", target="bob"))])
        assert len(replay.absorbs) == 4
        assert all(len(absorb.value) < ABSORB_BYTES + 1000 for absorb in replay.absorbs)
        ids = [decode_event(b"bob", absorb.value).event_id for absorb in replay.absorbs]
        assert ids == ["absorb-0-200", "absorb-0-200-1", "absorb-0-200-2", "absorb-0-200-3"]
        assert sum(len(handed_over(absorb)) for absorb in replay.absorbs) == 200


class TestBadMerges:
    @pytest.mark.parametrize(("event", "says"), [
        (Event(user_id="ann", kind="merge", at=1), "target is empty"),
        (Event(user_id="ann", kind="merge", at=1, target="ann"), "merged into itself"),
        (Event(user_id="ann", kind="merge", at=1, target="~ann"), "begins with '~'"),
        (Event(user_id="ann", kind="follow", at=1), "target is empty"),
        (Event(user_id="ann", kind="mute", at=1, target="x" * 300), "300 bytes"),
        (Event(user_id="ann", kind="absorb", at=1), "what it carries"),
    ])  # fmt: skip
    def test_each_is_refused_with_its_reason(self, event: Event, says: str) -> None:
        with pytest.raises(BadRecord, match=says):
            decode_event(b"ann", encode(event))

    @pytest.mark.parametrize("inside", [
        b'{"event": 5}', b"{}", b'{"event": {"user_id": "a", "kind": "click", "at": 1}}',
        b'{"event": {"user_id": "a", "kind": "absorb", "at": 1, "events": []}}',
        b'{"event": {"user_id": "a", "kind": "follow", "at": 1, "target": "x"}, "offset": 3}',
        b'{"event": {"user_id": "a", "kind": "click", "at": 1, "article_id": "x"}, "timestamp": -1}',
        b'{"event": {"user_id": "a", "kind": "click", "at": 1, "article_id": "x"}, "offset": 99999999999999999999}',
    ])  # fmt: skip
    def test_an_absorb_with_something_wrong_in_it_is_refused_as_a_whole(self, inside: bytes) -> None:
        value = b'{"user_id": "ann", "kind": "absorb", "at": 1, "events": [' + inside + b"]}"
        with pytest.raises(BadRecord):
            decode_event(b"ann", value)
