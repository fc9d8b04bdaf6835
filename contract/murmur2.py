"""Kafka's murmur2: the partition that the Java client's default partitioner gives a key."""

from __future__ import annotations

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Return the unsigned 32-bit MurmurHash2 of ``key`` with Kafka's seed.

    The same as ``org.apache.kafka.common.utils.Utils.murmur2`` read as unsigned.
    """
    length = len(key)
    digest = (_SEED ^ length) & _MASK
    whole = length & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        k ^= k >> 24
        digest = (digest * _M & _MASK) ^ (k * _M & _MASK)
    if whole != length:
        digest ^= int.from_bytes(key[whole:], "little")
        digest = digest * _M & _MASK
    digest ^= digest >> 13
    digest = digest * _M & _MASK
    return digest ^ digest >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of ``key`` among ``partitions``, as ``murmur2_random`` chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
