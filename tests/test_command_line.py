"""What is wrong with a start ends it: exit code 2, one line that says what to do, no traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.settings import Settings
from contract.topics import Topics
from encoders.decay import Decay
from encoders.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Manifest,
    describe_file,
    generation_of,
    read_manifest,
    write_manifest,
)
from streams.admin import create_topics
from streams.local_broker.process import free_port
from tests.command import Answer, refused, stoppress

WORKERS = ("articles", "users", "ranker", "feed")


def at_once(settings: Settings, commands: Sequence[Sequence[str]], **environ: str) -> list[Answer]:
    """Run commands side by side: most of their time they wait."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda arguments: stoppress(settings, *arguments, environ=environ), commands))


def every_worker_refuses(settings: Settings, *options: str, **environ: str) -> str:
    """The line with which each of the four workers refuses to start; it is the same."""
    answers = at_once(settings, [[*options, "run", worker] for worker in WORKERS], **environ)
    (line,) = {refused(answer) for answer in answers}
    return line


def topics_of(settings: Settings) -> Topics:
    manifest = read_manifest(settings.encoder)
    model = Decay.of(settings, manifest.dims)
    return Topics(settings, generation_of(manifest, model.manifest()))


@pytest.fixture
def ready(settings: Settings, encoder_path: Path) -> Settings:
    """Settings with which every worker would start."""
    create_topics(settings, topics_of(settings).specs())
    return settings


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_no_broker_at_the_address(settings: Settings, encoder_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    nobody = settings.model_copy(update={"bootstrap_servers": address})
    commands = [
        *(["run", worker] for worker in WORKERS),
        ["topics", "create"],
        ["topics", "check"],
        ["dead-letters", "list"],
        ["dead-letters", "requeue", "--reason", "not_json"],
        ["produce", "simulate"],
    ]
    for line in map(refused, at_once(nobody, commands)):
        assert line.startswith(f"no Kafka broker answers at {address} (")
        assert "Connection refused" in line
        assert "start one (`stoppress kafka start`), set STOPPRESS_BOOTSTRAP_SERVERS" in line


def test_no_host_of_that_name(settings: Settings, encoder_path: Path) -> None:
    nowhere = settings.model_copy(update={"bootstrap_servers": "kafka.invalid:9092"})
    assert "Failed to resolve 'kafka.invalid:9092'" in every_worker_refuses(nowhere)


def test_a_missing_topic(settings: Settings, encoder_path: Path) -> None:
    line = f"topic {settings.namespace}articles is missing; run `stoppress topics create`"
    assert every_worker_refuses(settings) == line
    commands = [["dead-letters", "list"], ["dead-letters", "requeue", "--reason", "not_json"]]
    assert {refused(answer) for answer in at_once(settings, commands)} == {line}


def test_a_wrong_partition_count(ready: Settings) -> None:
    other = ready.model_copy(update={"partitions": 5})
    assert every_worker_refuses(other) == (
        f"topic {ready.namespace}user-events has 4 partitions where the settings say 5; "
        "set partitions (or article_partitions) to that, or use another namespace"
    )


def test_a_busy_port(ready: Settings, taken_port: int) -> None:
    answers = at_once(ready, [["run", worker, "--port", str(taken_port)] for worker in WORKERS])
    for answer in answers:
        line = refused(answer)
        assert line.startswith(f"127.0.0.1:{taken_port} is in use by another process; choose another with --port")


def test_no_encoder_at_the_path(settings: Settings, tmp_path: Path) -> None:
    without = settings.model_copy(update={"encoder": tmp_path / "none"})
    line = every_worker_refuses(without)
    assert line.startswith(f"no encoder at {tmp_path / 'none'}: run `make encoder`")
    commands = [["topics", "create"], ["topics", "check"]]
    assert {refused(answer) for answer in at_once(without, commands)} == {line}


def test_a_manifest_that_is_none(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(b"{}")
    line = every_worker_refuses(settings.model_copy(update={"encoder": tmp_path}))
    assert line.startswith(f"{tmp_path / MANIFEST_FILE} is not a manifest (")


def test_a_damaged_encoder(settings: Settings, encoder_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "encoder"
    damaged.mkdir()
    for file in encoder_path.iterdir():
        (damaged / file.name).symlink_to(file)
    shutil.copyfile(encoder_path / TOKENIZER_FILE, tmp_path / "changed")
    with (tmp_path / "changed").open("r+b") as changed:
        changed.seek(1000)
        changed.write(b"\x00")
    (damaged / TOKENIZER_FILE).unlink()
    (tmp_path / "changed").rename(damaged / TOKENIZER_FILE)
    line = every_worker_refuses(settings.model_copy(update={"encoder": damaged}))
    assert line.startswith(
        f"{damaged / TOKENIZER_FILE} is not the file that its manifest describes: run `make encoder`"
    )


def test_an_encoder_of_well_described_nonsense(settings: Settings, encoder_path: Path, tmp_path: Path) -> None:
    manifest = read_manifest(encoder_path)
    shutil.copyfile(encoder_path / TOKENIZER_FILE, tmp_path / TOKENIZER_FILE)
    (tmp_path / MODEL_FILE).write_bytes(b"no model at all")
    files = {name: describe_file(tmp_path / name) for name in (TOKENIZER_FILE, MODEL_FILE)}
    described = {name: getattr(manifest, name) for name in Manifest.__struct_fields__} | {"files": files}
    write_manifest(tmp_path, Manifest(**described))
    nonsense = settings.model_copy(update={"encoder": tmp_path})
    create_topics(nonsense, topics_of(nonsense).specs())
    line = refused(stoppress(nonsense, "run", "articles"))
    assert line.startswith(f"ONNX Runtime cannot load {tmp_path / MODEL_FILE}: ")


def test_an_unknown_setting(settings: Settings) -> None:
    line = every_worker_refuses(settings, STOPPRESS_COLOUR="red")
    assert line == "environment: unknown setting 'colour'; the known ones are in docs/settings.md"


def test_a_wrong_value(settings: Settings) -> None:
    assert every_worker_refuses(settings, "--set", "partitions=some").startswith(
        "--set: partitions = 'some' cannot be used: Input should be a valid integer"
    )


def test_a_settings_file_that_cannot_be_read(settings: Settings, tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    line = f"cannot read the settings file {missing}: No such file or directory"
    assert every_worker_refuses(settings, "--config", str(missing)) == line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Usage"),
        (["run"], "Usage"),
        (["fly"], "No such command 'fly'"),
        (["run", "users", "--port", "many"], "--port"),
        (["run", "users", "--colour", "red"], "No such option: --colour"),
        (["dead-letters", "requeue"], "Missing option '--reason'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_usage(settings: Settings, arguments: list[str], says: str) -> None:
    answer = stoppress(settings, *arguments, environ={"COLUMNS": "200"})
    assert answer.code == 2
    assert says in answer.out + answer.err
    assert "Traceback" not in answer.err


def test_a_folder_in_which_a_broker_cannot_keep_its_data(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(stoppress(settings, "kafka", "start", "--data", str(tmp_path / "file" / "kafka")))
    assert str(tmp_path / "file") in line


def test_a_corpus_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    corpus = tmp_path / "file" / "corpus.jsonl"
    assert str(tmp_path / "file") in refused(stoppress(settings, "produce", "simulate", "--corpus", str(corpus)))


def test_a_command_imports_only_what_it_needs() -> None:
    """Help and checks are quick, and do without the extras of other commands."""
    code = "import sys, stoppress; print(*{'confluent_kafka', 'onnxruntime', 'litestar', 'torch'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "\n"


def test_a_worker_computes_on_one_thread() -> None:
    code = (
        "import os, stoppress, numpy as np; a = np.ones((500, 500)); a @ a; print(len(os.listdir('/proc/self/task')))"
    )
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    threads = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert threads.stdout.split() == ["1"]
