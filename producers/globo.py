"""Globo.com's click logs as structs: ``clicks*.csv``, gzipped or not, in one folder.

A header line names the columns; ``user_id``, ``click_article_id`` and ``click_timestamp`` (epoch ms) are needed,
``session_id`` and :data:`CONTEXT` are read where they are there.
A line that cannot be used is handed to ``on_broken`` with its place and what is wrong, and left out.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import msgspec

from contract.errors import SetupError
from producers.broken_lines import BrokenLine, OnBroken

COLUMNS = ("user_id", "click_article_id", "click_timestamp")
CONTEXT = {
    "click_environment": "environment",
    "click_deviceGroup": "device",
    "click_os": "os",
    "click_country": "country",
    "click_region": "region",
    "click_referrer_type": "referrer",
}
"""Columns of where a click came from, and what they are called in an event's context."""


class Click(msgspec.Struct, frozen=True):
    """One click; ``at`` in epoch ms, ``session_id`` empty where the file has none; ``context``: where it came from, by
    the names of :data:`CONTEXT`."""

    user_id: str
    article_id: str
    at: int
    session_id: str = ""
    context: Mapping[str, str] = {}


def read_clicks(folder: Path, on_broken: OnBroken) -> Iterator[Click]:
    """Yield the clicks of all files, by the files' names and in each file's order; reads as it goes.

    Raises :class:`SetupError` where there is no such file, or one lacks a column or cannot be read.
    """
    files = sorted([*folder.glob("clicks*.csv"), *folder.glob("clicks*.csv.gz")])
    if not files:
        raise SetupError(f"{folder} holds no clicks*.csv or clicks*.csv.gz; a folder in Globo's format has them")
    for path in files:
        try:
            with _open(path) as file:
                yield from _clicks(path.name, file, on_broken)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise SetupError(f"cannot read {path}: {error}") from None


def _clicks(name: str, file: TextIO, on_broken: OnBroken) -> Iterator[Click]:
    rows = csv.reader(file)
    header = next(rows, [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise SetupError(f"{name} has no column {missing[0]!r} in its first line; Globo's click logs have it")
    places = [header.index(column) for column in COLUMNS]
    session = header.index("session_id") if "session_id" in header else None
    told = [(name, header.index(column)) for column, name in CONTEXT.items() if column in header]
    for row in rows:
        if not row:
            continue
        try:
            user_id, article_id, at = (row[place] for place in places)
            if not user_id or not article_id:
                raise ValueError("the user or the article is empty")
            context = {name: row[place] for name, place in told}
            yield Click(user_id, article_id, int(at), "" if session is None else row[session], context)
        except IndexError:
            on_broken(BrokenLine(name, rows.line_num, f"{len(row)} columns where the first line has {len(header)}"))
        except ValueError as error:
            on_broken(BrokenLine(name, rows.line_num, str(error)))


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
