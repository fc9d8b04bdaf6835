"""The hashes of the contract, computed anew: nothing of the worker's own code."""

from __future__ import annotations

import hashlib

import numpy as np


def place_hash(partition: int, offset: int) -> int:
    """splitmix64 of the place of a record."""
    x = ((partition << 48 ^ offset) + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def id_hash(text: str) -> int:
    """The 64-bit BLAKE2b in whose form windows keep ids."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hashes(window: bytes) -> list[int]:
    """The hashes in a window, oldest first."""
    return [int(number) for number in np.frombuffer(window, "<u8")]
