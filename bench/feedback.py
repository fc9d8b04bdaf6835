"""Whether the feedback loop is of use: simulated users before fixed and adapting weights, as tastes stay and change.

    python -m bench.feedback [SEEDS]

No Kafka: the fold, the statistics and the ranking that serve, driven by the simulator's users. Both arms have the same
users, articles and luck. After a day and a half each world is copied: in one tastes stay, in the other everybody wakes
up with another's. What counts is the clicks per item seen in the day that follows, by seed, so that differences are
paired.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import copy
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from bench.report import Row, write
from producers.audience import Audience
from producers.newsroom import Newsroom, rhythm
from producers.offline import DAY_MS, HOUR_MS, START_MS, Site, WordVectors, text_of

SEEDS = 20
USERS = 300
VIEWS_A_DAY = 12.0
ARTICLES_A_DAY = 200
BEFORE_MS, AFTER_MS = 36 * HOUR_MS, 24 * HOUR_MS
TICK_MS = HOUR_MS
LENGTH = 20
STAY, CHANGE = "tastes stay", "tastes change"


@dataclass
class World:
    """A newsroom's users before their lists, and what came of it."""

    audience: Audience
    site: Site
    owed: float = 0.0
    seen: int = 0
    clicked: int = 0

    @classmethod
    def new(cls, seed: int, *, feedback: bool, users: int = USERS, articles_a_day: int = ARTICLES_A_DAY) -> World:
        audience = Audience(users, LENGTH, seed=seed)
        site = Site([f"user-{number:05d}" for number in range(users)], LENGTH, feedback=feedback)
        hours = (2 * DAY_MS + BEFORE_MS + AFTER_MS) / HOUR_MS
        end = START_MS + BEFORE_MS + AFTER_MS
        written = Newsroom(seed).archive(round(articles_a_day * hours / 24), end, hours=hours)
        vectors = WordVectors(text_of(article) for article, _ in written[:articles_a_day])
        for article, line in written:
            index = audience.add_article(line, article.published_at)
            site.publish(index, vectors(text_of(article)), article.published_at)
        return cls(audience, site)

    def live(self, start: int, end: int) -> None:
        """Let the users look and click from ``start`` to ``end``, epoch ms."""
        for now in range(start, end, TICK_MS):
            self.owed += self.audience.users.count * VIEWS_A_DAY * TICK_MS / DAY_MS * rhythm(now)
            looking = self.audience.users.who_looks(int(self.owed))
            self.owed %= 1.0
            if not len(looking):
                continue
            lists, popular = self.site.lists(looking, now)
            self.audience.see_popular(popular, now)
            viewed, _ = self.audience.look(looking, lists, np.ones(len(looking), np.bool_), now)
            self.site.take(looking, viewed, self.audience.read_elsewhere(looking, now), now)
            self.seen += int(viewed.seen.sum())
            self.clicked += int(viewed.clicked.sum())

    def change_tastes(self) -> None:
        """Give everybody the tastes of another."""
        users = self.audience.users
        users.tastes = np.roll(users.tastes, 1, axis=0)


def rates(seed: int, *, feedback: bool, **size: int) -> dict[str, float]:
    """Return clicks per item seen in the day after the fork, by what became of tastes."""
    before = World.new(seed, feedback=feedback, **size)
    fork = START_MS + BEFORE_MS
    before.live(START_MS, fork)
    found = {}
    for what in (STAY, CHANGE):
        world = copy.deepcopy(before)
        world.seen = world.clicked = 0
        if what == CHANGE:
            world.change_tastes()
        world.live(fork, fork + AFTER_MS)
        found[what] = world.clicked / world.seen
    return found


def both(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the rates of fixed and of adapting weights."""
    return rates(seed, feedback=False), rates(seed, feedback=True)


def paired(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95% interval by Student's t."""
    mean, n = float(differences.mean()), len(differences)
    half = float(student.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    found: dict[str, list[tuple[float, float]]] = {STAY: [], CHANGE: []}
    with ProcessPoolExecutor() as pool:
        for seed, (fixed, adapting) in zip(seeds, pool.map(both, seeds), strict=True):
            for what, pairs in found.items():
                pairs.append((fixed[what], adapting[what]))
            told = ", ".join(f"{what} {fixed[what]:.4f} -> {adapting[what]:.4f}" for what in found)
            print(f"seed {seed}: {told}", flush=True)
    rows = []
    for what, pairs in found.items():
        values = np.array(pairs)
        mean, low, high = paired(values[:, 1] - values[:, 0])
        for name, value in (("fixed weights", values[:, 0]), ("stoppress feedback", values[:, 1])):
            rows.append(Row(name=name, value=float(value.mean()), unit="clicks per item", group=what))
        rows[-1].detail = {"difference": f"{mean:+.5f} ({low:+.5f} to {high:+.5f})", "seeds": len(pairs)}
    print(write("feedback", rows))


if __name__ == "__main__":
    main()
