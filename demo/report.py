"""The demo's figures as JSON, as the design lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from contract.errors import SettingsError
from demo.observer import Observer


class Arms(msgspec.Struct):
    """One figure for the users' own lists and for the popular list; None where it was not measured."""

    personal: float | None = None
    popular: float | None = None


class Judgement(msgspec.Struct):
    """How good the lists were, as whoever sent the clicks judges it."""

    ctr: Arms = msgspec.field(default_factory=Arms)
    precision: Arms = msgspec.field(default_factory=Arms)


def make_report(observer: Observer, judgement: Judgement, kills: list[float], seconds: float) -> dict[str, Any]:
    """Return the figures.

    ``kills`` are the seconds from each kill to the end of its recovery, ``seconds`` how long events were sent.
    """
    account = observer.account()
    published, embedded = observer.articles
    return {
        "seconds": round(seconds, 1),
        "events_sent": account.sent,
        "events_folded": account.folded,
        "waiting": account.waiting,
        "duplicate": account.duplicate,
        "dead_letters": account.dead,
        "lost": account.unaccounted,
        "articles_published": published,
        "articles_embedded": embedded,
        "lists_published": observer.lists_published,
        "event_to_list_ms": observer.event_to_list.total(),
        "publish_to_list_ms": observer.publish_to_list.total(),
        "ctr": msgspec.to_builtins(judgement.ctr),
        "precision": msgspec.to_builtins(judgement.precision),
        "kills": len(kills),
        "recovery_s": [round(seconds, 3) for seconds in kills],
    }


def check_writable(path: Path) -> None:
    """Raise :class:`SettingsError` now rather than after the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise SettingsError(f"the report cannot be written to {path}: {error.strerror}") from None


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write it as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
