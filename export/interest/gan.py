"""``gan``: a generator proposes the vector of the next article, a discriminator judges (Goodfellow et al. 2014).

The generator is also told what was read (as in a conditional GAN; Mirza and Osindero 2014): with the adversary alone it
would propose the same for everybody. The discriminator serves as ``score``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from export.interest.parts import Interest, PairJudge, Targets

HIDDEN = 64
NOISE = 16
ADVERSARY = 0.3
"""How much deceiving the discriminator counts beside foretelling the next article."""


class Gan(Interest):
    """The state is the running sums alone. ``plain`` has no adversary and no noise."""

    scores = True

    def __init__(self, dims: int, *, plain: bool = False) -> None:
        super().__init__(dims, 0)
        self.plain = plain
        self.generator = nn.Sequential(
            nn.Linear(3 * dims + NOISE, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, dims, bias=False)
        )
        nn.init.zeros_(self.generator[2].weight)
        self.judge = PairJudge(3 * dims, dims)

    def read(self, own: Tensor, article: Tensor) -> Tensor:
        return own

    def features(self, state: Tensor) -> Tensor:
        """The directions of the sums, [B, 3 d]."""
        return self.directions(state).flatten(1)

    def propose(self, state: Tensor, noise: Tensor) -> Tensor:
        """Return a next article's vector, unit rows [B, d]."""
        return self.with_mean(state, self.generator(torch.cat([self.features(state), noise], dim=1)))

    def correction(self, state: Tensor) -> Tensor:
        """Without noise: what is served must be the same every time."""
        noise = torch.zeros_like(state[:, :1]).expand(-1, NOISE)
        return self.generator(torch.cat([self.features(state), noise], dim=1))

    def score(self, state: Tensor, article: Tensor) -> Tensor:
        """Return the discriminator's log-odds, [B, S], [n, d] -> [B, n]."""
        return self.judge(self.mean(state), self.features(state), article)

    def loss(self, targets: Targets, progress: float) -> Tensor:
        """Both players' losses; neither moves the other's weights."""
        state, mean, features = targets.state, self.mean(targets.state), self.features(targets.state)
        real = self.judge.loss(mean, features, targets)
        if self.plain:
            return self.next_article_loss(self.query(state)[:, 0], targets) + real
        noise = torch.randn(len(state), NOISE) if self.training else torch.zeros(len(state), NOISE)
        proposed = self.propose(state, noise)
        unmasked = softplus(self.judge.own(mean, features, proposed.detach()[:, None])).mean()
        held = {name: weight.detach() for name, weight in self.judge.named_parameters()}
        deceived = functional_call(self.judge, held, (mean, features, proposed)).diagonal()
        generated = self.next_article_loss(proposed, targets) + ADVERSARY * softplus(-deceived).mean()
        return generated + real + ADVERSARY * unmasked
