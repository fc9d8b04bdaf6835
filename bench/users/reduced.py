"""The reduced record of bench/fold.md: its bytes, its events, and a reference that folds them one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMS = 96
ARTICLES = 5_000
HALF_LIFE_MS = 2 * 3_600_000.0
LARGEST = 1e-3
START_MS = 1_764_000_000_000
STATE = np.dtype(
    [("at", "<i8"), ("folded", "<i8"), ("hash_sum", "<u8"), ("last_offset", "<i8"), ("sum", "<f4", (DIMS,))]
)


@dataclass(frozen=True)
class Events:
    """Who clicked what when: int64 [n] each; ``at`` in epoch ms."""

    user: NDArray[np.int64]
    article: NDArray[np.int64]
    at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each event's record."""
        numbers = zip(self.user.tolist(), self.article.tolist(), self.at.tolist(), strict=True)
        for number, (user, article, at) in enumerate(numbers):
            yield (
                b"user-%07d" % user,
                b'{"user_id":"user-%07d","kind":"click","at":%d,"event_id":"%016x","article_id":"article-%05d",'
                b'"list_id":"%016x","position":%d}' % (user, at, number, article, user * 7919 + article, number % 20),
            )


def make_events(count: int, users: int, *, seed: int = 1) -> Events:
    """Draw ``count`` events: users and articles by Zipf's law with s = 1, times that mostly rise."""
    draw = np.random.default_rng(seed)
    at = START_MS + np.arange(count, dtype=np.int64) * 5 + np.where(draw.random(count) < 0.1, -60_000, 0)
    return Events(_zipf(draw, users, count), _zipf(draw, ARTICLES, count), at)


def uniform_events(count: int, users: int, *, seed: int = 4) -> Events:
    """Draw ``count`` events with every user as likely as the other."""
    draw = np.random.default_rng(seed)
    at = START_MS + np.arange(count, dtype=np.int64) * 5
    return Events(draw.integers(0, users, count), _zipf(draw, ARTICLES, count), at)


def _zipf(draw: np.random.Generator, size: int, count: int) -> NDArray[np.int64]:
    weights = np.cumsum(1.0 / np.arange(1, size + 1))
    drawn: NDArray[np.int64] = np.searchsorted(weights, draw.random(count) * weights[-1]).astype(np.int64)
    order: NDArray[np.int64] = draw.permutation(size)
    return order[drawn]


def write_articles(path: Path) -> NDArray[np.float32]:
    """Draw the articles' unit vectors, float32 [ARTICLES, DIMS], and write them to ``path``."""
    vectors = np.random.default_rng(7).standard_normal((ARTICLES, DIMS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors.astype("<f4").tofile(path)
    return vectors


def splitmix64(partitions: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the hash of each record's place, uint64 [n], modulo 2^64."""
    z = ((partitions << 48) ^ offsets).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return hashed


@dataclass
class Reference:
    """States folded in float64, one event after the other, by user number."""

    users: NDArray[np.int64]
    at: NDArray[np.int64]
    folded: NDArray[np.int64]
    hash_sum: NDArray[np.uint64]
    last_offset: NDArray[np.int64]
    sums: NDArray[np.float64]


def fold_one_by_one(
    events: Events,
    hashes: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    articles: NDArray[np.float32],
    half_life_ms: float = HALF_LIFE_MS,
) -> Reference:
    """Fold all events by the formula of bench/fold.md; ``hashes`` and ``offsets`` [n] are of their records."""
    size = int(events.user.max()) + 1
    at = np.zeros(size, np.int64)
    folded = np.zeros(size, np.int64)
    hash_sum = np.zeros(size, np.uint64)
    last = np.full(size, -1, np.int64)
    sums = np.zeros((size, DIMS))
    exact = articles.astype(np.float64)
    # Users are independent: the n-th event of every user is folded at once.
    order = np.argsort(events.user, kind="stable")
    starts = np.flatnonzero(np.diff(events.user[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(order)))
    for nth in range(int(lengths.max())):
        active = starts[lengths > nth] + nth
        event = order[active]
        user, time = events.user[event], events.at[event]
        newest = np.where(folded[user] == 0, time, np.maximum(at[user], time))
        kept = np.where(folded[user] == 0, 0.0, np.exp2((at[user] - newest) / half_life_ms))
        sums[user] = (
            sums[user] * kept[:, None] + exact[events.article[event]] * np.exp2((time - newest) / half_life_ms)[:, None]
        )
        at[user] = newest
        folded[user] += 1
        hash_sum[user] += hashes[event]
        last[user] = offsets[event]
    present = np.flatnonzero(folded)
    return Reference(present, at[present], folded[present], hash_sum[present], last[present], sums[present])


def worst_error(reference: Reference, states: dict[bytes, bytes]) -> float:
    """Return the largest relative error of a sum in ``states`` (changelog values by key).

    Raises ``ValueError`` that says what differs where anything else is not equal, or an error exceeds :data:`LARGEST`.
    """
    keys = [b"user-%07d" % user for user in reference.users.tolist()]
    missing = sum(key not in states for key in keys)
    if missing or len(states) != len(keys):
        raise ValueError(f"{missing} users are missing, {len(states) - len(keys) + missing} are too many")
    found = np.frombuffer(b"".join(states[key] for key in keys), STATE)
    for name in ("at", "folded", "hash_sum", "last_offset"):
        wrong = int((found[name] != getattr(reference, name)).sum())
        if wrong:
            raise ValueError(f"{name} is wrong for {wrong} users")
    scale = np.abs(reference.sums).max(axis=1, keepdims=True)
    worst = float((np.abs(found["sum"] - reference.sums) / scale).max())
    if not worst <= LARGEST:
        raise ValueError(f"a sum is off by {worst:.1e} relative")
    return worst
