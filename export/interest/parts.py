"""What the trained interest models share: the contract in torch, its losses, and the judge of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from encoders.onnx_interest import READ_WEIGHT

KEPT = (0.99, 0.7, 0.0)
"""What is left of each running sum at a further read: nearly the plain mean, the last few, the last one alone."""
IMPOSSIBLE = -1e9


@dataclass
class Targets:
    """P reads to be foretold: the state before each, float32 [P, S], and what was read.

    ``article`` [P, d], ``number`` int64 [P] says which article it is, ``log_q`` [P] how often that is read here,
    ``shown`` [P, K, d] what was shown beside it and not clicked, ``was_shown`` [P, K] where that is anything.
    """

    state: Tensor
    article: Tensor
    number: Tensor
    log_q: Tensor
    shown: Tensor
    was_shown: Tensor


class Interest(nn.Module):  # type: ignore[misc]
    """An interest model whose query is a mean of what was read, corrected by what it learns.

    The correction begins as zero: what training can't improve on stays the mean. A state [S] begins with running sums
    [3 d], long, short and last (``KEPT``), whose mix is learned; the rest is the model's own.
    """

    scores = False
    spreads = False

    def __init__(self, dims: int, own: int) -> None:
        super().__init__()
        self.dims = dims
        self.sums = len(KEPT) * dims
        self.state_size = self.sums + own
        self.mix = nn.Parameter(torch.tensor([1.0, 0.5, 0.5]))
        self.register_buffer("kept", torch.tensor(KEPT).repeat_interleave(dims), persistent=False)
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def read(self, own: Tensor, article: Tensor) -> Tensor:
        """Take an article into the model's own part of the state: [B, O], [B, d] -> [B, O]."""
        raise NotImplementedError

    def correction(self, state: Tensor) -> Tensor:
        """What is added to the mean: [B, S] -> [B, d]."""
        raise NotImplementedError

    def step(self, state: Tensor, article: Tensor, event: Tensor) -> Tensor:
        """Take one event into each state: [B, S], [B, d], [B, 3] -> [B, S]."""
        sums = state[:, : self.sums] * self.kept + article.repeat(1, len(KEPT))
        read = torch.cat([sums, self.read(state[:, self.sums :], article)], dim=1)
        return torch.where(event[:, 2:3] >= READ_WEIGHT, read, state)

    def query(self, state: Tensor) -> Tensor:
        """Return unit rows [B, 1, d], zero where the state is."""
        return self.with_mean(state, self.correction(state))[:, None]

    def with_mean(self, state: Tensor, correction: Tensor) -> Tensor:
        """Return unit rows [B, d] of the mean with a correction."""
        known = (state.abs().amax(dim=1, keepdim=True) > 0).to(state.dtype)
        return normalize(self.mean(state) + correction) * known

    def mean(self, state: Tensor) -> Tensor:
        """The direction of what was read, [B, d]."""
        return torch.einsum("k,bkd->bd", self.mix, self.directions(state))

    def directions(self, state: Tensor) -> Tensor:
        """The directions of the sums: unit rows [B, 3, d]."""
        return normalize(state[:, : self.sums].reshape(-1, len(KEPT), self.dims), dim=2)

    def loss(self, targets: Targets, progress: float) -> Tensor:
        """What training lowers; ``progress`` goes from 0 to 1."""
        return self.next_article_loss(self.query(targets.state)[:, 0], targets)

    def next_article_loss(self, query: Tensor, targets: Targets) -> Tensor:
        """Cross-entropy of what was read next against the others of the batch, and against what was shown beside it.

        The others come as often as they are read. The logQ correction (Yi et al. 2019) would make the query find what
        is popular; here the ranking adds popularity itself, so that its logarithm belongs into the logits too, and
        the two cancel: the query learns what popularity does not tell.
        """
        scale = self.log_scale.exp().clamp(max=100)
        logits = scale * query @ targets.article.T
        same = targets.number[:, None] == targets.number
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, IMPOSSIBLE)
        loss = cross_entropy(logits, torch.arange(len(query)))
        beside = targets.was_shown.any(dim=1)
        if beside.any():
            listed = torch.cat([targets.article[beside, None], targets.shown[beside]], dim=1)
            shown_logits = scale * torch.einsum("pd,pkd->pk", query[beside], listed)
            there = torch.cat([torch.ones_like(shown_logits[:, :1], dtype=torch.bool), targets.was_shown[beside]], 1)
            first = torch.zeros(len(listed), dtype=torch.int64)
            loss = loss + cross_entropy(shown_logits.masked_fill(~there, IMPOSSIBLE), first)
        return loss


class PairJudge(nn.Module):  # type: ignore[misc]
    """The log-odds that a user reads an article: how near it is to the mean, to a learned taste, and what all like."""

    def __init__(self, features: int, dims: int) -> None:
        super().__init__()
        self.nearness = nn.Parameter(torch.tensor(4.0))
        self.taste = nn.Sequential(nn.Linear(features, 64), nn.GELU(), nn.Linear(64, dims, bias=False))
        self.appeal = nn.Sequential(nn.Linear(dims, 32), nn.GELU(), nn.Linear(32, 1))
        for last in (self.taste[2], self.appeal[2]):
            nn.init.zeros_(last.weight)

    def wishes(self, mean: Tensor, features: Tensor) -> Tensor:
        """What each user's product with an article is: [B, d]."""
        return self.nearness * mean + self.taste(features)

    def forward(self, mean: Tensor, features: Tensor, article: Tensor) -> Tensor:
        """Judge every pair: [B, d], [B, features], [n, d] -> [B, n]."""
        return self.wishes(mean, features) @ article.T + self.appeal(article)[:, 0]

    def own(self, mean: Tensor, features: Tensor, article: Tensor) -> Tensor:
        """Judge each user's own articles: [B, d], [B, features], [B, K, d] -> [B, K]."""
        return torch.einsum("bd,bkd->bk", self.wishes(mean, features), article) + self.appeal(article)[..., 0]

    def loss(self, mean: Tensor, features: Tensor, targets: Targets) -> Tensor:
        """Binary cross-entropy: 1 for what was read; 0 for what was shown beside it, or else for others of the batch.

        Others of the batch weigh less the more they are read, so that being popular is not held against an article.
        """
        read = self.own(mean, features, targets.article[:, None])
        loss = binary_cross_entropy_with_logits(read, torch.ones_like(read))
        beside = targets.was_shown
        if beside.any():
            passed = self.own(mean, features, targets.shown)[beside]
            loss = loss + binary_cross_entropy_with_logits(passed, torch.zeros_like(passed))
        rarity = (-targets.log_q).exp()
        for shift in range(1, min(5, len(read))):
            other = self.own(mean, features, targets.article.roll(shift, 0)[:, None])[:, 0]
            weight = rarity.roll(shift) * (targets.number != targets.number.roll(shift))
            wrong = binary_cross_entropy_with_logits(other, torch.zeros_like(other), reduction="none")
            loss = loss + 0.25 * (wrong * weight).sum() / weight.sum().clamp(min=1e-6)
        return loss
