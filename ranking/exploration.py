"""A place now and then for an article that few have seen, so that it can show what it is worth.

Which of them a user is shown is drawn with probability proportional to exp(score), by the Gumbel-max
trick: the largest of score + luck, where the luck comes from a hash of user, article and day. So a ranking done
again draws the same, and another article takes the place only by its own luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
Hashes = NDArray[np.uint64]
DAY_MS = 24 * 3_600_000
TODAY, WHERE, HOLDOUT = (np.uint64(number) for number in (1, 2, 3))


@dataclass(frozen=True)
class Drawn:
    """For each of u users the column of what was drawn (-1: nothing), its probability, lot and place in the list."""

    columns: Places
    propensities: Floats
    lots: Floats
    slots: Places


def draw(
    scores: Floats, hashes: Hashes, candidates: NDArray[np.bool_], seeds: Hashes, shares: Floats, length: int,
    now_ms: int,
) -> Drawn:  # fmt: skip
    """Draw among ``candidates`` [u, c] with ``scores`` and article ``hashes`` [u, c] for users of ``seeds`` [u].

    ``shares`` [u] is the share of places to explore: as many lists have one as make it up.
    """
    users = np.arange(len(seeds))
    slots = places_to_explore(seeds, shares, length, now_ms)
    some = candidates.any(axis=1) & (slots >= 0) if candidates.shape[1] else np.zeros(len(seeds), np.bool_)
    nothing = Drawn(
        np.full(len(seeds), -1, np.intp), np.full(len(seeds), np.nan, np.float32),
        np.full(len(seeds), -np.inf, np.float32), np.where(some, slots, -1),
    )  # fmt: skip
    if not some.any():
        return nothing
    odds = np.where(candidates, scores, np.float32(-np.inf))
    lots = odds + luck(seeds[:, None], hashes, now_ms)
    columns = lots.argmax(axis=1)
    highest = odds.max(axis=1, initial=-np.inf, keepdims=True)
    weights = np.exp(odds - np.where(np.isfinite(highest), highest, 0))
    propensities = weights[users, columns] / np.maximum(weights.sum(axis=1), 1e-30)
    return Drawn(
        np.where(some, columns, -1),
        np.where(some, propensities, np.nan).astype(np.float32),
        np.where(some, lots[users, columns], -np.inf).astype(np.float32),
        np.where(some, slots, -1),
    )


def places_to_explore(seeds: Hashes, shares: Floats, length: int, now_ms: int) -> Places:
    """Return the place in each user's list that is given to exploring today, -1 where none is; in the upper half."""
    day = now_ms // DAY_MS
    first, last = first_and_last_place(length)
    slots = first + (uniforms(seeds, WHERE, day) * (last - first)).astype(np.intp)
    return np.where(uniforms(seeds, TODAY, day) < shares * length, slots, -1)


def first_and_last_place(length: int) -> tuple[int, int]:
    """Return between which places of a list exploring happens, the second not included."""
    return length // 6, max(1, length // 2)


def luck(seeds: Hashes, hashes: Hashes, now_ms: int) -> Floats:
    """Return the Gumbel-distributed luck of articles with users today; shapes broadcast."""
    lots: Floats = (-np.log(-np.log(uniforms(seeds, hashes, now_ms // DAY_MS)))).astype(np.float32)
    return lots


def uniforms(seeds: Hashes, salts: Hashes | np.uint64, day: int) -> NDArray[np.float64]:
    """Return numbers between 0 and 1 (neither), the same for the same user, salt and day; shapes broadcast."""
    today = np.uint64(day * 0x9E3779B97F4A7C15 % (1 << 64))
    x = _mixed(seeds ^ _mixed(np.asarray(salts, np.uint64) ^ today))
    numbers: NDArray[np.float64] = ((x >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return numbers


def uniform(seed: int, salt: np.uint64) -> float:
    """Return one such number that is the same every day."""
    return float(uniforms(np.array([seed], np.uint64), salt, 0)[0])


def _mixed(x: Hashes) -> Hashes:
    """The finish of SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):  # it is meant to
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = x ^ (x >> np.uint64(31))
    return mixed
