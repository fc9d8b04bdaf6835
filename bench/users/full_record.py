"""What the users worker wrote of the benchmark's events, held against the reference of the reduced record.

Its states are two decayed sums where that has one, so the reference is folded twice, with each half-life.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.users.input import reference_of
from bench.users.reduced import STATE, Events, worst_error
from contract.records import UserRecord, decode_user
from encoders.decay import Decay


def worst_error_of_full(
    events: Events, articles: NDArray[np.float32], states: dict[bytes, bytes], model: Decay
) -> float:
    """Return the largest relative error of a sum in ``states``, values of ``user-vectors`` by key.

    Raises ``ValueError`` as :func:`worst_error`.
    """
    users = {key: decode_user(value) for key, value in states.items()}
    worst = 0.0
    for number, half_life_ms in enumerate((model.long_half_life_ms, model.short_half_life_ms)):
        numbers = slice(number * model.dims, (number + 1) * model.dims)
        reduced = {key: _reduced(user, numbers) for key, user in users.items()}
        worst = max(worst, worst_error(reference_of(events, articles, half_life_ms=half_life_ms), reduced))
    return worst


def _reduced(user: UserRecord, numbers: slice) -> bytes:
    state = np.zeros(1, STATE)
    state["at"], state["folded"], state["hash_sum"] = user.at, user.folded, np.uint64(user.hash_sum)
    state["last_offset"], state["sum"] = user.last_offset, user.vector[numbers]
    return state.tobytes()
