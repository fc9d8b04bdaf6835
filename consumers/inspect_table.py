"""What ``stoppress inspect`` found, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from consumers.inspect_event import Story
from consumers.inspect_user import Calculation
from ranking.features import PARTS


def calculation_tables(found: Calculation, most: int) -> list[Table | str]:
    """The calculation for people: who, what the rules kept out, and the first ``most`` candidates."""
    barred = ", ".join(f"{count:,} {rule}" for rule, count in found.barred.items()) or "none"
    table = Table(box=SIMPLE_HEAD)
    shown = found.candidates[:most]
    spoken = [name for name in PARTS if any(one.parts[name] for one in shown)]
    for name in ("place", "article", "source", "click", *spoken, "score", "what became of it"):
        left = name in ("article", "source", "what became of it")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for one in shown:
        place = "" if one.position is None else str(one.position + 1)
        parts = (f"{one.parts[name]:+.2f}" if one.parts[name] else "" for name in spoken)
        fate = one.fate if one.position is None else one.words
        table.add_row(
            place, escape(one.article_id), one.source, f"{one.probability:.1%}", *parts, f"{one.score:+.2f}", fate
        )
    same = [one.article_id for one in found.candidates if one.position is not None] == found.published
    who = (
        f"{escape(found.user_id)}: {found.events_folded:,} events folded, confidence {found.confidence:.2f}, "
        f"partition {found.partition}"
    )
    held_out = ", held out: always the popular list" if found.held_out else ""
    listed = (
        f"{found.listed_articles:,} articles may be listed; not for this user: {barred}; "
        f"{len(found.candidates):,} candidates"
    )
    published = "the same" if same else f"another, of {_time(found.published_at)}"
    return [who + held_out, listed, table, f"the published list is {published}"]


def story_tables(stories: Sequence[Story]) -> list[Table | str]:
    """The stories for people."""
    found: list[Table | str] = []
    for story in stories:
        table = Table(box=SIMPLE_HEAD)
        for name in ("what", "where", "at", "ms", ""):
            table.add_column(name, justify="right" if name == "ms" else "left", overflow="fold")
        for step in story.steps:
            where = f"{step.topic}[{step.partition}]@{step.offset}"
            table.add_row(step.what, where, _time(step.at), f"{step.ms:,}", escape(step.says))
        found += [f"{escape(story.event_id)} of {escape(story.user_id)}", table, escape(story.end)]
    return found


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else "never"
