"""Languages: which of them a user demonstrably does not read.

Who has read so many articles of known languages, none of them in a language that others are in, is not shown those.
Who told a language is taken to have read as many in it, and so is shown others only once they read one. Where none of
their languages is listed, all are shown; an article that does not tell its language is for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranking.catalogue import Catalogue


def foreign(
    catalogue: Catalogue, users: NDArray[np.intp], places: NDArray[np.intp], told: Sequence[str], least: int
) -> NDArray[np.bool_] | None:
    """Return which articles are in a language that each user does not read, [u, n]; None: none are.

    ``users`` and ``places`` are what was read, ``told`` [u] the languages that users told, "" where they did not;
    ``least`` how many articles it takes, 0: no number is enough. Articles whose language is not known, or that are no
    longer in the catalogue, say nothing.
    """
    if not least or len(catalogue.listed_languages) < 2:
        return None
    read = np.zeros((len(told), int(catalogue.language.max()) + 1), np.int64)
    np.add.at(read, (users, catalogue.language[places]), 1)
    for user, language in enumerate(told):
        number = catalogue.languages.get(language, 0)
        if number < read.shape[1]:
            read[user, number] += least
    read[:, 0] = 0
    sure = (read.sum(axis=1) >= least) & read[:, catalogue.listed_languages].any(axis=1)
    unread = (read == 0) & sure[:, None]
    unread[:, 0] = False
    found: NDArray[np.bool_] = unread[:, catalogue.language]
    return found
