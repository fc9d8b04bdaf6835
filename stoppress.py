"""The command line: every way to start something. Wires the rooms together, holds no logic.

0 done    1 failed    2 wrong usage or settings
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contract import settings as contract_settings
from contract.errors import SettingsError, SetupError, StoppressError
from contract.settings import Settings
from contract.topics import Topics

if TYPE_CHECKING:
    from contract.messages import Article
    from encoders.decay import Decay
    from streams.health import HealthServer
    from streams.worker import Stop

# A worker is one process for one core: further threads of BLAS would wait for each other in a busy loop.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
topics_app = typer.Typer(no_args_is_help=True, help="Create and check the topics of the namespace.")
kafka_app = typer.Typer(no_args_is_help=True, help="A real Kafka broker on this machine, for demo and tests.")
run_app = typer.Typer(no_args_is_help=True, help="Run one worker until SIGTERM or SIGINT: what a container runs.")
produce_app = typer.Typer(no_args_is_help=True, help="Write articles and events.")
dead_letters_app = typer.Typer(no_args_is_help=True, help="See and send again what could not be used.")
export_app = typer.Typer(no_args_is_help=True, help="Convert models to ONNX; needs the extra `export`.")
for name, group in (
    ("topics", topics_app),
    ("kafka", kafka_app),
    ("run", run_app),
    ("produce", produce_app),
    ("dead-letters", dead_letters_app),
    ("export", export_app),
):
    app.add_typer(group, name=name)

PORTS = {"articles": 8101, "users": 8102, "ranker": 8103}
Port = Annotated[int | None, typer.Option(help="where to answer; 0: any free port")]
Slot = Annotated[str | None, typer.Option(help="names this worker among its peers; stable over restarts")]


class Precision(Enum):
    FP32 = "fp32"
    FP16 = "fp16"


DataDir = Annotated[Path, typer.Option("--data", help="the broker's folder")]


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="a TOML file of settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, over file and environment")] = None,
) -> None:
    context.obj = (config, set_ or [])


def _settings(context: typer.Context, **given: object) -> Settings:
    config, pairs = context.find_root().obj
    overrides = [*pairs, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    return contract_settings.load(overrides, config=config)


def _model(settings: Settings) -> tuple[Topics, Decay]:
    """The generation's topics and interest model, from the encoder's manifest."""
    from encoders.decay import Decay
    from encoders.manifest import generation_of, read_manifest

    manifest = read_manifest(settings.encoder)
    model = Decay.of(settings, manifest.dims)
    return Topics(settings, generation_of(manifest, model.manifest())), model


def _article_vectors(settings: Settings) -> str | None:
    """The topic whose vectors a producer waits for, None where no encoder says which that is."""
    return _model(settings)[0].article_vectors if (settings.encoder / "manifest.json").exists() else None


def _start(settings: Settings) -> tuple[Topics, Decay, Stop]:
    """What every worker does first: check that its topics are there."""
    from streams.admin import require_topics
    from streams.worker import Stop, set_up_logging

    set_up_logging(settings.log_level)
    topics, model = _model(settings)
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
        Log(worker).info("starting", generation=topics.generation, settings=settings.for_log())
        yield health


@run_app.command("articles")
def run_articles(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Embed published articles."""
    from consumers import articles
    from encoders.text import TextEncoder
    from streams.health import check_free

    settings = _settings(context, port=port, slot=slot)
    topics, _, stop = _start(settings)
    check_free(settings.host, _port("articles", settings))
    encoder = TextEncoder.load(
        settings.encoder, settings.device, settings.encoder_threads, settings.encoder_batch_tokens or 0
    )
    with _service("articles", settings, topics) as health:
        articles.run(settings, topics, encoder, stop, health)


@run_app.command("users")
def run_users(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Fold events into user states, exactly once."""
    from consumers import users

    settings = _settings(context, port=port, slot=slot)
    topics, model, stop = _start(settings)
    with _service("users", settings, topics) as health:
        users.run(settings, topics, model, stop, health)


@run_app.command("ranker")
def run_ranker(context: typer.Context, port: Port = None, slot: Slot = None) -> None:
    """Publish fresh lists."""
    from consumers import ranker

    settings = _settings(context, port=port, slot=slot)
    topics, model, stop = _start(settings)
    with _service("ranker", settings, topics) as health:
        ranker.run(settings, topics, model, stop, health)


@run_app.command("feed")
def run_feed(context: typer.Context, port: Port = None) -> None:
    """Serve lists over HTTP, as server-sent events, and as a page."""
    from consumers import feed

    settings = _settings(context, port=port)
    topics, _, stop = _start(settings)
    feed.run(settings, topics, stop)


@app.command("demo")
def demo(
    context: typer.Context,
    seconds: Annotated[float | None, typer.Option(help="end by itself after this long")] = None,
    replay: Annotated[tuple[str, Path] | None, typer.Option(help="FORMAT DIR: real impressions, sped up")] = None,
    report: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    articles: Annotated[int, typer.Option(min=1, help="how many are fresh at the start")] = 1000,
    clicks_per_second: Annotated[float, typer.Option(min=0)] = 500.0,
) -> None:
    """Everything on this machine: broker, workers, a simulated newsroom with its readers, and a page."""
    from demo.supervisor import run_demo
    from streams.worker import Stop, set_up_logging

    settings = _settings(context)
    set_up_logging("warning")
    source = ["produce", "simulate", "--progress", f"--users={users}", f"--archive={articles}",
              f"--clicks-per-second={clicks_per_second}"]  # fmt: skip
    strap = f"{users:,} simulated readers, {articles:,} fresh articles, a real Kafka on this machine"
    if replay is not None:
        from producers.replay import require_data

        require_data(*replay)
        source = ["produce", "replay", "--progress", "--format", replay[0], str(replay[1].resolve())]
        if seconds is not None:
            source.append(f"--seconds={seconds}")
        strap = "A real day of news and clicks, sped up, through a real Kafka on this machine"
    stop = Stop.on_signals()
    code = run_demo(settings, lambda s: _model(s)[0], stop, source=source, strap=strap, seconds=seconds, report=report)
    raise typer.Exit(code)


@topics_app.command("create")
def topics_create(
    context: typer.Context,
    alter: Annotated[bool, typer.Option(help="also change settings of topics that were there already")] = False,
) -> None:
    """Create the topics that are missing; say what differs in those that are there."""
    from streams.admin import create_topics

    settings = _settings(context)
    lines = create_topics(settings, _model(settings)[0].specs(), alter=alter)
    for line in lines or ["nothing to do: all topics are as they should be"]:
        typer.echo(line)
    if any(line.startswith("differs") for line in lines):
        typer.echo(
            "nothing that was there was changed; `stoppress topics create --alter` changes settings, never counts"
        )
        raise typer.Exit(1)


@topics_app.command("check")
def topics_check(context: typer.Context) -> None:
    """Say in which ways the cluster's topics differ from what is needed."""
    from streams.admin import check_topics

    settings = _settings(context)
    lines = check_topics(settings, _model(settings)[0].specs())
    for line in lines or ["all topics are as they should be"]:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)


@kafka_app.command("start")
def kafka_start(data: DataDir = Path("var/kafka"), port: Annotated[int, typer.Option(min=0, max=65535)] = 9092) -> None:
    """Start the broker in the background; its data is kept."""
    from streams.local_broker import start_detached

    status = start_detached(data, port=port)
    typer.echo(f"Kafka runs at {status.bootstrap_servers} (pid {status.pid}, log in {data}/kafka.log)")


@kafka_app.command("stop")
def kafka_stop(data: DataDir = Path("var/kafka")) -> None:
    """Stop the broker."""
    from streams.local_broker import stop

    typer.echo("stopped" if stop(data) else "it was not running")


@kafka_app.command("status")
def kafka_status(data: DataDir = Path("var/kafka")) -> None:
    """Say whether the broker runs; exit code 1 where it does not."""
    from streams.local_broker import status

    found = status(data)
    typer.echo(f"Kafka runs at {found.bootstrap_servers} (pid {found.pid})" if found else "Kafka does not run")
    if not found:
        raise typer.Exit(1)


@produce_app.command("simulate")
def produce_simulate(
    context: typer.Context,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    archive: Annotated[int, typer.Option(min=1, help="articles published before the first click")] = 1000,
    history: Annotated[float, typer.Option(min=0, help="clicks per user before the first list")] = 0.0,
    clicks_per_second: Annotated[float, typer.Option(min=0)] = 500.0,
    publications_per_second: Annotated[float, typer.Option(min=0)] = 1.0,
    seconds: Annotated[float | None, typer.Option(help="how long to click; until Ctrl-C where not given")] = None,
    seed: Annotated[int, typer.Option()] = 1,
    taste: Annotated[bool, typer.Option(help="whether users differ in what they like")] = True,
    report: Annotated[Path | None, typer.Option(help="write the figures as JSON")] = None,
    progress: Annotated[bool, typer.Option("--progress", help="a line of JSON a second instead of text")] = False,
    corpus: Annotated[Path | None, typer.Option(help="only write articles to this file, JSON lines")] = None,
    corpus_articles: Annotated[int, typer.Option(min=1, help="how many of them")] = 3000,
    beside: Annotated[
        list[str] | None, typer.Option(help="mind=DIR or globo=DIR: only print how the shapes compare with real data")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="with --beside: the shapes as JSON")] = False,
) -> None:
    """A newsroom that publishes, and readers who look at their real lists and click by hidden tastes."""
    from producers.newsroom import write_corpus
    from producers.simulate import progress_line, simulate
    from streams.worker import Stop, set_up_logging

    if corpus is not None:
        write_corpus(corpus, corpus_articles)
        typer.echo(f"{corpus_articles} articles in {corpus}")
        return
    if beside:
        from producers.beside import compare

        compare(beside, seed=seed, as_json=as_json)
        return
    settings = _settings(context)
    set_up_logging("warning")
    result = simulate(
        settings,
        users=users,
        archive=archive,
        history=history,
        clicks_per_second=clicks_per_second,
        publications_per_second=publications_per_second,
        seconds=seconds,
        seed=seed,
        taste=taste,
        report=report,
        on_progress=lambda figures: typer.echo(json.dumps(figures) if progress else progress_line(figures)),
        article_vectors=_article_vectors(settings),
        stop=Stop.on_signals(),
    )
    if not progress:
        typer.echo(
            f"CTR personal {result.ctr.personal or 0:.1%}, popular {result.ctr.popular or 0:.1%}; "
            f"precision {result.precision.personal or 0:.1%}, {result.precision.popular or 0:.1%}"
        )


@produce_app.command("replay")
def produce_replay(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="the folder with the data set")],
    format_: Annotated[str, typer.Option("--format", help="of the data: mind")],
    speed_up: Annotated[
        float | None, typer.Option(help="how many times as fast as it was; inf: as fast as Kafka takes it")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="how long it takes where no speed-up is given: 120")] = None,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="leave at and published_at as they were")] = False,
    progress: Annotated[bool, typer.Option("--progress", help="a line of JSON a second instead of text")] = False,
) -> None:
    """Real impressions, clicks and news in their order, sped up, moved in time so that they end now."""
    from producers.replay_display import show_replay
    from streams.worker import Stop, set_up_logging

    settings = _settings(context)
    set_up_logging("warning")
    show_replay(
        settings,
        format_,
        folder,
        speed_up=speed_up,
        seconds=seconds,
        keep_times=keep_times,
        as_json=progress,
        article_vectors=_article_vectors(settings),
        stop=Stop.on_signals(),
    )


@dead_letters_app.command("list")
def dead_letters_list(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option(help="only those with this reason")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object a line, original bytes as base64")] = False,
) -> None:
    """List what could not be used, with the reason."""
    import msgspec

    from streams.admin import require_topics
    from streams.dead_letters import letters

    settings = _settings(context)
    topics = Topics(settings)
    require_topics(settings, topics.public())
    count = 0
    for letter in letters(settings, topics):
        if reason is not None and letter.reason != reason:
            continue
        count += 1
        typer.echo(msgspec.json.encode(letter) if as_json else str(letter))
    if not as_json:
        typer.echo(f"{count} dead letter{'s' * (count != 1)}")


@dead_letters_app.command("requeue")
def dead_letters_requeue(
    context: typer.Context, reason: Annotated[str, typer.Option(help="send again those with this reason")]
) -> None:
    """Send dead letters of one reason to their topic again, each once."""
    from streams.admin import require_topics
    from streams.dead_letters import requeue

    settings = _settings(context)
    topics = Topics(settings)
    require_topics(settings, topics.public())
    outcome = requeue(settings, topics, reason)
    typer.echo(f"{outcome.sent} sent again")
    for why, count in outcome.kept.items():
        typer.echo(f"{count} not: {why}")


@export_app.command("encoder")
def export_encoder_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="minilm (packaged), a folder, or a Hugging Face name")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
    dims: Annotated[int | None, typer.Option(help="centre and project to this many dimensions")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="what the projection is learned from: JSON lines, or `topic`, the system's own")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="fp16 is for GPUs")] = Precision.FP32,
) -> None:
    """Convert a sentence model to ONNX and prove that it gives the same vectors."""
    from encoders.text import article_text
    from export.encoder import export_encoder

    articles = None
    if corpus == "topic":
        articles = _published(_settings(context))
    elif corpus is not None:
        articles = _articles_in(Path(corpus))
    texts = None if articles is None else (article_text(a.title, a.abstract, a.body) for a in articles)
    export_encoder(model, out, dims=dims, corpus=texts, precision=precision.value)


def _published(settings: Settings) -> Iterator[Article]:
    """What is in the topic ``articles`` now; what cannot be used is left out, as a worker would."""
    from contract.errors import BadRecord
    from contract.messages import decode_article
    from streams.admin import require_topics
    from streams.table import read_to_end

    topics = Topics(settings, "")
    require_topics(settings, [spec for spec in topics.specs() if spec.name == topics.articles])
    for record in read_to_end(settings, topics.articles, name="export"):
        try:
            article = decode_article(record.key(), record.value())
        except BadRecord:
            continue
        if article is not None:
            yield article


def _articles_in(path: Path) -> Iterator[Article]:
    from contract.errors import BadRecord
    from contract.messages import Article, decode

    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  the message below says which line it was
                if line.strip():
                    yield decode(Article, line)
    except OSError as error:
        raise SettingsError(f"cannot read the corpus {path}: {error.strerror}") from None
    except BadRecord as error:
        raise SettingsError(f"line {number} of the corpus {path} is not an article: {error.detail}") from None


@app.command("doctor")
def doctor(context: typer.Context) -> None:
    """Check device, providers, versions, model, broker and topics: each is ok, or it says what to do."""
    from consumers.doctor import examine

    findings = examine(_settings(context), lambda settings: _model(settings)[0])
    for finding in findings:
        typer.echo(f"{'ok' if finding.ok else 'TO DO':6}{finding.about:11}{finding.says}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; mistakes end in one line on stderr, not in a traceback."""
    try:
        app()
    except StoppressError as error:
        print(f"stoppress: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        print(
            f"stoppress: the package {error.name!r} is missing; install the extra that has it (README)", file=sys.stderr
        )
        sys.exit(SetupError.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"stoppress: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(SetupError.exit_code)
    except Exception as error:
        kafka = sys.modules.get("confluent_kafka")
        if kafka is None or not isinstance(error, kafka.KafkaException):
            raise
        print(f"stoppress: Kafka: {error.args[0].str()}", file=sys.stderr)
        sys.exit(StoppressError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
