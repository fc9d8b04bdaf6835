"""How each contender is started, and where its group and its changelog are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.users.input import PARTITIONS, places, send
from bench.users.reduced import DIMS, START_MS, Events
from bench.users.watch import Command
from contract.errors import SetupError
from contract.records import ArticleMeta, ArticleRecord, encode_article
from contract.settings import load
from contract.topics import Topics
from demo.processes import environment
from encoders.decay import Decay
from encoders.manifest import generation_of, read_manifest
from streams.admin import create_topics
from streams.local_broker.install import prepare
from streams.local_broker.jars import cache_dir, fetch_jars, read_lock
from streams.worker import Identity

HERE = Path(__file__).parent
PEERS = HERE / "peers"
ROOT = HERE.parents[1]
STREAMS_LOCK = HERE / "kafka_streams.lock.toml"


@dataclass(frozen=True)
class Run:
    """Where a run takes place: broker, input, files, and a folder of its own."""

    bootstrap: str
    source: str
    articles: Path
    folder: Path


@dataclass(frozen=True)
class Contender:
    """``changelog`` is created beforehand where the contender does not do that itself (``creates``)."""

    name: str
    commands: Sequence[Command]
    group: str
    changelog: str
    creates: bool = False


@dataclass(frozen=True)
class FullRecord(Contender):
    """It reads an input of its own; ``model`` is what its states are of."""

    source: str = ""
    model: Decay = field(default_factory=lambda: Decay(DIMS, 1.0, 1.0))


def stoppress(run: Run, processes: int = 1, *, batch: int = 150_000, wait_ms: int = 20, tag: str = "") -> Contender:
    """Our worker parts with the reduced record, one process a slot."""
    namespace = f"bench{processes}{tag}."
    changelog = f"{namespace}states"
    commands = [
        Command(
            [sys.executable, "-m", "bench.users.stoppress_worker", run.source, changelog, str(run.articles),
             str(batch), str(wait_ms)],
            {"STOPPRESS_BOOTSTRAP_SERVERS": run.bootstrap, "STOPPRESS_NAMESPACE": namespace,
             "STOPPRESS_SLOT": str(slot)},
        )
        for slot in range(processes)
    ]  # fmt: skip
    name = f"stoppress, {processes} process" + ("es" if processes > 1 else "")
    return Contender(name, commands, f"{namespace}bench-users.reduced", changelog)


def kafka_streams(
    run: Run, store: str = "memory", *, threads: int = 2, commit_ms: int = 1000, heap_mb: int = 1024, tag: str = ""
) -> Contender:
    """Kafka Streams, exactly_once_v2. Compiles it first; raises :class:`SetupError` without a Java compiler."""
    installation = prepare()
    jars = fetch_jars(read_lock(STREAMS_LOCK), cache_dir() / f"kafka-streams-{read_lock(STREAMS_LOCK).digest}", print)
    classpath = ":".join(map(str, jars))
    classes = run.folder / "classes"
    _compile(HERE / "java" / "KafkaStreamsFold.java", classpath, classes)
    app = f"kafka-streams-{store}{tag}"
    argv = [
        str(installation.java), f"-Xms{heap_mb}m", f"-Xmx{heap_mb}m", "-XX:+UseG1GC",
        "--enable-native-access=ALL-UNNAMED", "-cp", f"{classes}:{classpath}", "KafkaStreamsFold", run.bootstrap, app,
        run.source, str(run.articles), store, str(threads), str(commit_ms), str(run.folder / "state"),
    ]  # fmt: skip
    name = f"Kafka Streams, {'in memory' if store == 'memory' else 'RocksDB'}, {threads} threads"
    return Contender(name, [Command(argv)], app, f"{app}-states-changelog", creates=True)


def _compile(source: Path, classpath: str, target: Path) -> None:
    if (target / f"{source.stem}.class").exists():
        return
    compiler = shutil.which("javac")
    if compiler is None:
        raise SetupError("Kafka Streams needs a Java compiler (17 or newer) for this benchmark: install a JDK")
    subprocess.run([compiler, "--release", "17", "-cp", classpath, "-d", str(target), str(source)], check=True)


def profiled(contender: Contender, into: Path) -> Contender:
    """The same under cProfile, which writes what it saw to ``into`` when the process ends."""
    (command,) = contender.commands
    python, *rest = command.argv
    argv = [python, "-m", "cProfile", "-o", str(into), *rest]
    return replace(contender, commands=[replace(command, argv=argv)])


def consume_only(run: Run) -> Contender:
    """Reads everything and does nothing: no contender can be faster by this client."""
    argv = [sys.executable, "-m", "bench.users.consume_only", run.bootstrap, run.source, "bench-consume"]
    return Contender("consume and do nothing", [Command(argv)], "bench-consume", "", creates=True)


def full_record(run: Run, events: Events, namespace: str = "full.") -> FullRecord:
    """The users worker as it runs, on its own topics, which are filled here."""
    settings = load(
        [f"bootstrap_servers={run.bootstrap}", f"namespace={namespace}", f"partitions={PARTITIONS}",
         f"article_partitions={PARTITIONS}", f"encoder={ROOT / 'var' / 'encoder'}", "port=0"],
        environ={},
    )  # fmt: skip
    manifest = read_manifest(settings.encoder)
    model = Decay.of(settings, manifest.dims)
    topics = Topics(settings, generation_of(manifest, model.manifest()))
    create_topics(settings, topics.specs())
    vectors = np.fromfile(run.articles, "<f4").reshape(-1, DIMS)
    keys = [b"article-%05d" % number for number in range(len(vectors))]
    values = [encode_article(ArticleRecord(vector, START_MS, 0, START_MS, ArticleMeta())) for vector in vectors]
    send(
        run.bootstrap,
        topics.article_vectors,
        zip(keys, values, strict=True),
        [n % PARTITIONS for n in range(len(keys))],
    )
    send(run.bootstrap, topics.user_events, events.records(), places(events)[0].tolist())
    command = Command([sys.executable, "-m", "stoppress", "run", "users"], environment(settings))
    group = Identity.of(settings, "users", topics.generation).group
    return FullRecord(
        "stoppress users worker, full record", [command], group, topics.user_vectors, creates=True,
        source=topics.user_events, model=model,
    )  # fmt: skip


def quix_streams(run: Run) -> Contender:
    """quixstreams in an environment of its own, which make sets up."""
    argv = [
        _python("quix"), str(PEERS / "quix_streams.py"), run.bootstrap, run.source, "quix", str(run.articles),
        str(run.folder / "quix"),
    ]  # fmt: skip
    changelog = f"changelog__quix--{run.source}--default"
    return Contender("quixstreams, exactly once", [Command(argv)], "quix", changelog, creates=True)


def faust_streaming(run: Run) -> Contender:
    """faust-streaming in an environment of its own, which make sets up."""
    command = Command(
        [_python("faust"), str(PEERS / "faust_streaming.py"), "worker", "--loglevel", "warn"],
        {"FOLD_BOOTSTRAP": run.bootstrap, "FOLD_SOURCE": run.source, "FOLD_GROUP": "faust",
         "FOLD_ARTICLES": str(run.articles), "FOLD_STATE": str(run.folder / "faust")},
    )  # fmt: skip
    return Contender("faust-streaming, exactly once", [command], "faust", "faust-states-changelog", creates=True)


def _python(name: str) -> str:
    path = ROOT / f".venv-bench-{name}" / "bin" / "python"
    if not path.exists():
        raise SetupError(f"{path} is missing: `make bench-users` sets it up")
    return str(path)
