"""``gru``: a gated recurrent unit (Cho et al. 2014) over the articles as they were read (Hidasi et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contract.errors import SettingsError
from export.interest.parts import Interest


class Gru(Interest):
    """The state's own part is the unit's, [hidden], each number between -1 and 1."""

    def __init__(self, dims: int, *, plain: bool = False, hidden: int = 64) -> None:
        """Raises :class:`SettingsError` for ``plain``: without its unit nothing is left to train."""
        if plain:
            raise SettingsError("--plain: gru without its unit is the mean of what was read; compare it with decay")
        super().__init__(dims, hidden)
        self.gates = nn.Linear(dims + hidden, 2 * hidden)
        self.candidate = nn.Linear(dims + hidden, hidden)
        self.out = nn.Linear(hidden, dims, bias=False)
        nn.init.zeros_(self.out.weight)

    def read(self, own: Tensor, article: Tensor) -> Tensor:
        reset, update = self.gates(torch.cat([article, own], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([article, reset * own], dim=1)).tanh()
        return (1 - update) * own + update * candidate

    def correction(self, state: Tensor) -> Tensor:
        return self.out(state[:, self.sums :])
