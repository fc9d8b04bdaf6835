"""MIND's files as structs: ``news.tsv`` and ``behaviors.tsv`` of one folder.

    news.tsv       id, category, subcategory, title, abstract, url, two columns of entities (JSON)
    behaviors.tsv  impression id, user, time (``11/9/2019 9:08:21 AM``, UTC), clicked history, candidates
                   (``N1-1`` clicked, ``N2-0`` not)

A line that cannot be used is handed to ``on_broken`` with its place and what is wrong, and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from contract.errors import BadRecord, SetupError
from contract.messages import Article, Placement, check_id
from producers.broken_lines import BrokenLine, OnBroken

LONGEST_LINE = 512 << 10
_TIME = "%m/%d/%Y %I:%M:%S %p"


class News(msgspec.Struct, frozen=True):
    """A line of ``news.tsv``; what is missing is empty."""

    article_id: str
    category: str
    subcategory: str
    title: str
    abstract: str
    url: str
    entities: list[str]

    def article(self, published_at: int, placement: Placement = "auto") -> Article:
        """The same as an article; MIND says nothing of when it was published (epoch ms)."""
        return Article(
            article_id=self.article_id,
            title=self.title,
            published_at=published_at,
            abstract=self.abstract,
            url=self.url,
            category=self.category,
            tags=[self.subcategory] if self.subcategory else [],
            entities=self.entities,
            source="mind",
            language="en",
            placement=placement,
        )


class Behaviour(msgspec.Struct, frozen=True):
    """A line of ``behaviors.tsv``: ``at`` in epoch ms, ``clicked`` beside ``candidates``, ``offset`` in bytes."""

    impression_id: str
    user_id: str
    at: int
    history: list[str]
    candidates: list[str]
    clicked: list[bool]
    offset: int = 0


def read_news(folder: Path, on_broken: OnBroken) -> Iterator[News]:
    """Yield the news in the file's order. Raises :class:`SetupError` where there is no such file."""
    with _open(folder / "news.tsv") as file:
        for number, raw in enumerate(file, 1):
            try:
                news = parse_news(raw)
            except ValueError as error:
                on_broken(BrokenLine("news.tsv", number, str(error)))
                continue
            if news is not None:
                yield news


def read_behaviours(folder: Path, on_broken: OnBroken) -> Iterator[Behaviour]:
    """Yield the impressions in the file's order, which is not that of time.

    Raises :class:`SetupError` where there is no such file.
    """
    with _open(folder / "behaviors.tsv") as file:
        offset = 0
        for number, raw in enumerate(file, 1):
            try:
                behaviour = parse_behaviour(raw, offset)
            except ValueError as error:
                on_broken(BrokenLine("behaviors.tsv", number, str(error)))
                behaviour = None
            offset += len(raw)
            if behaviour is not None:
                yield behaviour


def offsets_by_time(folder: Path, on_broken: OnBroken) -> list[int]:
    """Return where each impression begins, in the order of time; those of one time in the file's order.

    Raises :class:`SetupError` where there is no such file.
    """
    return [offset for _, offset in sorted((b.at, b.offset) for b in read_behaviours(folder, on_broken))]


def behaviours_at(folder: Path, offsets: Iterable[int]) -> Iterator[Behaviour]:
    """Yield the impressions that begin at ``offsets``, as :func:`read_behaviours` gave them."""
    with _open(folder / "behaviors.tsv") as file:
        for offset in offsets:
            file.seek(offset)
            behaviour = parse_behaviour(file.readline(), offset)
            if behaviour is not None:
                yield behaviour


def parse_news(raw: bytes) -> News | None:
    """Parse one line, None where it is blank. Raises ``ValueError`` that says what is wrong."""
    fields = _fields(raw, at_least=4)
    if fields is None:
        return None
    article_id, category, subcategory, title, *rest = (field.strip() for field in fields)
    _check_id("news id", article_id)
    if not title:
        raise ValueError("the title is empty")
    abstract, url, *entities = [*rest, "", ""][: max(2, len(rest))]
    names = [name for column in entities for name in _entities(column)]
    return News(article_id, category, subcategory, title, abstract, url, list(dict.fromkeys(names)))


def parse_behaviour(raw: bytes, offset: int = 0) -> Behaviour | None:
    """Parse one line, None where it is blank. Raises ``ValueError`` that says what is wrong."""
    fields = _fields(raw, at_least=5)
    if fields is None:
        return None
    impression_id, user_id, time, history, shown = (field.strip() for field in fields[:5])
    _check_id("user", user_id)
    try:
        at = int(datetime.strptime(time, _TIME).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise ValueError(f"the time {time!r} is not like '11/9/2019 9:08:21 AM'") from None
    candidates, clicked = [], []
    for candidate in shown.split():
        article_id, dash, label = candidate.rpartition("-")
        if not dash or label not in ("0", "1"):
            raise ValueError(f"the candidate {candidate!r} ends neither in -1 (clicked) nor in -0 (not)")
        _check_id("candidate", article_id)
        candidates.append(article_id)
        clicked.append(label == "1")
    if not candidates:
        raise ValueError("there are no candidates")
    past = history.split()
    for article_id in past:
        _check_id("article of the history", article_id)
    return Behaviour(impression_id, user_id, at, past, candidates, clicked, offset)


def _fields(raw: bytes, at_least: int) -> list[str] | None:
    if len(raw) > LONGEST_LINE:
        raise ValueError(f"the line has {len(raw):,} bytes; the most that is read is {LONGEST_LINE:,}")
    try:
        line = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    if not line.strip():
        return None
    fields = line.split("\t")
    if len(fields) < at_least:
        raise ValueError(f"{len(fields)} columns separated by tabs where at least {at_least} are needed")
    return fields


def _entities(column: str) -> list[str]:
    try:
        return [entity["Label"] for entity in msgspec.json.decode(column, type=list[dict[str, object]])]  # type: ignore[misc]
    except (msgspec.DecodeError, KeyError):
        return []


def _check_id(name: str, value: str) -> None:
    try:
        check_id(name, value)
    except BadRecord as error:
        raise ValueError(error.detail) from None


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; a folder in MIND's format has it") from None
