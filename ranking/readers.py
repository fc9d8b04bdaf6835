"""Users as a ranking takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.messages import Device
from contract.records import KIND_BITS, RECENT, Windows

Floats = NDArray[np.float32]
RECENTS = 20
AFFINITY_HALF_LIFE_MS = 30 * 24 * 3_600_000
_RECENT = np.dtype([("article", "<u8"), ("at", "<i8"), ("what", "<u4")])
_AFFINITY = np.dtype([("category", "<u8"), ("weight", "<f8")])


class Past(NamedTuple):
    """What a ranking needs of a user's state beside the vector, as in :class:`contract.records.Windows`."""

    read: bytes = b""
    shown: bytes = b""
    shown_counts: bytes = b""
    recents: bytes = b""
    affinities: bytes = b""
    affinities_at: int = 0
    follows: tuple[str, ...] = ()
    mutes: tuple[str, ...] = ()
    language: str = ""
    region: str = ""
    device: Device = ""

    @classmethod
    def of(cls, windows: Windows) -> Past:
        return cls(*(getattr(windows, name) for name in cls._fields))

    @property
    def confidence(self) -> float:
        """How sure it is what the user likes, 0 to 1: half after one event on an article."""
        events = len(self.recents) // RECENT.size
        return events / (events + 1)


NO_PAST = Past()


@dataclass(frozen=True, eq=False)
class Readers:
    """The users to rank for, u of them: queries float32 [u, 2, d]; confidence [u], 0 to 1; seeds uint64 [u].

    ``personal`` [u]: where it is not, nothing is known (``confidence`` 0) and the list is the popular one, less what
    may not be in this user's.
    ``spread`` [u] is how unsure the interest model is of what they like, 1 as of a stranger; NaN where it does not say.
    No window of a past holds an article twice.
    """

    queries: Floats
    pasts: Sequence[Past]
    confidence: Floats
    seeds: NDArray[np.uint64]
    personal: NDArray[np.bool_]
    spread: Floats

    @classmethod
    def of(
        cls,
        queries: Floats,
        pasts: Sequence[Past],
        *,
        confidence: Floats | None = None,
        seeds: NDArray[np.uint64] | None = None,
        personal: NDArray[np.bool_] | None = None,
        spread: Floats | None = None,
    ) -> Readers:
        """Fill in what is not given: confidence by what was read, no seeds, all personal, spread unknown."""
        u = len(queries)
        personal = np.ones(u, np.bool_) if personal is None else personal
        if confidence is None:
            confidence = np.fromiter((past.confidence for past in pasts), np.float32, u)
        seeds = np.zeros(u, np.uint64) if seeds is None else seeds
        spread = np.full(u, np.nan, np.float32) if spread is None else spread
        return cls(queries, pasts, np.where(personal, confidence, np.float32(0)), seeds, personal, spread)

    def __len__(self) -> int:
        return len(self.queries)

    def some(self, users: slice | NDArray[np.intp]) -> Readers:
        """Return some of the users."""
        numbers = np.arange(len(self))[users]
        return Readers(
            self.queries[users], [self.pasts[u] for u in numbers], self.confidence[users], self.seeds[users],
            self.personal[users], self.spread[users],
        )  # fmt: skip

    @property
    def read(self) -> list[bytes]:
        return [past.read for past in self.pasts]

    @property
    def shown(self) -> list[bytes]:
        return [past.shown for past in self.pasts]

    @property
    def shown_counts(self) -> list[bytes]:
        return [past.shown_counts for past in self.pasts]

    @property
    def follows(self) -> list[tuple[str, ...]]:
        return [past.follows if personal else () for past, personal in zip(self.pasts, self.personal, strict=True)]

    def regions(self, numbers: Mapping[str, int]) -> NDArray[np.intp]:
        """Return the number of each user's region, [u]; 0 where it has none, or the list is not their own."""
        told = (
            numbers.get(past.region, 0) if personal else 0
            for past, personal in zip(self.pasts, self.personal, strict=True)
        )
        return np.fromiter(told, np.intp, len(self))

    def recent_articles(self, most: int) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """Return the last different articles that each user read and did not dislike, at most ``most`` of each.

        Users, in order, and 64-bit hashes, each user's oldest first.
        """
        recents = [past.recents if personal else b"" for past, personal in zip(self.pasts, self.personal, strict=True)]
        entries = np.frombuffer(b"".join(recents), _RECENT)
        users = np.repeat(np.arange(len(self)), [len(window) // _RECENT.itemsize for window in recents])
        liked = entries["what"] >> 16 != KIND_BITS["dislike"]
        users, articles = users[liked][::-1], entries["article"][liked][::-1]
        first = np.sort(_first_of_each(users, articles))
        users, articles = users[first], articles[first]
        counts = np.bincount(users, minlength=len(self))[::-1]
        back = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = back < most
        return users[kept][::-1], articles[kept][::-1]

    def category_weights(self, now_ms: int) -> tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.float64]]:
        """Return users, categories as 64-bit hashes, and how much they were read, decayed to now."""
        pairs = [past.affinities if personal else b"" for past, personal in zip(self.pasts, self.personal, strict=True)]
        lengths = [len(window) // _AFFINITY.itemsize for window in pairs]
        entries = np.frombuffer(b"".join(pairs), _AFFINITY)
        ages = np.array([min(0, past.affinities_at - now_ms) for past in self.pasts], np.float64)
        weights = entries["weight"] * np.repeat(np.exp2(ages / AFFINITY_HALF_LIFE_MS), lengths)
        users = np.repeat(np.arange(len(self)), lengths)
        return users, entries["category"], np.nan_to_num(weights, posinf=0.0, neginf=0.0)


def _first_of_each(users: NDArray[np.intp], articles: NDArray[np.uint64]) -> NDArray[np.intp]:
    order = np.lexsort((articles, users))
    users, articles = users[order], articles[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (users[1:] != users[:-1]) | (articles[1:] != articles[:-1])
    return order[first]
