"""The interest model ``decay``: taking events at once is taking them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.decay import Decay

HOUR = 3_600_000
DIMS = 3
MODEL = Decay(dims=DIMS, long_half_life_ms=48 * HOUR, short_half_life_ms=2 * HOUR)
Event = tuple[int, int, int, float]
"""User, time, article, weight."""


def step_by_step(
    states: NDArray[np.float32], times: list[int], articles: NDArray[np.float32], events: list[Event]
) -> list[int]:
    """Take the events into ``states`` one after the other; return the states' times."""
    times = list(times)
    for user, at, article, weight in events:
        newest = max(times[user], at)
        event = np.array([[newest - times[user], newest - at, weight]], np.float64)
        states[user] = MODEL.step(states[user : user + 1], articles[article : article + 1], event)[0]
        times[user] = newest
    return times


events = st.tuples(
    st.integers(0, 2), st.integers(0, 400).map(lambda hours: hours * HOUR), st.integers(0, 4),
    st.sampled_from((1.0, 2.0, -1.0, 0.25)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(events, min_size=1, max_size=30), st.lists(st.integers(0, 100 * HOUR), min_size=3, max_size=3))
def test_a_fold_is_the_steps_in_any_order(taken: list[Event], times: list[int]) -> None:
    draw = np.random.default_rng(7)
    articles = draw.standard_normal((5, DIMS)).astype(np.float32)
    before = draw.standard_normal((3, MODEL.state_size)).astype(np.float32)
    stepped = before.copy()
    ends = step_by_step(stepped, times, articles, taken)
    backwards = before.copy()
    assert step_by_step(backwards, times, articles, taken[::-1]) == ends
    folded = MODEL.fold(
        before,
        np.array([end - time for end, time in zip(ends, times, strict=True)], np.float64),
        np.array([user for user, _, _, _ in taken], np.intp),
        articles[[article for _, _, article, _ in taken]],
        np.array([ends[user] - at for user, at, _, _ in taken], np.float64),
        np.array([weight for _, _, _, weight in taken], np.float64),
    )
    assert folded.dtype == np.float32
    assert folded == pytest.approx(stepped, rel=1e-4, abs=1e-4)
    assert folded == pytest.approx(backwards, rel=1e-4, abs=1e-4)


def test_each_half_forgets_at_its_own_half_life() -> None:
    """By hand: a state of ones, 2 hours on, takes an event of weight 2 that is 4 hours old."""
    state = np.ones((1, 6), np.float32)
    article = np.array([[1, 0, -1]], np.float32)
    moved = MODEL.step(state, article, np.array([[2 * HOUR, 4 * HOUR, 2.0]]))
    kept, added = 2 ** (-2 / 48), 2 * 2 ** (-4 / 48)
    assert moved[0, :3] == pytest.approx([kept + added, kept, kept - added])
    assert moved[0, 3:] == pytest.approx([0.5 + 0.5, 0.5, 0.5 - 0.5])


def test_what_came_late_weighs_as_if_it_had_come_in_time() -> None:
    articles = np.eye(DIMS, dtype=np.float32)
    in_time, late = np.zeros((2, 1, 6), np.float32)
    step_by_step(in_time, [0], articles, [(0, 10 * HOUR, 0, 1.0), (0, 20 * HOUR, 1, 1.0)])
    step_by_step(late, [0], articles, [(0, 20 * HOUR, 1, 1.0), (0, 10 * HOUR, 0, 1.0)])
    assert late == pytest.approx(in_time)


def test_queries_have_length_one_and_nothing_stays_nothing() -> None:
    state = np.array([[3, 0, 4, 0, 0, 0], [0, 0, 0, 0, -2, 0]], np.float32)
    queries = MODEL.query(state)
    assert queries.shape == (2, 2, DIMS)
    assert queries.tolist() == [[[pytest.approx(0.6), 0, pytest.approx(0.8)], [0, 0, 0]], [[0, 0, 0], [0, -1, 0]]]


def test_a_state_of_long_ago_fades_without_becoming_anything_else() -> None:
    state = np.ones((1, 6), np.float32)
    faded = MODEL.step(state, np.zeros((1, 3), np.float32), np.array([[1e15, 0.0, 1.0]]))
    assert not faded.any()
    assert np.isfinite(MODEL.query(faded)).all()


def test_whatever_defines_the_states_is_in_the_manifest() -> None:
    others = [Decay(DIMS + 1, 48 * HOUR, 2 * HOUR), Decay(DIMS, 47 * HOUR, 2 * HOUR), Decay(DIMS, 48 * HOUR, HOUR)]
    assert len({str(model.manifest()) for model in [MODEL, *others]}) == 4
