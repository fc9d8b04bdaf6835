"""The fold: the same state however the log is cut, the same as a plain reference, every record accounted for."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import BadRecord
from contract.messages import Cause, Event, decode_event
from contract.records import KIND_BITS, ArticleStats, UserRecord, Waiting, Windows, encode_user, recents_of
from encoders import fold as fold_module
from encoders.articles import hash64
from encoders.fold_rules import Absorb, FoldLimits
from encoders.user_state import MASK64, PartitionState, event_hash
from tests.reference_fold import Reference, ReferenceUser
from tests.replay import Replay, hashes, integers, staying
from tests.strategies import (
    ARTICLES,
    DAY,
    HOUR,
    LIMITS,
    MODEL,
    PARTITION,
    START,
    USERS,
    Change,
    Op,
    Record,
    cut_logs,
    logs,
    published,
    unit_vector,
)

RELATIVE = 1e-4
WIDE = FoldLimits(waiting_ms=10_000 * DAY, user_ttl_ms=10_000 * DAY)
few = settings(max_examples=150, deadline=None)


def record(offset: int, kind: str = "click", article_id: str = "a0", *, user: str = "ann", hours: float = 0,
           at_hours: float | None = None, event_id: str = "", dwell_ms: int | None = None) -> Record:  # fmt: skip
    """A record ``hours`` after START; its event happened then, or at ``at_hours``."""
    timestamp = START + round(hours * HOUR)
    at = timestamp if at_hours is None else START + round(at_hours * HOUR)
    event = Event(
        user_id=user, kind=kind, at=at, event_id=event_id, article_id=article_id, dwell_ms=dwell_ms,  # type: ignore[arg-type]
    )  # fmt: skip
    return Record(offset, timestamp, event)


def assert_same_vectors(state: PartitionState, expected: PartitionState) -> None:
    for user_id, user in staying(state).items():
        assert_close(user.vector, expected.users[user_id].vector)


def assert_same_statistics(state: PartitionState, expected: PartitionState) -> None:
    assert state.stats.keys() == expected.stats.keys()
    for key, stats in state.stats.items():
        assert sums_of(stats) == pytest.approx(sums_of(expected.stats[key]), rel=1e-9)


def sums_of(stats: ArticleStats) -> dict[object, float]:
    """Flat sums by kind, and by kind and position, reason, half-life or region, those of zero left out."""
    sums: dict[object, float] = {"impression": stats.impressions, "click": stats.clicks}
    for what, counts in [*stats.positions.items(), *stats.reasons.items()]:
        sums["impression", what], sums["click", what] = counts
    for region, counts in stats.regions.items():
        sums["impression", f"in {region}"], sums["click", f"in {region}"] = counts
    for minutes, counts in stats.lately.items():
        sums["impression", f"{minutes} min"], sums["click", f"{minutes} min"] = counts
    return {what: count for what, count in sums.items() if count}


def assert_close(vector: NDArray[np.float32], expected: NDArray[np.float32] | list[float]) -> None:
    """Relative to the largest number that could have been added: what is taken off again leaves its rounding."""
    np.testing.assert_allclose(vector, expected, rtol=RELATIVE, atol=RELATIVE * 0.01)


def places(replay: Replay) -> list[tuple[int, int]]:
    return [(d.partition, d.waited.offset) for d in replay.dropped]


def assert_same_as_reference(replay: Replay, expected: Reference) -> None:
    state = replay.state
    totals, outcomes = state.totals, expected.totals()
    for outcome in ("folded", "waiting", "duplicate", "dead"):
        assert getattr(totals, outcome) == outcomes[outcome], outcome
    stay = {
        user_id: user
        for user_id, user in expected.users.items()
        if user.waiting or expected.now - (user.timestamp or 0) <= replay.limits.user_ttl_ms
    }
    assert staying(state, replay.limits.user_ttl_ms).keys() == stay.keys()
    for user_id, wanted in stay.items():
        assert_same_user(state.users[user_id], wanted, expected.partition)
    assert state.stats.keys() == expected.counted.keys()
    for key, stats in state.stats.items():
        as_of, sums = expected.stats(key)
        assert stats.at == as_of
        told = {what: n for what, n in sums.items() if isinstance(what, str) or what[1] not in (None, "")}
        assert sums_of(stats) == pytest.approx({what: n for what, n in told.items() if n}, rel=1e-9)
    assert {article_id: sums.sums for article_id, sums in state.co_reads.items()} == {
        article_id: {hash64(after): n for after, n in sums.sums().items()}
        for article_id, sums in expected.co_reads.items()
    }
    assert [(absorb.user_id, handed_over(absorb)) for absorb in replay.absorbs] == expected.absorbs
    assert sorted(places(replay)) == sorted(expected.dropped)


def assert_same_user(user: UserRecord, wanted: ReferenceUser, partition: int) -> None:
    w = user.windows
    assert_close(user.vector, wanted.vector(MODEL))
    assert user.at == wanted.at()
    assert user.timestamp == (wanted.timestamp or 0)
    assert hashes(w.read) == [hash64(article_id) for article_id in wanted.read]
    assert list(w.read_kinds) == [sum(KIND_BITS[kind] for kind in kinds) for kinds in wanted.read.values()]
    assert recents_of(w) == [(hash64(article_id), *rest) for article_id, *rest in wanted.recents]
    assert hashes(w.seen) == [hash64(event_id) for event_id in wanted.seen]
    assert hashes(w.shown) == [hash64(article_id) for article_id in wanted.shown]
    assert list(w.shown_counts) == [wanted.counts[article_id] for article_id in wanted.shown]
    assert (list(w.follows), list(w.mutes)) == (wanted.follows, wanted.mutes)
    assert (w.language, w.region, w.device) == (wanted.language, wanted.region, wanted.device)
    affinities = {hash64(category): weight for category, weight in wanted.affinities.sums().items()}
    assert dict(struct.iter_unpack("<Qd", w.affinities)) == affinities
    assert (w.minute, w.minute_events, w.limited_until) == (wanted.minute, wanted.minute_events, wanted.limited_until)
    assert (w.record_minute, w.record_minute_events) == (wanted.record_minute, wanted.record_minute_events)
    assert [(wait.offset, wait.value) for wait in w.waiting] == [(x.place[1], x.value) for x in wanted.waiting]
    assert (user.folded, user.last_offset) == (len(wanted.offsets), max(wanted.offsets, default=-1))
    assert user.hash_sum == sum(event_hash(partition, offset) for offset in wanted.offsets) & MASK64


def handed_over(absorb: Absorb) -> list[object]:
    """What an absorb carries, in the words of the reference."""
    event = decode_event(absorb.user_id.encode(), absorb.value)
    handed: list[object] = []
    for carried in event.events:
        inside = msgspec.json.decode(carried.event, type=Event)
        if carried.offset >= 0:
            handed.append((bytes(carried.event), (carried.partition, carried.offset), carried.timestamp))
        elif carried.timestamp:
            handed.append((bytes(carried.event), None, carried.timestamp))
        else:
            handed.append((inside.kind, inside.article_id or inside.target, inside.at, inside.dwell_ms))
    return handed


class TestReplay:
    """A state is a function of the log and the vectors, not of the batches."""

    @few
    @given(cut_logs())
    def test_any_cut_gives_the_same_state(self, cut_log: tuple[list[Op], set[int]]) -> None:
        ops, cuts = cut_log
        whole, cut = Replay().run(ops), Replay().run(ops, cuts)
        assert integers(cut.state) == integers(whole.state)
        assert_same_vectors(cut.state, whole.state)
        assert_same_statistics(cut.state, whole.state)
        assert cut.absorbs == whole.absorbs
        assert cut.limited == whole.limited
        assert sorted(places(cut)) == sorted(places(whole))

    @few
    @given(cut_logs())
    def test_a_state_read_from_its_records_goes_on_as_if_it_had_stayed(
        self, cut_log: tuple[list[Op], set[int]]
    ) -> None:
        ops, cuts = cut_log
        stayed, restored = Replay().run(ops, cuts), Replay(restoring=True).run(ops, cuts)
        assert integers(restored.state) == integers(stayed.state)
        assert_same_vectors(restored.state, stayed.state)
        assert_same_statistics(restored.state, stayed.state)
        assert restored.absorbs == stayed.absorbs

    @few
    @given(cut_logs())
    def test_a_plain_reference_comes_to_the_same(self, cut_log: tuple[list[Op], set[int]]) -> None:
        ops, cuts = cut_log
        assert_same_as_reference(Replay().run(ops, cuts), Reference(MODEL, LIMITS, PARTITION).run(ops))

    @few
    @given(logs(), st.sampled_from(USERS))
    def test_events_of_other_users_change_nothing(self, ops: list[Op], user_id: str) -> None:
        # Wide limits: other users' events also tell the time, and by it the overdue clicks go.
        mine = [op for op in ops if isinstance(op, Change) or (op.event is not None and op.event.user_id == user_id)]
        among_others, alone = Replay(WIDE).run(ops).state, Replay(WIDE).run(mine).state
        ttl = WIDE.user_ttl_ms
        assert integers(among_others, ttl)[0].get(user_id) == integers(alone, ttl)[0].get(user_id)
        if user_id in alone.users:
            assert_close(among_others.users[user_id].vector, alone.users[user_id].vector)


class TestAccounting:
    """sent = folded + waiting + duplicate + dead; tests/replay.py checks it after every batch of every log here."""

    @few
    @given(cut_logs())
    def test_the_hash_sum_is_over_exactly_the_folded_offsets(self, cut_log: tuple[list[Op], set[int]]) -> None:
        ops, cuts = cut_log
        replay, expected = Replay().run(ops, cuts), Reference(MODEL, LIMITS, PARTITION).run(ops)
        folded = [offset for offset, outcome in expected.outcome.items() if outcome == "folded"]
        assert replay.state.totals.hash_sum == sum(event_hash(PARTITION, offset) for offset in folded) & MASK64
        assert replay.state.totals.read == sum(isinstance(op, Record) for op in ops)

    @few
    @given(cut_logs())
    def test_what_a_bound_pushes_out_is_a_dead_letter_as_it_came(self, cut_log: tuple[list[Op], set[int]]) -> None:
        ops, cuts = cut_log
        dropped = Replay().run(ops, cuts).dropped
        arrivals = {op.offset: op.arrival() for op in ops if isinstance(op, Record) and op.event is not None}
        for d in dropped:
            assert d.error.reason == "no_vector_in_time"
            if d.waited.carried_from >= 0:
                assert (d.user_id, d.partition) == ("old", d.waited.carried_from)
                continue
            arrival = arrivals[d.waited.offset]
            assert (d.user_id, d.waited.value) == (arrival.event.user_id, arrival.value)

    def test_event_hash_is_splitmix64(self) -> None:
        assert event_hash(0, 0) == 0xE220A8397B1DCDAF  # the first number of the generator seeded with 0
        places = {event_hash(partition, offset) for partition in range(20) for offset in range(500)}
        assert len(places) == 20 * 500

    def test_the_same_event_id_twice_is_a_duplicate_and_an_empty_one_never(self) -> None:
        log: list[Op] = [published("a0"), record(0, event_id="e"), record(1, event_id="e"), record(2), record(3)]
        totals = Replay().run(log).state.totals
        assert (totals.folded, totals.duplicate) == (3, 1)

    def test_a_duplicate_of_a_waiting_click_is_a_duplicate(self) -> None:
        totals = Replay().run([record(0, event_id="e"), record(1, event_id="e")]).state.totals
        assert (totals.waiting, totals.duplicate) == (1, 1)

    def test_a_dead_letter_that_comes_again_is_no_duplicate(self) -> None:
        replay = Replay().run([record(0, event_id="e"), record(1, "impression", hours=25)])
        assert [d.waited.offset for d in replay.dropped] == [0]
        replay.run([published("a0"), record(2, event_id="e", hours=26)])
        assert (replay.state.totals.folded, replay.state.totals.duplicate) == (2, 0)

    def test_overdue_clicks_go_though_their_user_is_away_and_however_long_the_batch_is(self) -> None:
        log: list[Op] = [record(0), record(1, "impression", user="bob", hours=25)]
        for cuts in ((), (1,)):
            replay = Replay().run(log, cuts)
            assert [(d.user_id, d.waited.offset) for d in replay.dropped] == [("ann", 0)]
            assert not replay.state.waiting_for

    def test_lower_bounds_than_before_push_out_all_that_is_too_much(self) -> None:
        replay = Replay(WIDE).run([record(i, article_id=f"a{i}") for i in range(4)])
        replay.limits = LIMITS
        replay.run([record(9, article_id="a4")])
        assert [d.waited.offset for d in replay.dropped] == [0, 1, 2]

    def test_a_forget_takes_all_and_counts_what_waited_as_folded(self) -> None:
        replay = Replay().run([published("a0"), record(0), record(1, article_id="a1"), record(2, "forget", "")])
        assert (replay.state.users, replay.state.waiting_for) == ({}, {})
        totals = replay.state.totals
        assert (totals.folded, totals.waiting) == (3, 0)
        assert totals.hash_sum == sum(event_hash(PARTITION, offset) for offset in range(3)) & MASK64

    def test_a_user_who_comes_back_after_user_ttl_starts_anew_but_keeps_what_waits(self) -> None:
        limits = FoldLimits(user_ttl_ms=DAY, waiting_ms=100 * DAY)
        replay = Replay(limits)
        replay.run([published("a0"), record(0), record(1, article_id="a1"), record(2, hours=25, at_hours=0.5)])
        user = replay.state.users["ann"]
        assert (user.folded, user.hash_sum, user.last_offset) == (1, event_hash(PARTITION, 2), 2)
        assert [wait.offset for wait in user.windows.waiting] == [1]
        assert_close(user.vector, [*unit_vector(0), *unit_vector(0)])
        assert replay.state.totals.folded == 2

    def test_who_stayed_away_for_user_ttl_is_dropped_once_nothing_waits(self) -> None:
        limits = FoldLimits(user_ttl_ms=2 * DAY, waiting_ms=3 * DAY)
        replay = Replay(limits).run([published("a0"), record(0), record(1, article_id="a1"), record(2, user="bob")])
        replay.run([record(3, user="eve", hours=49)])
        assert list(replay.state.users) == ["ann", "eve"], "bob goes, what ann waits for is still to come"
        fold = replay.take([record(4, user="eve", hours=73)])
        assert [d.user_id for d in fold.dropped] == ["ann"]
        fold = replay.take([record(5, user="eve", hours=73)])
        assert (fold.users["ann"], fold.expired) == (None, 1)
        assert replay.state.totals.folded == 5

    def test_only_so_many_are_dropped_in_one_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fold_module, "IDLE_AT_ONCE", 3)
        idle = [record(i, user=f"user-{i}") for i in range(8)]
        replay = Replay(FoldLimits(user_ttl_ms=DAY)).run([published("a0"), *idle])
        replay.run([record(8, user="user-7", hours=1)])  # the newest of them, and the last to go
        expired = [replay.take([record(9 + i, user="eve", hours=48)]).expired for i in range(4)]
        assert expired == [3, 3, 2, 0]
        assert list(replay.state.users) == ["eve"]

    def test_ten_thousand_events_of_one_user_in_one_batch_are_each_folded_once_and_bounded(self) -> None:
        kinds = ("click", "impression", "dwell", "follow", "like")
        log: list[Op] = [published(article_id) for article_id in ARTICLES]
        log += [record(i, kinds[i % 5], f"a{i % 5}", hours=i / 1000, event_id=f"e{i}") for i in range(10_000)]
        whole, cut = Replay(WIDE).run(log), Replay(WIDE).run(log, range(0, 10_000, 999))
        assert whole.state.totals.folded == whole.state.users["ann"].folded == 10_000
        assert integers(whole.state) == integers(cut.state)
        assert_same_vectors(whole.state, cut.state)
        assert len(encode_user(whole.state.users["ann"])) < 10_000

    def test_a_restored_state_knows_who_was_away_longest(self) -> None:
        replay = Replay(FoldLimits(user_ttl_ms=DAY), restoring=True)
        replay.run([published("a0"), record(0), record(1, user="bob"), record(2, hours=1)], cuts=[3])
        assert list(replay.state.users) == ["bob", "ann"]

    def test_a_waiting_event_that_is_refused_by_now_is_a_dead_letter_not_a_crash(self) -> None:
        replay = Replay()
        waiting = (Waiting("a0", 5, START, b'{"kind":"click"}'),)
        user = UserRecord(bytes(4 * MODEL.state_size), windows=Windows(waiting=waiting))
        replay.state.put("ann", user)
        replay.state.totals.read = replay.state.totals.waiting = 1
        replay.run([published("a0")])
        assert [(d.waited.offset, d.error.reason) for d in replay.dropped] == [(5, "wrong_shape")]
        assert isinstance(replay.dropped[0].error, BadRecord)
        assert replay.state.totals.dead == 1


class TestTime:
    """An event's time is ``at``, never later than its record's timestamp; what is late weighs as if in time."""

    def test_a_time_in_the_future_counts_as_the_records_timestamp(self) -> None:
        now, later = (list[Op]([published("a0"), record(0, at_hours=hours)]) for hours in (0.0, 400 * 24.0))
        assert integers(Replay().run(later).state) == integers(Replay().run(now).state)
        assert Replay().run(later).state.users["ann"].at == START

    @few
    @given(logs(kinds=("click", "dwell", "like", "dislike", "share"), gaps=(0,), event_ids=("",), changes=False,
                bad=False, known=ARTICLES), st.randoms(use_true_random=False))  # fmt: skip
    def test_order_changes_no_vector(self, ops: list[Op], random: object) -> None:
        places = [op for op in ops if isinstance(op, Record)]
        shuffled = [op.event for op in places]
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        moved = [Record(op.offset, op.timestamp, event) for op, event in zip(places, shuffled, strict=True)]
        one = Replay(WIDE).run(ops).state
        other = Replay(WIDE).run([op for op in ops if isinstance(op, Change)] + moved).state
        assert_same_vectors(other, one)
        assert other.totals.folded == one.totals.folded
        for user_id, user in one.users.items():
            assert set(hashes(other.users[user_id].windows.read)) == set(hashes(user.windows.read))
            assert (other.users[user_id].at, other.users[user_id].folded) == (user.at, user.folded)

    def test_a_late_click_weighs_as_if_it_had_come_in_time(self) -> None:
        early, late = record(0, article_id="a0", hours=9, at_hours=1), record(0, article_id="a1", hours=9, at_hours=5)
        known: list[Op] = [published("a0"), published("a1")]
        in_time, reversed_ = (
            Replay().run([*known, Record(1, *rest(first)), Record(2, *rest(second))]).state.users["ann"]
            for first, second in ((early, late), (late, early))
        )
        assert_close(reversed_.vector, in_time.vector)
        four_hours_long, four_hours_short = 0.5 ** (4 / 48), 0.5 ** (4 / 2)
        expected = [
            *(unit_vector(0) * four_hours_long + unit_vector(1)),
            *(unit_vector(0) * four_hours_short + unit_vector(1)),
        ]
        assert_close(in_time.vector, expected)

    def test_a_click_that_waited_weighs_by_its_own_time(self) -> None:
        waited = Replay().run(
            [record(0, hours=0), published("a0"), published("a1"), record(1, article_id="a1", hours=6)]
        )
        in_time = Replay().run([published("a0"), published("a1"), record(0), record(1, article_id="a1", hours=6)])
        assert_close(waited.state.users["ann"].vector, in_time.state.users["ann"].vector)

    def test_what_waited_for_several_articles_folds_in_the_order_it_came(self) -> None:
        replay = Replay().run([record(0, article_id="a1"), record(1, article_id="a0")])
        replay.take([published("a0"), published("a1")])
        assert hashes(replay.state.users["ann"].windows.read) == [hash64("a1"), hash64("a0")]


def rest(of: Record) -> tuple[int, Event | None]:
    return of.timestamp, of.event


class TestArticles:
    def test_a_changed_text_changes_later_folds_only(self) -> None:
        replay = Replay().run([published("a0"), record(0), published("a0", version=1), record(1)])
        assert_close(replay.state.users["ann"].vector[:4], unit_vector(0) + unit_vector(100))

    @pytest.mark.parametrize("gone", [[published("a0"), Change("a0", None)], [published("a0", expires_at=START)]])
    def test_a_click_on_what_is_withdrawn_or_expired_counts_and_moves_nothing(self, gone: list[Op]) -> None:
        replay = Replay().run([*gone, record(0)])
        assert replay.state.totals.folded == 1
        assert not replay.state.users["ann"].vector.any()
        assert hashes(replay.state.users["ann"].windows.read) == [hash64("a0")]

    def test_a_withdrawal_ends_the_wait_and_the_statistics(self) -> None:
        replay = Replay().run([published("a1"), record(0, article_id="a1"), record(1)])
        assert list(replay.state.stats) == ["a1"]
        replay.run([Change("a0", None), Change("a1", None)])
        assert (replay.state.totals.folded, replay.state.totals.waiting, replay.state.stats) == (2, 0, {})


class TestCauses:
    """The oldest record that asks for a ranking; impressions and dwells ask for none."""

    @staticmethod
    def cause(ops: list[Op]) -> Cause | None:
        return Replay().run(ops).state.users["ann"].windows.cause

    def test_the_first_event_of_a_batch_that_asks(self) -> None:
        ops: list[Op] = [
            published("a0"), record(0, "dwell", dwell_ms=9), record(1, event_id="x", hours=1), record(2, hours=2),
        ]  # fmt: skip
        assert self.cause(ops) == Cause(kind="event", id="x", at=START + HOUR)

    def test_an_article_that_was_waited_for(self) -> None:
        ops: list[Op] = [record(0), published("a0", cause_at=START + 5)]
        assert self.cause(ops) == Cause(kind="article", id="a0", at=START + 5)

    @pytest.mark.parametrize("ops", [
        [published("a0"), record(0, "dwell", dwell_ms=9)],
        [record(0, "dwell", dwell_ms=9), published("a0")],
        [record(0), Change("a0", None)],
        [published("a0"), record(0, event_id="e"), published("a1"), record(1, event_id="e")],
    ])  # fmt: skip
    def test_what_changes_no_list_asks_for_none(self, ops: list[Op]) -> None:
        assert self.cause(ops) is None

    def test_a_restart_in_the_same_batch_keeps_it(self) -> None:
        ops: list[Op] = [published("a0"), record(0, event_id="x"), record(1, "dwell", hours=11 * 24, dwell_ms=9)]
        assert self.cause(ops) == Cause(kind="event", id="x", at=START)
