"""``vae``: a variational auto-encoder of what was read, with a multinomial likelihood (Liang et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.interest.parts import Interest, Targets

HIDDEN = 64
LATENT = 32
STRONGEST = 0.2
"""How much the divergence from the prior counts at the end; it begins at 0 and reaches this half way."""


class Vae(Interest):
    """The state is the running sums alone. ``plain`` has no variance: an auto-encoder."""

    def __init__(self, dims: int, *, plain: bool = False) -> None:
        super().__init__(dims, 0)
        self.spreads = not plain
        self.encode = nn.Sequential(nn.Linear(3 * dims + 1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decode = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, dims, bias=False))
        nn.init.zeros_(self.decode[2].weight)

    def read(self, own: Tensor, article: Tensor) -> Tensor:
        return own

    def latent(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent interest, [B, latent] each."""
        much = torch.log1p(state[:, : self.dims].norm(dim=1, keepdim=True))
        mean, log_variance = self.encode(torch.cat([self.directions(state).flatten(1), much], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 4)

    def correction(self, state: Tensor) -> Tensor:
        return self.decode(self.latent(state)[0])

    def spread(self, state: Tensor) -> Tensor:
        """Return the mean standard deviation of the latent interest, [B]."""
        return (0.5 * self.latent(state)[1]).exp().mean(dim=1)

    def loss(self, targets: Targets, progress: float) -> Tensor:
        """The negative evidence lower bound, its divergence weighed by an annealed factor."""
        if not self.spreads:
            return super().loss(targets, progress)
        mean, log_variance = self.latent(targets.state)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        query = self.with_mean(targets.state, self.decode(mean + noise * (0.5 * log_variance).exp()))
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        return self.next_article_loss(query, targets) + STRONGEST * min(1.0, 2 * progress) * divergence
