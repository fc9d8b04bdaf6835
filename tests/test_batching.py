"""Batches: small and quick while little comes, large where the worker is behind."""

from __future__ import annotations

from consumers.batching import Batching

MOST, SECONDS = 5000, 0.02


def test_what_comes_alone_is_not_kept_waiting_for_more() -> None:
    batching = Batching(MOST, SECONDS)
    for _ in range(10):
        batching.note(1, 0.015)
        assert batching.expected == 1


def test_who_is_behind_takes_ever_larger_batches_up_to_the_most() -> None:
    batching = Batching(MOST, SECONDS)
    sizes = []
    for _ in range(8):
        sizes.append(batching.expected)
        batching.note(batching.expected, 0.001)
    assert sizes == [1, 4, 16, 64, 256, 1024, 4096, 5000]


def test_a_batch_that_did_not_fill_is_the_measure_of_the_next() -> None:
    batching = Batching(MOST, SECONDS)
    for count, seconds in ((1, 0.0), (4, 0.0), (16, 0.0), (40, 0.02)):
        batching.note(count, seconds)
    assert batching.expected == 40
    batching.note(0, 0.02)
    assert batching.expected == 1
