"""Sums that halve with time, by key, as exact as if every addition had been made one by one."""

from __future__ import annotations

import struct
from math import ldexp

from contract.records import CoReads

FORGOTTEN = 10
LEAST = 2.0**-FORGOTTEN


class DecayedSums:
    """Float sums by 64-bit key, as of ``epoch``, the half-life in which the newest addition lies.

    An addition counts 2^((its time - the epoch's beginning) / half-life), so it need not be touched as
    time goes by, and going to another epoch is a shift of exponents, which loses nothing.
    """

    __slots__ = ("epoch", "sums")

    def __init__(self, epoch: int = -(1 << 62), sums: dict[int, float] | None = None) -> None:
        self.epoch = epoch
        self.sums = {} if sums is None else sums

    def copy(self) -> DecayedSums:
        return DecayedSums(self.epoch, dict(self.sums))

    def add(self, key: int, at: int, weight: float, half_life_ms: int, capacity: int) -> None:
        """Add ``weight`` as of ``at`` (epoch ms). Past ``capacity`` the least goes, of equals the older.

        What is ten half-lives older than the newest is not kept.
        """
        epoch, rest = divmod(at, half_life_ms)
        if epoch > self.epoch:
            shift = max(self.epoch - epoch, -2000)
            shifted = ((k, ldexp(s, shift)) for k, s in self.sums.items())
            self.sums = {k: s for k, s in shifted if abs(s) >= LEAST}
            self.epoch = epoch
        elif epoch < self.epoch - FORGOTTEN:
            return
        sums = self.sums
        sums[key] = sums.get(key, 0.0) + ldexp(weight * 2.0 ** (rest / half_life_ms), epoch - self.epoch)
        if len(sums) > capacity:
            positive = min(sums.values()) >= 0
            del sums[min(sums, key=sums.__getitem__ if positive else lambda k: abs(sums[k]))]

    def to_co_reads(self, half_life_ms: int) -> CoReads:
        count = len(self.sums)
        return CoReads(
            at=self.epoch * half_life_ms,
            articles=struct.pack(f"<{count}Q", *self.sums),
            weights=struct.pack(f"<{count}d", *self.sums.values()),
        )

    @classmethod
    def of(cls, record: CoReads, half_life_ms: int) -> DecayedSums:
        count = len(record.articles) // 8
        sums = zip(
            struct.unpack(f"<{count}Q", record.articles), struct.unpack(f"<{count}d", record.weights), strict=True
        )
        return cls(record.at // half_life_ms, dict(sums))

    def pairs(self) -> bytes:
        """The sums as pairs of uint64 key and float64, in their order."""
        flat = [x for pair in self.sums.items() for x in pair]
        return struct.pack("<" + "Qd" * len(self.sums), *flat)

    @classmethod
    def of_pairs(cls, epoch: int, pairs: bytes) -> DecayedSums:
        return cls(epoch, dict(struct.iter_unpack("<Qd", pairs)))
