"""A newsroom: 210 ongoing story lines in ten categories, told in ever new articles."""

from __future__ import annotations

from producers.newsroom.newsroom import Newsroom, rhythm, write_corpus
from producers.newsroom.storylines import CATEGORIES, Storyline, storylines

__all__ = ["CATEGORIES", "Newsroom", "Storyline", "rhythm", "storylines", "write_corpus"]
