"""The desk: decides what is written about when, and hands out articles."""

from __future__ import annotations

import hashlib
import math
import random
from collections import deque
from pathlib import Path

from contract.errors import SettingsError
from contract.messages import Article, encode
from producers.newsroom.grammar import Told
from producers.newsroom.storylines import CATEGORIES, Storyline, storylines

_HOUR_MS = 3_600_000
_SOURCES = {
    "The Aldhaven Courier": 0.24, "Kestwick Mail": 0.16, "Northern Dispatch": 0.14, "The Lindmouth Observer": 0.12,
    "Meridian News": 0.12, "Valley Gazette": 0.09, "Oster Bay Times": 0.08, "Crown Wire": 0.05,
}  # fmt: skip
_BYLINES = (
    "Alma Drexel", "Basil Tunnicliffe", "Carla Munro-Diaz", "Dario Winkel", "Elsa Thornbury", "Femi Castellan",
    "Gwen Harrowgate", "Hugo Lindberg-Asante", "Iris Vandermolen", "Jakob Sommers", "Kira Balasz", "Lorenz Achebe-Holm",
    "Mina Petrosyan-Vale", "Nils Farquhar", "Oona Radcliff", "Pavel Stormont", "Rina Okabe-Frost", "Sten Malloy",
    "Tilda Brannock", "Uri Castlewood", "Viola Penhaligon", "Wim Duquesne", "Xenia Larkmoor", "Yves Templeman",
)  # fmt: skip
_CATEGORY_SHARES = dict(zip(CATEGORIES, (0.17, 0.12, 0.16, 0.09, 0.07, 0.08, 0.09, 0.07, 0.06, 0.09), strict=True))
_FOLLOW_UP = 0.35
_LOOSELY_TAGGED = 0.3
_REMEMBERED = 60


def rhythm(at_ms: int) -> float:
    """How much is published at this time of the day (UTC), relative to the day's mean of one."""
    hour = at_ms / _HOUR_MS % 24
    peaks = ((8.0, 2.0, 1.1), (13.0, 2.5, 0.6), (18.0, 2.5, 0.9))
    offs = [(min(abs(hour - peak), 24 - abs(hour - peak)) / width, height) for peak, width, height in peaks]
    waves = sum(height * math.exp(-0.5 * off**2) for off, height in offs)
    return (0.25 + waves) / 0.86


class Newsroom:
    """A seeded stream of articles about the story lines; the same seed writes the same articles.

    Which lines are in the news at all is heavy-tailed and drawn from the seed. A line just written
    about is likely to be followed up, so hot ones come in bursts. Headlines never repeat.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._draw = random.Random(f"newsroom {seed}")
        self._tagging = random.Random(f"tags {seed}")
        self._lines = storylines()
        sizes = {category: sum(line.category == category for line in self._lines) for category in CATEGORIES}
        self._weights = [
            _CATEGORY_SHARES[line.category] / sizes[line.category] * self._draw.lognormvariate(0.0, 0.8)
            for line in self._lines
        ]
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)
        self._titles: set[str] = set()
        self._serial = 0

    def article(self, now_ms: int) -> tuple[Article, int]:
        """Write one article, published at ``now_ms``; with it the hidden id of its story line."""
        line_id = self._choose()
        line, draw = self._lines[line_id], self._draw
        told = Told(line, draw)
        title = self._fresh_title(told)
        digest = hashlib.blake2s(f"{self._seed}/{self._serial}".encode(), digest_size=6).hexdigest()
        self._serial += 1
        abstract = told.sentences(draw.choices((0, 1, 2, 3), (0.06, 0.34, 0.40, 0.20))[0], opening=True)
        body = told.sentences(draw.randint(1, 3), opening=False) if draw.random() < 0.5 else ""
        entities = [name for name in (line.place, *line.orgs, *(p.name for p in line.people))
                    if name in title or name in abstract or name in body]  # fmt: skip
        return (
            Article(
                article_id=f"a{digest}",
                title=title,
                published_at=now_ms,
                abstract=abstract,
                body=body,
                url=f"https://news.example/{line.category}/a{digest}",
                category=line.category,
                tags=self._tags(line),
                entities=entities,
                authors=draw.sample(_BYLINES, draw.choices((1, 2), (0.85, 0.15))[0]),
                source=draw.choices(tuple(_SOURCES), tuple(_SOURCES.values()))[0],
                language="en",
            ),
            line_id,
        )

    def archive(self, n: int, until_ms: int, *, hours: float = 24.0) -> list[tuple[Article, int]]:
        """Write ``n`` articles of the last ``hours`` before ``until_ms``, oldest first, by the day's rhythm."""
        start = until_ms - hours * _HOUR_MS
        slots = [start + (place + 0.5) * hours * _HOUR_MS / 1000 for place in range(1000)]
        width = hours * _HOUR_MS / 1000
        middles = self._draw.choices(slots, [rhythm(round(slot)) for slot in slots], k=n)
        times = sorted(round(middle + (self._draw.random() - 0.5) * width) for middle in middles)
        return [self.article(time) for time in times]

    def _choose(self) -> int:
        if self._recent and self._draw.random() < _FOLLOW_UP:
            back = min(int(self._draw.expovariate(1 / 12)), len(self._recent) - 1)
            line_id = self._recent[-1 - back]
        else:
            line_id = self._draw.choices(range(len(self._lines)), self._weights)[0]
        self._recent.append(line_id)
        return line_id

    def _tags(self, line: Storyline) -> list[str]:
        """As people tag: one or more of the line's tags, at times one that belongs to another of its category."""
        tags = self._tagging.sample(line.tags, self._tagging.randint(1, len(line.tags)))
        if self._tagging.random() < _LOOSELY_TAGGED:
            other = self._tagging.choice([one for one in self._lines if one.category == line.category])
            tags.append(self._tagging.choice(other.tags))
        return list(dict.fromkeys(tags))

    def _fresh_title(self, told: Told) -> str:
        for _ in range(40):
            title = told.title()
            if title not in self._titles:
                break
        else:
            title = f"{title} ({len(self._titles)})"
        self._titles.add(title)
        return title


def write_corpus(path: Path, n: int, *, seed: int = 1, until_ms: int = 1_790_000_000_000) -> None:
    """Write ``n`` articles as JSON lines: what an encoder's projection is learned from.

    Raises :class:`SettingsError` where the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            for article, _ in Newsroom(seed).archive(n, until_ms, hours=24.0 * 30):
                file.write(encode(article) + b"\n")
    except OSError as error:
        raise SettingsError(f"cannot write the corpus to {path}: {error.strerror}") from None
