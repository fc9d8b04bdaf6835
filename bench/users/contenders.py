"""How each contender is started, and where its group and its changelog are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.users.watch import Command
from contract.errors import SetupError
from streams.local_broker.install import prepare
from streams.local_broker.jars import cache_dir, fetch_jars, read_lock

HERE = Path(__file__).parent
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
    """``changelog`` is created beforehand where ``creates`` is false; ``strip`` cuts what its keys are wrapped in."""

    name: str
    commands: Sequence[Command]
    group: str
    changelog: str
    creates: bool = False
    strip: bytes = b""


def stoppress(run: Run, processes: int = 1, *, batch: int = 50_000, wait_ms: int = 20, tag: str = "") -> Contender:
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
