"""``stoppress run``: one worker or service, what a container runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from commands.wiring import model_of, settings_of
from contract.errors import Fenced
from contract.settings import Settings
from contract.topics import Topics

if TYPE_CHECKING:
    from encoders.interest import InterestModel
    from streams.health import HealthServer
    from streams.worker import Stop

app = typer.Typer(no_args_is_help=True, help="Run one worker until SIGTERM or SIGINT: what a container runs.")

PORTS = {"articles": 8101, "users": 8102, "ranker": 8103}
Port = Annotated[int | None, typer.Option(help="where to answer; 0: any free port")]
Slot = Annotated[str | None, typer.Option(help="names this worker among its peers; stable over restarts")]


def _start(settings: Settings) -> tuple[Topics, InterestModel, Stop]:
    """What every worker does first: check that its topics are there."""
    from streams.admin import require_topics
    from streams.worker import Stop, set_up_logging

    set_up_logging(settings.log_level)
    topics, model = model_of(settings)
    require_topics(settings, topics.specs())
    return topics, model, Stop.on_signals(settings.shutdown_seconds)


def _port(worker: str, settings: Settings) -> int:
    return PORTS[worker] if settings.port is None else settings.port


@contextmanager
def _service(worker: str, settings: Settings, topics: Topics) -> Iterator[HealthServer]:
    """Where a worker answers. Its log begins here: before, a mistake is the one line that is said."""
    from streams.health import HealthServer
    from streams.worker import Log

    with HealthServer(settings.host, _port(worker, settings)) as health:
        log = Log(worker)
        log.info("starting", generation=topics.generation, settings=settings.for_log())
        try:
            yield health
        except Fenced:
            log.error("fenced", slot=settings.slot, do="leave this one down, or end the other: no two may have a slot")
            raise


@app.command("articles")
def run_articles(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Embed published articles."""
    from consumers import articles
    from encoders.text import TextEncoder
    from streams.health import check_free

    settings = settings_of(context, port=port, slot=slot)
    topics, _, stop = _start(settings)
    check_free(settings.host, _port("articles", settings))
    encoder = TextEncoder.load(
        settings.encoder, settings.device, settings.encoder_threads, settings.encoder_batch_tokens or 0
    )
    with _service("articles", settings, topics) as health:
        articles.run(settings, topics, encoder, stop, health)


@app.command("users")
def run_users(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Fold events into user states, exactly once."""
    from consumers import users

    settings = settings_of(context, port=port, slot=slot)
    topics, model, stop = _start(settings)
    with _service("users", settings, topics) as health:
        users.run(settings, topics, model, stop, health)


@app.command("ranker")
def run_ranker(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Publish fresh lists."""
    from consumers import ranker
    from consumers.ranker_formula import formula_of

    settings = settings_of(context, port=port, slot=slot)
    formula = formula_of(settings)
    topics, model, stop = _start(settings)
    with _service("ranker", settings, topics) as health:
        ranker.run(settings, topics, model, stop, health, formula)


@app.command("feed")
def run_feed(context: typer.Context, port: Port = None) -> None:
    """Serve lists over HTTP, as server-sent events, and as a page."""
    from consumers import feed

    settings = settings_of(context, port=port)
    topics, _, stop = _start(settings)
    feed.run(settings, topics, stop)
