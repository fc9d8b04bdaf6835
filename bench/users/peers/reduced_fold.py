"""The fold of bench/fold.md, event by event: what the other Python stream processors run. numpy only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DIMS = 96
HALF_LIFE_MS = 2 * 3_600_000.0
MASK = (1 << 64) - 1


def read_articles(path: Path) -> dict[str, np.ndarray]:
    """Return each article's vector, float32 [96], by its id."""
    vectors = np.fromfile(path, "<f4").reshape(-1, DIMS)
    return {f"article-{number:05d}": vector for number, vector in enumerate(vectors)}


def splitmix64(value: int) -> int:
    z = value + 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def fold(before: bytes | None, value: bytes, partition: int, offset: int, articles: dict[str, np.ndarray]) -> bytes:
    """Return the state after one more event."""
    event = json.loads(value)
    event_at, article = event["at"], articles[event["article_id"]]
    at, folded, hash_sum = 0, 0, 0
    total = np.zeros(DIMS, np.float32)
    if before is not None:
        at, folded, hash_sum = (int.from_bytes(before[start : start + 8], "little") for start in (0, 8, 16))
        total = np.frombuffer(before, "<f4", DIMS, 32)
    newest = max(at, event_at)
    kept = np.float32(2.0 ** ((at - newest) / HALF_LIFE_MS))
    added = np.float32(2.0 ** ((event_at - newest) / HALF_LIFE_MS))
    numbers = (newest, folded + 1, hash_sum + splitmix64(partition << 48 ^ offset) & MASK, offset)
    return b"".join(n.to_bytes(8, "little") for n in numbers) + (total * kept + article * added).tobytes()
