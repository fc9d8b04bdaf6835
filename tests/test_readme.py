"""README.md is true: every block of it is run here, in its order and in a folder like a fresh clone's.

What is put in place of what stands there is listed in SHORTER: other ports, fewer readers, less time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from contract.settings import PREFIX
from scripts.make_readme import LARGEST_PICTURE, table, with_figures
from tests.pipeline import ROOT, await_true
from tests.running_demo import PAGE, left_running

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FEW = "--users=40 --articles=60 --clicks-per-second=20"

SHORTER = {
    "make run": f'make -o .venv/installed run ARGS="--seconds=6 {FEW} --report=demo.json"',
    "make test": "make -n test",  # these are the tests
    "--seconds 60 --report": "--seconds 8 --report",
    "produce simulate --seconds 30": "produce simulate --seconds 3 --users 40 --archive 60 --clicks-per-second 20",
    "--format mind MIND --seconds 60": "--format mind MIND --seconds 3",
    "curl -N": "curl -N --max-time 3",
}


def blocks(language: str) -> list[str]:
    return [text for name, text in FENCE.findall(README) if name == language]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]
RUN: set[str] = set()
"""Lines of COMMANDS, and the Python block, that a test has run."""


def command(beginning: str) -> str:
    """The one command of README.md that begins so."""
    found = [line for line in COMMANDS if line.startswith(beginning)]
    assert len(found) == 1, (beginning, found)
    RUN.add(found[0])
    return found[0]


class Clone:
    """A folder like a clone's with everything set up; ``var`` and the ports are its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        for path in ROOT.iterdir():
            if path.name not in ("var", ".git"):
                (self.folder / path.name).symlink_to(path)
        (self.folder / "var").mkdir()
        (self.folder / "var" / "encoder").symlink_to(ROOT / "var" / "encoder")
        self.kafka, self.feed = free_port(), free_port()
        self.env = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "MAKE"))}
        self.started: list[subprocess.Popen[str]] = []

    def adapted(self, text: str) -> str:
        for written, shorter in SHORTER.items():
            if written in text:
                text = text.replace(written, shorter)
        text = text.replace("127.0.0.1:9092", f"127.0.0.1:{self.kafka}").replace(":8100", f":{self.feed}")
        text = text.replace("kafka start", f"kafka start --port {self.kafka}")
        return text.replace("run feed", f"run feed --port {self.feed}")

    def run(self, line: str, *, code: int = 0) -> str:
        """Run one command to its end; return what it printed."""
        return self._ended(line, code).stdout

    def _ended(self, line: str, code: int) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            ["bash", "-c", self.adapted(line)],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ended.returncode == code, (line, ended.stdout[-2000:], ended.stderr[-2000:])
        return ended

    def refused(self, line: str) -> str:
        """Run a command that is refused with exit code 2; return what it said."""
        return self._ended(line, 2).stderr

    def start(self, line: str) -> subprocess.Popen[str]:
        """Start a command that runs until it is stopped."""
        process = subprocess.Popen(
            shlex.split(self.adapted(line)), cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(process)
        return process

    def export(self, lines: list[str]) -> None:
        """What ``export NAME=VALUE`` lines do to the shell."""
        printed = self.run("\n".join([*lines, "env -0"]))
        self.env = dict(pair.split("=", 1) for pair in printed.split("\0") if "=" in pair)

    def end(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            process.communicate(timeout=30)
        subprocess.run([sys.executable, "-m", "stoppress", "kafka", "stop"], cwd=self.folder, check=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def write_mind(folder: Path) -> None:
    """A small data set in MIND's format."""
    folder.mkdir()
    news = [f"N{n}\tnews\tharbour\tFerry {n} returns to the old quay\tIt sails at {n}.\t\t[]\t[]" for n in range(40)]
    seen = [
        f"{n}\tU{n % 8}\t11/15/2019 {n % 12 + 1}:{n % 60:02}:00 AM\tN{n % 40}\tN{(n + 1) % 40}-1 N{(n + 7) % 40}-0"
        for n in range(60)
    ]
    (folder / "news.tsv").write_text("".join(f"{line}\n" for line in news))
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in seen))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Iterator[Clone]:
    made = Clone(tmp_path_factory.mktemp("clone"))
    write_mind(made.folder / "MIND")
    yield made
    made.end()
    await_true(lambda: not left_running(made.folder), "the end of it all", 30, lambda: left_running(made.folder))


@pytest.fixture(scope="module")
def system(clone: Clone) -> Clone:
    """README.md's own system: broker, topics, the four workers, and articles with clicks on them."""
    clone.export([line for line in COMMANDS if line.startswith("export ")])
    RUN.update(line for line in COMMANDS if line.startswith("export "))
    assert clone.env["STOPPRESS_BOOTSTRAP_SERVERS"] == f"127.0.0.1:{clone.kafka}"
    assert f"127.0.0.1:{clone.kafka}" in clone.run(command(".venv/bin/stoppress kafka start"))
    assert f"127.0.0.1:{clone.kafka}" in clone.run(command(".venv/bin/stoppress kafka status"))
    clone.run(command(".venv/bin/stoppress topics create"))
    assert clone.run(command(".venv/bin/stoppress topics check")) == "all topics are as they should be\n"
    for worker in ("articles", "users", "ranker", "feed"):
        clone.start(command(f".venv/bin/stoppress run {worker}"))
    assert "CTR personal" in clone.run(command(".venv/bin/stoppress produce simulate"))
    return clone


def test_make_run_shows_the_demo(clone: Clone) -> None:
    said = clone.run(command("make run"))
    assert PAGE.search(said)
    assert json.loads((clone.folder / "demo.json").read_bytes())["lost"] == 0


def test_make_test_runs_all_tests_with_everything_that_they_need(clone: Clone) -> None:
    lines = clone.run(command("make test")).splitlines()
    assert lines[-1].split()[:3] == [".venv/bin/python", "-m", "pytest"]
    assert lines[-1].split()[3:] == ["-n", "2"], "no test is left out"
    assert "sh scripts/install_browser.sh" in lines


def test_a_day_of_real_news_is_replayed_with_a_report(clone: Clone) -> None:
    clone.run(command(".venv/bin/stoppress demo --replay"))
    report = json.loads((clone.folder / "replay.json").read_bytes())
    assert report["lost"] == 0
    assert report["articles_published"] == 40
    assert report["events_sent"] >= 60


def test_a_system_of_ones_own_serves_lists(system: Clone) -> None:
    feed = json.loads(system.run(command("curl http")))
    assert feed["user_id"] == "reader-1"
    assert feed["fallback"]
    assert len(feed["items"]) == 20
    streamed = system.run(command("curl -N"), code=28)  # the time is up
    assert "event: feed\ndata: " in streamed


def test_the_python_client_sends_an_event_and_prints_the_list_that_it_caused(system: Clone) -> None:
    (client,) = blocks("python")
    RUN.add(client)
    assert len([line for line in client.splitlines() if line]) <= 16
    script = system.folder / "client.py"
    script.write_text(system.adapted(client))
    printed = system.run(f"{shlex.quote(sys.executable)} client.py")
    found = re.fullmatch(r"(\d+) ms later: \[('.+')\]\n", printed)
    assert found, printed
    assert found[2].count(",") == 19
    assert not json.loads(system.run(command("curl http")))["fallback"], "reader-1 is a user with a list now"


def test_a_data_set_is_replayed_into_it(system: Clone) -> None:
    system.run(command(".venv/bin/stoppress produce replay"))
    await_true(lambda: "N1" in articles_of(system, "U1"), "a list of the replayed articles", 60)


def articles_of(system: Clone, user_id: str) -> str:
    with urlopen(f"http://127.0.0.1:{system.feed}/v1/feed/{user_id}", timeout=10) as answer:
        items = json.load(answer)["items"]
    return " ".join(item["article_id"] for item in items)


def test_dead_letters_are_listed_and_sent_again(system: Clone) -> None:
    assert re.search(r"^\d+ dead letters$", system.run(command(".venv/bin/stoppress dead-letters list")), re.MULTILINE)
    requeue = command(".venv/bin/stoppress dead-letters requeue")
    assert re.fullmatch(r"\d+ sent again\n", system.run(requeue))


def test_the_broker_stops(system: Clone) -> None:
    for process in system.started:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in system.started] == [0, 0, 0, 0]
    assert system.run(command(".venv/bin/stoppress kafka stop")) == "stopped\n"


def test_an_encoder_of_ones_own_takes_a_corpus_of_enough_articles(clone: Clone) -> None:
    """The command as far as is quick; a real export is in test_export.py."""
    line = command(".venv-export/bin/stoppress export encoder")
    if not (ROOT / ".venv-export").exists():
        line = line.replace(".venv-export", ".venv")
    clone.run(".venv/bin/stoppress produce simulate --corpus articles.jsonl --corpus-articles 400")
    assert "at least 500 different articles, the corpus has 400" in clone.refused(line)


def test_every_block_of_the_readme_was_run() -> None:
    """The last of this file: a block that no test above has run is one that nobody knows to be true."""
    assert {name for name, _ in FENCE.findall(README)} == {"sh", "python"}
    assert [line for line in [*COMMANDS, *blocks("python")] if line not in RUN] == []


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_command_that_is_mentioned_is_one(text: str, clone: Clone) -> None:
    mentioned = re.findall(r"`(make [^`]+)`", text) + re.findall(r"^(?: {4})?(make [^#\n]+)", text, re.MULTILINE)
    assert len(mentioned) > 2
    for line in mentioned:
        clone.run(line.replace("make ", "make -n ", 1))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/evaluation.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    local = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("https://")]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_picture_is_one_of_a_size_to_load(encoder_path: Path) -> None:
    picture = (ROOT / "docs" / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= LARGEST_PICTURE


def test_the_figures_are_those_of_the_reports() -> None:
    latency = {"p50": 90, "p95": 180, "p99": 240, "count": 25_000}
    report = {
        "seconds": 50.0, "events_sent": 100_000, "lists_published": 25_000, "lost": 0, "recovery_s": [3.21],
        "event_to_list_ms": latency, "publish_to_list_ms": {**latency, "p50": 150},
        "ctr": {"personal": 0.061, "popular": 0.044}, "precision": {"personal": 0.41, "popular": 0.12},
    }  # fmt: skip
    figures = table(report, report)
    for expected in ("**90 ms** at the median, p99 240 ms", "**150 ms**", "2,000 events/s", "500 lists/s", "3.2 s",
                     "**6.1%** in the readers' own lists, 4.4% in the popular list", "**0** of 200,000"):  # fmt: skip
        assert expected in figures
    readme = with_figures(README, figures)
    assert figures in readme
    assert with_figures(readme, figures) == readme
    with pytest.raises(SystemExit, match="3 events were lost"):
        table({**report, "lost": 3}, report)
