"""The story lines: ongoing affairs in invented places, each with its own people and words.

``stories/CATEGORY.toml`` holds what was written for each; the people's names are drawn once, the
same for every seed, so that an affair keeps its cast.
"""

from __future__ import annotations

import random
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

CATEGORIES = (
    "politics", "business", "sports", "technology", "science",
    "health", "culture", "food", "travel", "justice",
)  # fmt: skip


class Person(msgspec.Struct, frozen=True):
    """Somebody in an affair; ``role`` fits after ``the``."""

    name: str
    role: str


class Storyline(msgspec.Struct, frozen=True, kw_only=True):
    """One affair. Texts may hold the slots that :mod:`producers.newsroom.grammar` fills."""

    category: str
    subject: str
    short: str
    place: str
    people: list[Person]
    orgs: list[str]
    tags: list[str]
    heads: list[str]
    facts: list[str]
    worry: str
    hope: str
    move: str
    scene: str


@cache
def storylines() -> tuple[Storyline, ...]:
    """All story lines, in a fixed order: the index is the hidden id of a line."""
    names = _names()
    return tuple(
        _read(category, entry, names) for category in CATEGORIES for entry in _toml(f"stories/{category}.toml")["story"]
    )


def _read(category: str, entry: dict[str, Any], names: list[str]) -> Storyline:
    people = [Person(names.pop(), role) for role in entry.pop("roles")]
    return msgspec.convert({**entry, "category": category, "people": people}, Storyline)


def _names() -> list[str]:
    """Enough names for everybody, no two alike, in a fixed order."""
    pools = _toml("names.toml")
    return random.Random("names").sample(
        [f"{first} {last}" for first in pools["first"] for last in pools["last"]], 2000
    )


def _toml(path: str) -> dict[str, Any]:
    return tomllib.loads(files("producers.newsroom").joinpath(path).read_text(encoding="utf-8"))
