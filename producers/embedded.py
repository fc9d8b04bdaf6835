"""The wait for the articles' vectors: a click on an article that has none yet can only wait itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from contract.settings import Settings
from streams.table import TableReader
from streams.worker import Stop

PATIENCE_SECONDS = 20.0


def wait_for_vectors(
    settings: Settings,
    topic: str,
    article_ids: Iterable[str],
    stop: Stop,
    *,
    patience: float = PATIENCE_SECONDS,
    on_more: Callable[[int, int], None] | None = None,
) -> bool:
    """Block until each of ``article_ids`` has a vector in ``topic``; tell whether all have.

    Gives up where none has come for ``patience`` seconds (no articles worker runs) or at a stop.
    ``on_more`` is told how many have one, of how many.
    """
    missing = {article_id.encode() for article_id in article_ids}
    total, since = len(missing), time.monotonic()
    reader = TableReader(settings, topic, name="produce-vectors")
    try:
        while missing and not stop.requested and time.monotonic() - since < patience:
            before = len(missing)
            missing.difference_update([message.key() for message in reader.poll(0.1)])
            if len(missing) < before:
                since = time.monotonic()
                if on_more is not None:
                    on_more(total - len(missing), total)
    finally:
        reader.close()
    return not missing
