"""What editors changed, in the log: who, when, what.

Who is the header ``editor`` of the record in ``articles``, or what the article's ``attributes`` say under that name.
An article read again after a crash is told again.
"""

from __future__ import annotations

from typing import Any

from consumers.articles_backlog import Version
from consumers.articles_published import NAME, Published
from streams.record import Record, text_key
from streams.worker import Log

EDITOR = "editor"
LONGEST = 100


def editor_of(record: Record, attributes: dict[str, Any]) -> str:
    """Return who sent a record, "unknown" where it does not say."""
    for name, value in record.headers() or []:
        if name == EDITOR and value:
            return value.decode(errors="replace")[:LONGEST]
    named = attributes.get(EDITOR)
    return named[:LONGEST] if isinstance(named, str) and named else "unknown"


def log_change(before: Published | None, version: Version) -> None:
    """Log that a version asks for another placement or expiry than the one before it."""
    placement, expires_at = "auto", 0
    if before is not None and before.value is not None:
        record = before.record()
        placement, expires_at = record.meta.placement, record.expires_at
    changed: dict[str, Any] = {}
    if version.meta.placement != placement:
        changed["placement"] = f"{placement} -> {version.meta.placement}"
    if before is not None and before.value is not None and version.expires_at != expires_at:
        changed["expires_at"] = f"{expires_at or 'never'} -> {version.expires_at or 'never'}"
    if changed:
        Log(NAME).info("editors_change", article=version.article_id, by=version.editor, at=version.timestamp, **changed)


def log_withdrawal(record: Record) -> None:
    """Log that an article was withdrawn."""
    by, at = editor_of(record, {}), record.timestamp()[1]
    Log(NAME).info("editors_change", article=text_key(record), by=by, at=at, placement="withdrawn")
