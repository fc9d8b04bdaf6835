"""``transformer``: causal self-attention over what was read last (Kang and McAuley 2018), a ring in the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from export.interest.parts import IMPOSSIBLE, Interest, PairJudge, Targets

LAST = 16
WIDTH = 32
HEADS = 4


class Block(nn.Module):  # type: ignore[misc]
    """One layer, normalised before each part: attention among [B, N, width], then each place by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_places = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.keys = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.places = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, unseen: Tensor) -> Tensor:
        """``unseen`` [B, 1, N, N] is large and negative where a place must not look."""
        heads = self.keys(self.before_attention(x)).reshape(-1, LAST, 3 * HEADS, WIDTH // HEADS).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=1)
        attention = (query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + unseen).softmax(dim=3)
        x = x + self.out((attention @ value).transpose(1, 2).reshape(-1, LAST, WIDTH))
        return x + self.places(self.before_places(x))


class Transformer(Interest):
    """The state's own part is a ring [16, 32], the newest last: unit rows of what was read, zero where nothing is yet.

    ``plain`` takes the order away: no places, nobody looks only backwards, and the mean over the ring speaks.
    """

    scores = True

    def __init__(self, dims: int, *, plain: bool = False) -> None:
        super().__init__(dims, LAST * WIDTH)
        self.plain = plain
        self.narrow = nn.Linear(dims, WIDTH, bias=False)
        self.place = nn.Parameter(0.1 * torch.randn(LAST, WIDTH))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, dims, bias=False)
        nn.init.zeros_(self.out.weight)
        self.judge = PairJudge(WIDTH, dims)
        self.register_buffer("future", torch.triu(torch.ones(LAST, LAST), 1) * IMPOSSIBLE, persistent=False)

    def read(self, own: Tensor, article: Tensor) -> Tensor:
        return torch.cat([own[:, WIDTH:], normalize(self.narrow(article))], dim=1)

    def features(self, state: Tensor) -> Tensor:
        """What attention makes of the ring, [B, width]."""
        ring = state[:, self.sums :].reshape(-1, LAST, WIDTH)
        filled = (ring.abs().amax(dim=2) > 0).to(ring.dtype)
        unseen = ((1 - filled) * IMPOSSIBLE)[:, None, None, :]
        x = ring if self.plain else ring + self.place
        if not self.plain:
            unseen = unseen + self.future
        for block in self.blocks:
            x = block(x, unseen)
        x = self.norm(x)
        if self.plain:
            return (x * filled[:, :, None]).sum(dim=1) / filled.sum(dim=1, keepdim=True).clamp(min=1)
        return x[:, -1]

    def correction(self, state: Tensor) -> Tensor:
        return self.out(self.features(state))

    def score(self, state: Tensor, article: Tensor) -> Tensor:
        """Return log-odds, [B, S], [n, d] -> [B, n]."""
        return self.judge(self.mean(state), self.features(state), article)

    def loss(self, targets: Targets, progress: float) -> Tensor:
        """That of the next article, and the judge's."""
        features = self.features(targets.state)
        query = self.with_mean(targets.state, self.out(features))
        return self.next_article_loss(query, targets) + self.judge.loss(self.mean(targets.state), features, targets)
