"""What events weigh, what counts in statistics and how often, and what is read next."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from contract.messages import Event, ShownItem
from contract.records import ArticleStats
from encoders.articles import hash64
from encoders.decayed import DecayedSums
from encoders.fold_rules import CO_READS_HALF_LIFE_MS, IMPRESSION_WEIGHT, STATS_HALF_LIFE_MS, FoldLimits
from encoders.windows import find
from tests.replay import Replay, hashes
from tests.strategies import DAY, HOUR, MODEL, START, Change, Op, Record, published, unit_vector

MINUTE = 60_000
WIDE = FoldLimits(waiting_ms=10_000 * DAY, user_ttl_ms=10_000 * DAY)
KNOWN: list[Op] = [published(f"a{i}") for i in range(10)]


def act(kind: str, article_id: str = "", *, user: str = "ann", at: int = START, **fields: Any) -> Event:
    return Event(user_id=user, kind=kind, at=at, article_id=article_id, **fields)  # type: ignore[arg-type]


def seen(*article_ids: str, user: str = "ann", at: int = START, **fields: Any) -> Event:
    shown = [ShownItem(article_id=article_id, **fields) for article_id in article_ids]
    return Event(user_id=user, kind="impression", at=at, shown=shown)


def after(*events: Event, limits: FoldLimits = WIDE) -> Replay:
    """All articles known, then these events, each record as of its event's time."""
    return Replay(limits).run([*KNOWN, *(Record(i, event.at, event) for i, event in enumerate(events))])


def stats_of(replay: Replay, key: str) -> tuple[float, float]:
    """Impressions and clicks as of START."""
    stats = replay.state.stats.get(key, ArticleStats(START, 0.0, 0.0))
    kept = 0.5 ** ((START - stats.at) / STATS_HALF_LIFE_MS)
    return stats.impressions * kept, stats.clicks * kept


class TestWeights:
    @pytest.mark.parametrize(("kind", "fields", "weight"), [
        ("click", {}, 1.0), ("like", {}, 2.0), ("share", {}, 2.0), ("dislike", {}, -1.0),
        ("dwell", {"dwell_ms": 30_000}, 0.25), ("dwell", {"dwell_ms": 3_600_000}, 0.5), ("dwell", {"dwell_ms": 0}, 0.0),
        ("follow", {"target": "x"}, 1.0), ("mute", {"target": "x"}, -1.0),
    ])  # fmt: skip
    def test_each_kind_has_its_own(self, kind: str, fields: dict[str, Any], weight: float) -> None:
        vector = after(act(kind, "a0", **fields)).state.users["ann"].vector
        np.testing.assert_allclose(vector, np.tile(weight * unit_vector(0), 2), rtol=1e-6, atol=1e-9)

    def test_a_list_left_alone_speaks_against_what_was_in_it_and_a_click_outweighs_twenty(self) -> None:
        left_alone = after(*[seen("a0")] * 20).state.users["ann"].vector
        np.testing.assert_allclose(left_alone, np.tile(20 * IMPRESSION_WEIGHT * unit_vector(0), 2), rtol=1e-5)
        clicked = after(*[seen("a0")] * 20, act("click", "a0")).state.users["ann"].vector
        assert clicked[:4] @ unit_vector(0) > 0.5

    def test_a_batch_is_exactly_its_events_one_by_one(self) -> None:
        """fold = step: the product over a batch against the model's step of each event."""
        random = np.random.default_rng(7)
        articles = random.integers(0, 10, 200)
        events = [act("click", f"a{n}", at=START + int(random.integers(0, 9 * HOUR))) for n in articles]
        folded = after(*events).state.users["ann"]
        state, at = np.zeros((1, MODEL.state_size), np.float32), 0
        for event, n in zip(events, articles, strict=True):
            newest = max(at, event.at)
            times = np.array([[newest - at, newest - event.at, 1.0]])
            state, at = MODEL.step(state, unit_vector(int(n))[None], times), newest
        np.testing.assert_allclose(folded.vector, state[0], rtol=1e-4)

    def test_what_had_expired_when_it_happened_speaks_neither_for_nor_against_anything(self) -> None:
        expired: list[Op] = [published("a0", expires_at=START)]
        events = act("click", "a0"), act("follow", "a0", target="x"), seen("a0")
        replay = Replay(WIDE).run([*expired, *(Record(i, START, event) for i, event in enumerate(events))])
        user = replay.state.users["ann"]
        assert not user.vector.any()
        assert user.windows.affinities == b""
        assert hashes(user.windows.read) == hashes(user.windows.shown) == [hash64("a0")]

    def test_categories_gain_and_lose_by_what_is_done_with_their_articles(self) -> None:
        windows = after(act("click", "a0"), act("like", "a1"), act("dislike", "a2")).state.users["ann"].windows
        affinities = dict(struct.iter_unpack("<Qd", windows.affinities))
        assert affinities[hash64("x")] == pytest.approx(-3 * affinities[hash64("y")])
        assert affinities[hash64("y")] < 0


class TestTargets:
    def test_a_mute_ends_a_follow_and_the_other_way_round(self) -> None:
        acts = act("follow", target="x"), act("follow", target="y"), act("mute", target="x")
        windows = after(*acts).state.users["ann"].windows
        assert (windows.follows, windows.mutes) == (("y",), ("x",))

    def test_only_the_newest_are_kept(self) -> None:
        limits = FoldLimits(follows=2)
        windows = after(*(act("follow", target=t) for t in "xyxz"), limits=limits).state.users["ann"].windows
        assert windows.follows == ("x", "z")


class TestOnceAReader:
    def test_an_article_seen_often_and_clicked_twice_counts_once(self) -> None:
        replay = after(seen("a0"), seen("a0", "a1"), act("click", "a0"), act("click", "a0"))
        assert stats_of(replay, "a0") == pytest.approx((1, 1))
        assert stats_of(replay, "a1") == pytest.approx((1, 0))
        assert list(replay.state.users["ann"].windows.shown_counts) == [2, 1]

    def test_a_click_counts_also_after_a_dwell_on_the_same_article(self) -> None:
        assert stats_of(after(act("dwell", "a0", dwell_ms=5), act("click", "a0")), "a0") == pytest.approx((0, 1))

    def test_each_reader_counts(self) -> None:
        assert stats_of(after(*(act("click", "a0", user=f"u{i}") for i in range(5))), "a0") == pytest.approx((0, 5))

    def test_the_same_article_twice_in_an_impression_is_shown_once(self) -> None:
        replay = after(seen("a0", "a1", "a0"))
        assert stats_of(replay, "a0") == pytest.approx((1, 0))
        windows = replay.state.users["ann"].windows
        assert (hashes(windows.shown), list(windows.shown_counts)) == ([hash64("a0"), hash64("a1")], [1, 1])

    def test_a_showing_is_counted_up_to_255_times(self) -> None:
        limits = FoldLimits(events_per_minute=1000)
        assert list(after(*[seen("a0")] * 300, limits=limits).state.users["ann"].windows.shown_counts) == [255]


class TestShown:
    """What is shown again becomes the newest of its window, wherever in it it was."""

    def test_several_at_once_in_another_order(self) -> None:
        windows = after(seen("a0", "a1", "a2", "a3", "a4"), seen("a3", "a1", "a5", "a4")).state.users["ann"].windows
        assert hashes(windows.shown) == [hash64(f"a{n}") for n in (0, 2, 3, 1, 5, 4)]
        assert list(windows.shown_counts) == [1, 1, 2, 2, 1, 2]

    def test_the_oldest_goes_where_there_are_too_many(self) -> None:
        windows = after(seen("a0", "a1", "a2"), seen("a1", "a3"), limits=FoldLimits(shown=3)).state.users["ann"].windows
        assert hashes(windows.shown) == [hash64(f"a{n}") for n in (2, 1, 3)]
        assert list(windows.shown_counts) == [1, 2, 1]

    def test_an_entry_is_found_at_its_beginning_only(self) -> None:
        first, second = bytes(range(8)), bytes(range(8, 16))
        assert find(first + second, first[4:] + second[:4]) == -1
        assert find(first[4:] + second[:4] + first + second, second) == 16


class TestRateLimit:
    limits = FoldLimits(events_per_minute=5)

    def test_who_is_too_fast_does_not_count_for_an_hour(self) -> None:
        fast = [act("click", f"a{i % 8}", at=START + i) for i in range(8)]
        late = [act("click", "a8", at=START + 50 * MINUTE), act("click", "a9", at=START + 61 * MINUTE)]
        replay = after(*fast, *late, limits=self.limits)
        counted = {f"a{i}" for i in range(10) if stats_of(replay, f"a{i}")[1] > 0.1}
        assert counted == {"a0", "a1", "a2", "a3", "a4", "a9"}
        assert replay.limited == 4

    def test_their_own_state_takes_all_in(self) -> None:
        replay = after(*(act("click", f"a{i}") for i in range(8)), limits=self.limits)
        assert len(hashes(replay.state.users["ann"].windows.read)) == 8
        assert replay.state.totals.folded == 8

    def test_others_are_not_concerned(self) -> None:
        replay = after(*(act("click", "a0", user=f"u{i}") for i in range(8)), limits=self.limits)
        assert stats_of(replay, "a0") == pytest.approx((0, 8))

    def test_it_goes_by_the_times_of_the_events_so_what_comes_late_in_a_bunch_is_not_too_fast(self) -> None:
        events = [act("click", f"a{i}", at=START + i * MINUTE) for i in range(8)]
        records: list[Op] = [Record(i, START + HOUR, event) for i, event in enumerate(events)]
        replay = Replay(self.limits).run([*KNOWN, *records])
        assert replay.limited == 0

    def test_times_that_are_chosen_far_apart_do_not_help_who_sends_too_much_at_once(self) -> None:
        ids = [f"a{i % 9}" for i in range(20)]
        events = [act("click", article_id, at=START + i * MINUTE) for i, article_id in enumerate(ids)]
        sent_at = START + 3 * HOUR
        records: list[Op] = [Record(i, sent_at + i, event) for i, event in enumerate(events)]
        replay = Replay(FoldLimits(events_per_minute=4)).run([*KNOWN, *records])
        counted = {article_id for article_id in set(ids) if stats_of(replay, article_id)[1] > 0}
        assert counted == {f"a{i}" for i in range(8)}, "twice as many as in a minute of their own"
        assert replay.limited == 12
        after_an_hour = Record(20, sent_at + 61 * MINUTE, act("click", "a9", at=sent_at + 61 * MINUTE))
        later = Replay(FoldLimits(events_per_minute=4)).run([*KNOWN, *records, after_an_hour])
        assert stats_of(later, "a9")[1] > 0

    def test_items_of_an_impression_that_is_too_much_do_not_count(self) -> None:
        replay = after(*[seen("a0")] * 5, seen("a1"), limits=self.limits)
        assert stats_of(replay, "a1") == (0, 0)
        assert replay.limited == 1


class TestBreakdown:
    def test_by_position_in_buckets(self) -> None:
        shown = [seen("a0", user=f"u{p}", position=p) for p in (0, 1, 2, 3, 4, 5, 9, 10, 19, 99, -1)]
        stats = after(*shown, act("click", "a0", user="u9", position=9)).state.stats["a0"]
        counts = {low: round(i / stats.impressions * 11) for low, (i, _) in stats.positions.items()}
        assert counts == {0: 1, 1: 1, 2: 1, 3: 2, 5: 2, 10: 2, 20: 1}
        assert [low for low, (_, c) in stats.positions.items() if c] == [5]

    def test_by_reason_and_in_a_record_of_its_own_by_source(self) -> None:
        replay = after(
            seen("a0", "a1", reason="similar", source="co-read"), act("click", "a0", reason="popular", source="popular")
        )
        reasons = replay.state.stats["a0"].reasons
        assert (reasons["similar"][0] > 0, reasons["similar"][1]) == (True, 0)
        assert (reasons["popular"][0], reasons["popular"][1] > 0) == (0, True)
        assert stats_of(replay, "~source/co-read") == pytest.approx((2, 0))
        assert stats_of(replay, "~source/popular") == pytest.approx((0, 1))

    def test_only_so_many_names_are_kept_apart(self) -> None:
        events = [seen("a0", user=f"u{i}", reason=f"r{i}", source="s" * (i + 50)) for i in range(40)]
        replay = after(*events)
        assert len(replay.state.totals.reasons) == 32
        assert len(replay.state.stats["a0"].reasons) == 33
        assert stats_of(replay, "~source/other") == pytest.approx((40 - 15, 0))

    def test_by_the_region_that_the_user_told_last(self) -> None:
        def told(event: Event, region: str) -> Event:
            return msgspec.structs.replace(event, context={"region": region})

        replay = after(
            told(seen("a0", user="ann"), "de-by"), act("click", "a0", user="ann"), seen("a0", user="bob"),
            told(seen("a0", user="eve"), "us_ca"),
        )  # fmt: skip
        one = stats_of(replay, "a0")[1]
        assert stats_of(replay, "a0") == pytest.approx((3 * one, one))
        regions = replay.state.stats["a0"].regions
        assert list(regions) == ["DE-BY", "US-CA"]
        assert regions["DE-BY"] == pytest.approx((regions["US-CA"][0], regions["US-CA"][0]))
        assert regions["US-CA"] == pytest.approx((replay.state.stats["a0"].clicks, 0))

    def test_only_so_many_regions_are_kept_apart(self) -> None:
        events = [msgspec.structs.replace(seen("a0", user=f"u{i}"), context={"region": f"R{i}"}) for i in range(40)]
        replay = after(*events)
        assert len(replay.state.totals.regions) == 32
        assert len(replay.state.stats["a0"].regions) == 33
        stats = replay.state.stats["a0"]
        assert stats.regions["other"] == pytest.approx((8 / 40 * stats.impressions, 0))

    def test_a_withdrawn_articles_counts_go_and_the_sources_stay(self) -> None:
        replay = after(act("click", "a0", source="popular"), act("click", "a1"))
        replay.run([Change("a0", None)])
        assert sorted(replay.state.stats) == ["a1", "~source/popular"]
        assert "a0" not in replay.state.co_reads


class TestCoReads:
    @staticmethod
    def weights(replay: Replay, article_id: str) -> dict[int, Any]:
        """What was read after an article, as of START."""
        sums = replay.state.co_reads.get(article_id, DecayedSums())
        kept = 0.5 ** ((START - sums.epoch * CO_READS_HALF_LIFE_MS) / CO_READS_HALF_LIFE_MS)
        return {key: pytest.approx(weight * kept) for key, weight in sums.sums.items()}

    def test_the_last_three_articles_lead_on_by_their_distance(self) -> None:
        replay = after(*(act("click", f"a{i}") for i in (0, 1, 2, 2, 3, 4)))
        assert self.weights(replay, "a3") == {hash64("a4"): 1}
        assert self.weights(replay, "a2") == {hash64("a3"): 1, hash64("a4"): 1 / 2}
        assert self.weights(replay, "a1") == {hash64("a2"): 1, hash64("a3"): 1 / 2, hash64("a4"): 1 / 3}
        assert self.weights(replay, "a0") == {hash64("a1"): 1, hash64("a2"): 1 / 2, hash64("a3"): 1 / 3}

    def test_what_was_read_more_than_an_hour_before_or_happened_later_leads_nowhere(self) -> None:
        replay = Replay(WIDE).run([*KNOWN, *(
            Record(i, START + DAY, act("click", article_id, at=at))
            for i, (article_id, at) in enumerate([("a0", START), ("a1", START + HOUR + 1), ("a2", START + HOUR)])
        )])  # fmt: skip
        assert list(replay.state.co_reads) == ["a0"]
        assert list(replay.state.co_reads["a0"].sums) == [hash64("a2")]

    def test_it_halves_in_eighteen_minutes(self) -> None:
        replay = after(
            act("click", "a0", at=START - 18 * MINUTE), act("click", "a1", at=START - 18 * MINUTE),
            act("click", "a0", user="bob"), act("click", "a2", user="bob"),
        )  # fmt: skip
        assert self.weights(replay, "a0") == {hash64("a1"): 1 / 2, hash64("a2"): 1}

    def test_the_least_goes_where_there_are_too_many(self) -> None:
        events = [
            act("click", article_id, user=user)
            for user, next_ in (("u1", "a1"), ("u2", "a2"), ("u3", "a2"), ("u4", "a3"))
            for article_id in ("a0", next_)
        ]
        replay = after(*events, limits=FoldLimits(co_reads=2))
        assert self.weights(replay, "a0") == {hash64("a2"): 2, hash64("a3"): 1}

    def test_what_faded_is_dropped_and_what_is_too_late_not_taken_in(self) -> None:
        sums = DecayedSums()
        sums.add(1, START, 1.0, CO_READS_HALF_LIFE_MS, 10)
        sums.add(2, START + 11 * CO_READS_HALF_LIFE_MS, 1.0, CO_READS_HALF_LIFE_MS, 10)
        assert list(sums.sums) == [2]
        sums.add(3, START, 1.0, CO_READS_HALF_LIFE_MS, 10)
        assert list(sums.sums) == [2]

    def test_a_bot_leads_nobody_on(self) -> None:
        fast = [act("click", f"a{i}") for i in range(8)]
        assert set(after(*fast, limits=FoldLimits(events_per_minute=2)).state.co_reads) == {"a0"}
