"""Small data sets in the formats of MIND and Globo, written by the tests that read them."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

START_MS = 1_573_290_000_000
HOUR_MS = 3_600_000
TOPICS = {
    "sports": "rowers club wins the race by a length on the lake in the cup final",
    "weather": "fog storm rain and sun forecast for the coast until noon tomorrow",
    "food": "baker bread cheese recipe kitchen and wine from the old market hall",
    "finance": "bank shares interest loan market budget and tax rise for the city",
}


def mind_time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%m/%d/%Y %I:%M:%S %p")


def write_mind(folder: Path, news: Iterable[str], behaviours: Iterable[str]) -> Path:
    """Lines as they are, without their ends."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "news.tsv").write_text("".join(f"{line}\n" for line in news), encoding="utf-8")
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in behaviours), encoding="utf-8")
    return folder


def write_globo(folder: Path, lines: Iterable[str], header: str = "") -> Path:
    """Lines of ``user_id,session_id,click_article_id,click_timestamp``."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "clicks.csv.gz", "wt") as file:
        file.write(f"{header or 'user_id,session_id,click_article_id,click_timestamp'}\n")
        file.writelines(f"{line}\n" for line in lines)
    return folder


def readers_with_tastes(folder: Path, impressions: int = 120, *, shuffled: bool = False) -> Path:
    """MIND: everybody reads one category only, and clicks on the one item of it; shuffled: on any item."""
    rng = random.Random(5)
    names = list(TOPICS)
    news = []
    for number in range(160):
        words = TOPICS[names[number % 4]].split()
        title = " ".join(rng.sample(words, 6)).capitalize()
        news.append(f"N{number}\t{names[number % 4]}\t\t{title}\t\t\t[]\t[]")
    lines = []
    for number in range(impressions):
        user = number % 50
        taste = user % 4
        history = " ".join(f"N{rng.randrange(20) * 4 + taste}" for _ in range(1 + user % 9))
        shown = [80 + 4 * rng.randrange(20) + topic for topic in range(4)]
        clicked = rng.choice(shown) if shuffled else shown[taste]
        rng.shuffle(shown)
        items = " ".join(f"N{article}-{int(article == clicked)}" for article in shown)
        lines.append(f"{number}\tU{user}\t{mind_time(START_MS + number * 600_000)}\t{history}\t{items}")
    return write_mind(folder, news, lines)


def chains_of_reading(folder: Path, sessions: int = 150, *, shuffled: bool = False) -> Path:
    """Globo: after an article its successor is read, within a session of three; shuffled: any other one."""
    rng = random.Random(7)
    lines = []
    for session in range(sessions):
        at, article = START_MS + session * 600_000, rng.randrange(60)
        for step in range(3):
            lines.append(f"{session % 40},{session},{article},{at + step * 30_000}")
            article = rng.randrange(60) if shuffled else (article + 1) % 60
    return write_globo(folder, lines)
