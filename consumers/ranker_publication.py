"""What the ranker writes: lists with their items, each with its reason."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.messages import Cause, Empty, Item, List
from ranking.candidates import SOURCES
from ranking.catalogue import PINNED, Catalogue
from ranking.features import PARTS
from ranking.ranking import Ranked
from ranking.reasons import reasons


@dataclass(frozen=True)
class Publication:
    """What is to be written to ``recommendations`` under ``user_id``, which may be a reserved key; ``result`` None
    takes the list away."""

    user_id: str
    partition: int
    result: List | None


@dataclass(frozen=True)
class ListWriter:
    """Makes lists of what was ranked; ``explain`` puts the score's parts into each item."""

    generation: str
    explain: bool

    def items(
        self, ranked: Ranked, catalogue: Catalogue, users: NDArray[np.intp], lists: Sequence[str]
    ) -> Iterator[list[Item]]:
        """Yield the items of the lists of some of the ``ranked``; ``lists`` names whose each is, "": their own."""
        found, ids = ranked.places[users], catalogue.ids
        there, drawn = found >= 0, ~np.isnan(ranked.propensities[users])
        pinned = there & (catalogue.placement[found] == PINNED) if len(catalogue.placement) else there
        why = reasons(ranked.parts[users], drawn, pinned)
        lengths = np.count_nonzero(there, axis=1).tolist()
        scores = ranked.scores[users].astype(np.float64).round(4).tolist()
        propensities = ranked.propensities[users].astype(np.float64).round(6).tolist()
        parts = ranked.parts[users].astype(np.float64).round(4).tolist() if self.explain else []
        columns = zip(found.tolist(), scores, why, ranked.sources[users].tolist(), lengths, drawn.tolist(), strict=True)
        for i, (places, values, reason, sources, length, explores) in enumerate(columns):
            told = [lists[i]] * length if lists[i] else [SOURCES[source] for source in sources]
            explained = [dict(zip(PARTS, of, strict=True)) for of in parts[i]] if self.explain else [{}] * length
            yield [
                Item(
                    article_id=ids[places[j]], score=values[j], reason=reason[j], source=told[j],
                    propensity=propensities[i][j] if explores[j] else None, parts=explained[j],
                )
                for j in range(length)
            ]  # fmt: skip

    def compose(
        self, user_id: str, items: list[Item], cause: Cause, catalogue: Catalogue, now_ms: int, *, fallback: bool
    ) -> List:
        """Return the list with an id of its own; where it is empty it says why."""
        why: Empty = "nothing_left" if len(catalogue) else "no_articles"
        return List(
            user_id=user_id,
            list_id=secrets.token_hex(8),
            generated_at=now_ms,
            cause=cause,
            generation=self.generation,
            items=items,
            fallback=fallback,
            empty="" if items else why,
        )
