"""The feedback loop: what is clicked now against usual, position bias, and the experiment in short."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from bench import feedback as experiment
from consumers.ranker_counts import GroupCounts, take_stats
from consumers.ranker_feedback import FeedbackLoop
from contract.records import SOURCE_PREFIX, ArticleStats, encode_plain
from ranking.candidates import EDITOR, NEWEST, POPULAR, SIMILAR, SOURCES
from ranking.feedback import STRONGEST, UNCHANGED, Adapted, Feedback, log_ratios
from ranking.ranking import Formula, rank
from ranking.readers import NO_PAST, Readers
from tests.ranker_world import EAST, HOUR, NORTH, NOW, Row, World, clicked, ids
from tests.ranking_world import a_catalogue

POSITIONS = [0, 1, 2, 3, 5, 10]
ATTENTION = np.array([1.0, 0.8, 0.65, 0.55, 0.4, 0.25])
DAY = 24 * HOUR


def stats(
    at: int, shown: float, rate: float, spread: NDArray[np.float64] = ATTENTION, explored: tuple[float, float] = (0, 0)
) -> ArticleStats:
    """A source that was shown ``shown`` times, mostly where ``spread`` says, and is clicked as attention goes."""
    impressions = shown * spread / spread.sum()
    clicks = impressions * ATTENTION * rate
    return ArticleStats(
        at, float(impressions.sum()), float(clicks.sum()),
        positions={p: (float(i), float(c)) for p, i, c in zip(POSITIONS, impressions, clicks, strict=True)},
        reasons={"exploration": explored},
    )  # fmt: skip


def counted(feedback: Feedback, at: int, rates: dict[str, float], shown: float = 20_000) -> None:
    for source, rate in rates.items():
        feedback.put(0, source, stats(at, shown, rate, explored=(2000, 2000 * 0.05)))


def test_who_stands_at_the_head_of_lists_is_not_taken_for_better() -> None:
    """All are clicked alike in the same position, but one stands on top and one at the end."""
    impressions = np.zeros((len(SOURCES), len(POSITIONS)))
    impressions[SIMILAR] = 8000 * ATTENTION[:] ** 3
    impressions[POPULAR] = 8000 * ATTENTION[::-1] ** 3
    clicks = impressions * ATTENTION * 0.1
    rates = clicks.sum(axis=1)[[SIMILAR, POPULAR]] / impressions.sum(axis=1)[[SIMILAR, POPULAR]]
    assert rates[0] > 1.5 * rates[1], "plain click-through rates would mislead"
    inside = impressions[:, 3:5].sum(axis=0)
    same = float((inside * ATTENTION[3:5]).sum() / inside.sum()) * 0.1
    found = log_ratios(impressions, clicks, POSITIONS, np.array([2000.0, 2000 * same]), 20)
    assert found == pytest.approx(np.zeros(len(SOURCES) + 1), abs=1e-9)
    twice = clicks.copy()
    twice[POPULAR] *= 2
    better = log_ratios(impressions, twice, POSITIONS, np.array([2000.0, 2000 * same]), 20)
    assert better[POPULAR] > 0.1 > 0 > better[SIMILAR]
    assert better[EDITOR] == 0, "nothing is known of it"


def test_weights_follow_a_change_and_forget_it_when_it_has_become_usual() -> None:
    feedback = Feedback(6 * HOUR)
    at, adapted = NOW, UNCHANGED
    usual = {"similar": 0.12, "popular": 0.08, "newest": 0.08}
    for _ in range(96):
        counted(feedback, at, usual)
        adapted = feedback.look(20, at)
        at += HOUR
    assert adapted.sources == UNCHANGED.sources, "however much better one is than another"
    assert adapted.exploration == pytest.approx(1)
    counted(feedback, at, {**usual, "similar": 0.06})
    changed = feedback.look(20, at)
    assert changed.sources[SIMILAR] < -0.2
    assert changed.sources[POPULAR] == changed.sources[NEWEST] > 0.2
    assert changed.exploration > 1.1, "the same clicks are worth more where all the others get fewer"
    assert max(map(abs, changed.sources)) <= STRONGEST
    strengths = [changed.sources[POPULAR]]
    for _ in range(10):
        at += DAY
        counted(feedback, at, {**usual, "similar": 0.06})
        strengths.append(feedback.look(20, at).sources[POPULAR])
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[-1] < 0.2 * strengths[0]


def test_few_clicks_other_sources_and_damaged_partitions_change_nothing() -> None:
    feedback = Feedback(6 * HOUR)
    assert feedback.look(20, NOW) == UNCHANGED
    counted(feedback, NOW, {"similar": 0.1}, shown=1000)
    assert feedback.look(20, NOW) == UNCHANGED
    counted(feedback, NOW, {"holdout": 0.5, "newsletter": 0.9, "popular_list": 0.5}, shown=1e6)
    assert feedback.look(20, NOW) == UNCHANGED
    counted(feedback, NOW, {"similar": 0.1, "popular": 0.1})
    for hours in range(3):
        feedback.look(20, NOW + hours * HOUR)
    counted(feedback, NOW + 3 * HOUR, {"popular": 0.3})
    assert feedback.look(20, NOW + 3 * HOUR) != UNCHANGED
    for source in ("similar", "popular"):
        feedback.put(0, source, None)
    assert feedback.look(20, NOW + 4 * HOUR) == UNCHANGED


def test_candidates_gain_by_their_source_in_personal_lists_alone() -> None:
    catalogue = a_catalogue([NORTH, EAST, NORTH, EAST], ages=[20 * HOUR, HOUR, 21 * HOUR, 2 * HOUR])
    readers = Readers.of(
        np.array([[NORTH, NORTH]] * 2, np.float32), [NO_PAST] * 2, confidence=np.ones(2, np.float32),
        personal=np.array([True, False]),
    )  # fmt: skip
    plain = rank(readers, catalogue, Formula(), NOW)
    weights = [0.0] * len(SOURCES)
    weights[SIMILAR] = -1.0
    adapted = rank(readers, catalogue, Formula().adapted(Adapted(tuple(weights), 0.5), 0.05), NOW)
    similar = (plain.sources == SIMILAR) & (plain.places >= 0)
    assert similar[0].any()
    for place in plain.places[0][plain.places[0] >= 0]:
        before = plain.scores[0, plain.places[0] == place][0]
        after = adapted.scores[0, adapted.places[0] == place][0]
        of_similar = bool((plain.sources[0] == SIMILAR)[plain.places[0] == place][0])
        assert after - before == pytest.approx(-1.0 if of_similar else 0.0, abs=1e-5)
    assert np.array_equal(plain.places[1], adapted.places[1]), "those held out stay what they are compared with"
    assert Formula().adapted(Adapted(exploration=0.5), 0.05).rules.exploration == 0.025


@pytest.mark.parametrize("on", [True, False])
def test_the_ranker_ranks_by_it_and_tells_the_weights_unless_it_is_off(on: bool) -> None:
    world = World(feedback=on, list_length=3)
    world.take_articles(world.article("near", NORTH), world.article("far", EAST), world.article("other", EAST))
    groups = GroupCounts(2, 6 * HOUR)
    loop = FeedbackLoop(world.settings, groups.feedback, world.lists)

    def take(rates: dict[str, float]) -> None:
        rows = [Row(SOURCE_PREFIX + s, encode_plain(stats(world.now, 20_000, rate))) for s, rate in rates.items()]
        take_stats(world.popularity, world.regions, groups, rows)
        loop.turn(world.now)

    for _ in range(24):
        take({"similar": 0.1, "newest": 0.1, "popular": 0.1})
        world.later(HOUR)
    world.user("u", NORTH, clicked())
    before = world.published()["u"]
    assert ids(before)[0] == "near"
    world.later(HOUR)
    take({"similar": 0.01, "newest": 0.2, "popular": 0.2})
    weight = REGISTRY.get_sample_value("stoppress_feedback_weight", {"source": "similar"})
    world.user("u", NORTH, clicked())
    after = world.published().get("u")
    if on:
        assert weight == -STRONGEST
        assert ids(after)[0] != "near"
    else:
        assert after is None, "a list that is as it was is not published"


@pytest.mark.timeout(600)  # seconds where nothing else runs
def test_in_short_it_wins_clicks_after_a_change_of_tastes() -> None:
    """One world of the experiment; `make bench-feedback` has twenty, and not in each of them it wins."""
    fixed, adapting = experiment.both(2)
    assert adapting[experiment.CHANGE] > 1.05 * fixed[experiment.CHANGE]
    assert adapting[experiment.STAY] > 0.97 * fixed[experiment.STAY]


def test_differences_of_the_experiment_are_paired() -> None:
    mean, low, high = experiment.paired(np.array([1.0, 2.0, 3.0, 2.0]))
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 1.2992, 2 + 1.2992), abs=1e-3)
