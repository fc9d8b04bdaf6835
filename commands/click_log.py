"""What a click model learns from: requests of a data set or of the running system, with what the ranker knew then."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from commands.wiring import model_of
from contract.settings import Settings
from encoders.manifest import describe_file
from evaluation.articles import Articles
from evaluation.recording import recorded
from ranking.listwise import ClickLog

if TYPE_CHECKING:
    from commands.display import Display
    from evaluation.left_out import LeftOut


def from_data_set(
    folder: Path, format_: str, settings: Settings, seed: int, every: int, left_out: LeftOut, display: Display
) -> tuple[ClickLog, str]:
    """Replay a data set (mind or globo); also return the hash of its files. Blocks."""
    from evaluation.impressions import impressions
    from evaluation.next_click import Clicks, Protocol, next_clicks
    from evaluation.vectors import read_articles
    from producers.globo import read_clicks
    from producers.mind import behaviours_at, offsets_by_time, read_news
    from streams.local_broker.jars import cache_dir

    def broken(line: object) -> None:
        left_out("lines left out", str(line))

    draw = np.random.default_rng(seed)
    if format_ == "mind":
        offsets = offsets_by_time(folder, broken)
        articles = read_articles(read_news(folder, broken), settings, cache_dir() / "vectors", left_out)
        moments, total = impressions(behaviours_at(folder, offsets), articles, left_out, draw), len(offsets)
    else:
        articles = Articles()
        clicks = Clicks(read_clicks(folder, broken), articles, left_out)
        moments, total = next_clicks(clicks, articles, left_out, draw, Protocol(every, 0.0)), len(clicks)
    log = recorded(
        moments, articles, settings, seed,
        lambda read, kept: display.show("replayed", read, total, f"{kept:,} requests recorded"),
    )  # fmt: skip
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(file.name.encode() + describe_file(file).sha256.encode())
    return log, digest.hexdigest()


def from_own_topics(settings: Settings, seed: int, left_out: LeftOut, display: Display) -> tuple[ClickLog, str]:
    """Replay what the running system has shown; also return the hash of what was recorded. Blocks."""
    from consumers.shown_log import read_shown, read_vectors
    from evaluation.own_log import logged
    from streams.admin import require_topics

    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    articles = Articles(model.dims)
    for article_id, article in read_vectors(settings, topics, model.dims, left_out):
        articles.describe(article_id, article.meta.category, article.vector, article.published_at)
    shown = read_shown(settings, topics, left_out, hours=None).shown
    moments = logged(shown, articles, None, left_out, np.random.default_rng(seed))
    log = recorded(
        moments, articles, settings, seed,
        lambda read, kept: display.show("replayed", read, len(shown), f"{kept:,} requests recorded"),
    )  # fmt: skip
    digest = hashlib.sha256(log.at.tobytes())
    for request in log.shown:
        digest.update(request.features.tobytes() + request.clicked.tobytes())
    return log, digest.hexdigest()
