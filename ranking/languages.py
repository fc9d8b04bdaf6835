"""Languages: which of them a user demonstrably does not read.

Not what a browser says counts, but what was read: who has read so many articles of known languages, none of them in
a language that others are in, is not shown those. An article that does not tell its language is for everybody.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import Catalogue


def primary(tag: str) -> str:
    """Return the language of a tag: ``pt`` for ``pt-BR`` and ``PT_br``; "" where it tells none."""
    return tag.replace("_", "-").partition("-")[0].strip().lower()


def foreign(
    catalogue: Catalogue, users: NDArray[np.intp], places: NDArray[np.intp], count: int, least: int
) -> NDArray[np.bool_] | None:
    """Return which articles are in a language that each of ``count`` users does not read, [count, n]; None: none are.

    ``users`` and ``places`` are what was read, ``least`` how many articles it takes; those without a language, 0, or
    no longer in the catalogue say nothing.
    """
    if not least or not catalogue.multilingual:
        return None
    languages = catalogue.language[places]
    read = np.zeros((count, int(catalogue.language.max()) + 1), np.int64)
    np.add.at(read, (users, languages), 1)
    read[:, 0] = 0
    unread = (read == 0) & (read.sum(axis=1) >= least)[:, None]
    unread[:, 0] = False
    found: NDArray[np.bool_] = unread[:, catalogue.language]
    return found
