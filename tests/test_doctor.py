"""``stoppress doctor`` as operators call it: against a real Kafka, and where things are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime

from contract.settings import Settings
from streams.clients import make_producer

ROOT = Path(__file__).parents[1]


def stoppress(settings: Settings, *arguments: object, **changed: object) -> subprocess.CompletedProcess[str]:
    values = settings.model_dump(
        include={"bootstrap_servers", "namespace", "partitions", "article_partitions", "encoder"}
    )
    env = os.environ | {f"STOPPRESS_{name.upper()}": str(value) for name, value in (values | changed).items()}
    command = [sys.executable, "-m", "stoppress", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=100)


def examined(run: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """What was found, by what was looked at."""
    rows = {}
    for line in run.stdout.splitlines():
        rows[line[6:17].strip()] = (line[:6].strip(), line[17:])
    return rows


def test_all_is_ok_where_all_is_there(settings: Settings) -> None:
    assert stoppress(settings, "topics", "create").returncode == 0
    run = stoppress(settings, "doctor")
    assert run.returncode == 0, run.stdout + run.stderr
    found = examined(run)
    assert list(found) == ["versions", "runtime", "providers", "model", "device", "broker", "topics"]
    assert {state for state, _ in found.values()} == {"ok"}
    assert onnxruntime.__version__ in found["runtime"][1]
    assert "CPU" in found["providers"][1]
    assert "dimensions" in found["model"][1]
    assert "device = auto runs on" in found["device"][1]
    assert settings.bootstrap_servers in found["broker"][1]


def test_topics_that_are_missing(settings: Settings) -> None:
    run = stoppress(settings, "doctor")
    assert run.returncode == 1
    found = examined(run)
    assert found["broker"][0] == "ok"
    assert found["topics"] == ("TO DO", found["topics"][1])
    assert "missing; `stoppress topics create` makes it" in found["topics"][1]


def test_everything_that_is_missing_is_said_at_once(settings: Settings, tmp_path: Path) -> None:
    run = stoppress(settings, "doctor", encoder=tmp_path / "nowhere", bootstrap_servers="127.0.0.1:9")
    assert run.returncode == 1
    found = examined(run)
    assert [about for about, (state, _) in found.items() if state == "TO DO"] == ["model", "device", "broker", "topics"]
    assert "run `make encoder`" in found["model"][1]
    assert "no Kafka broker answers at 127.0.0.1:9" in found["broker"][1]


def test_no_encoder_but_a_broker(settings: Settings, tmp_path: Path) -> None:
    found = examined(stoppress(settings, "doctor", encoder=tmp_path / "nowhere"))
    assert found["broker"][0] == "ok"
    assert found["topics"][1].startswith("not looked at: no encoder at")


def test_cuda_runs_on_cuda_or_is_something_to_do(settings: Settings) -> None:
    state, says = examined(stoppress(settings, "doctor", device="cuda"))["device"]
    assert (state, says) == ("ok", "device = cuda runs on CUDA") or (state == "TO DO" and "device = cuda, but" in says)


def test_the_running_systems_articles_as_a_corpus(settings: Settings, tmp_path: Path) -> None:
    """Three can be used, of which two say the same: too few, and said before torch is needed."""
    assert stoppress(settings, "topics", "create").returncode == 0
    producer = make_producer(settings, name="test")
    topic = f"{settings.namespace}articles"
    for number, title in enumerate(["Storm", "Ferry saved", "Storm"]):
        article = {"article_id": f"a{number}", "title": title, "published_at": 1}
        producer.produce(topic, key=f"a{number}", value=json.dumps(article))
    producer.produce(topic, key="bad", value=b"not JSON")
    producer.produce(topic, key="withdrawn", value=None)
    producer.flush()
    run = stoppress(settings, "export", "encoder", "minilm", tmp_path / "out", "--dims", 8, "--corpus", "topic")
    assert run.returncode == 2
    assert "at least 500 different articles, the corpus has 2" in run.stderr


def test_a_corpus_topic_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    run = stoppress(settings, "export", "encoder", "minilm", tmp_path / "out", "--dims", 8, "--corpus", "topic")
    assert run.returncode == 2
    assert "articles is missing; run `stoppress topics create`" in run.stderr
    assert run.stderr.count("\n") == 1
