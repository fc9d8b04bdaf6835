"""Headlines a visitor can publish with one click: about the story lines that the simulated readers follow."""

from __future__ import annotations

from demo.control import Headline
from producers.newsroom import CATEGORIES, Newsroom

SEED = 20_000
"""Another than the simulator's, which would write the same headlines."""
LONGEST = 64


def suggested_headlines(count: int = 30) -> list[Headline]:
    """Return ``count`` headlines with an abstract, one category after the other."""
    newsroom = Newsroom(SEED)
    by_category: dict[str, list[Headline]] = {category: [] for category in CATEGORIES}
    per_category = -(-count // len(CATEGORIES))
    while any(len(written) < per_category for written in by_category.values()):
        article, _ = newsroom.article(0)
        if article.abstract and len(article.title) <= LONGEST:
            by_category[article.category].append(
                Headline(title=article.title, abstract=article.abstract, category=article.category)
            )
    return [by_category[category][turn] for turn in range(per_category) for category in CATEGORIES][:count]
