"""What a worker tells about itself: /healthz, /readyz, /metrics, and its log."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import PortInUse
from streams import health
from streams.health import HealthServer, Pulse
from streams.worker import Log, Stop, Stopped, set_up_logging


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with HealthServer("127.0.0.1", 0) as started:
        yield started


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_is_not_ready_before_it_is_told_so(server: HealthServer) -> None:
    assert get(server, "/readyz") == (503, "not ready\n")
    server.ready(True)
    assert get(server, "/readyz") == (200, "ready\n")
    server.ready(False)
    assert get(server, "/readyz") == (503, "not ready\n")


def test_a_loop_that_does_not_come_round_is_neither_alive_nor_ready(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ready(True)
    assert get(server, "/healthz") == (200, "alive\n")
    monkeypatch.setattr(health, "STUCK_AFTER_SECONDS", 0.0)
    status, text = get(server, "/healthz")
    assert status == 503
    assert "the loop has not come round for" in text
    assert get(server, "/readyz")[0] == 503
    monkeypatch.setattr(health, "STUCK_AFTER_SECONDS", 60.0)
    server.beat()
    assert get(server, "/healthz") == (200, "alive\n")


def test_metrics_are_in_the_form_that_prometheus_reads(server: HealthServer) -> None:
    server.ready(True)
    status, text = get(server, "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["stoppress_ready"].samples[0].value == 1.0


def test_a_path_that_is_not_there_says_which_are(server: HealthServer) -> None:
    status, text = get(server, "/health")
    assert status == 404
    assert "/healthz" in text


def test_a_port_in_use_is_named(server: HealthServer) -> None:
    with pytest.raises(PortInUse, match=f"127.0.0.1:{server.port} is in use .*--port"):
        HealthServer("127.0.0.1", server.port)


def test_who_waits_beats_until_a_stop_is_requested(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    pulse = Pulse(stop, server)
    server._beat = 0.0  # long ago
    pulse.beat()
    assert get(server, "/healthz")[0] == 200
    threading.Timer(0.05, stop.request).start()
    pulse.wait(60)
    with pytest.raises(Stopped):
        pulse.beat()


WORKER = """
import sys, time
from streams.worker import Log, Stop, set_up_logging

set_up_logging("info")
stop = Stop.on_signals(0.5)
print("up", flush=True)
if sys.argv[1] == "busy":
    while True:  # a loop that does not look at what was requested
        pass
if sys.argv[1] == "waiting":
    stop.wait()
Log("test").info("ended", requested=stop.requested)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("behaviour", "code", "event"), [("waiting", 0, "ended"), ("busy", 1, "deadline_passed")])
def test_a_signal_ends_the_process_by_itself_or_at_the_deadline(
    number: signal.Signals, behaviour: str, code: int, event: str
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WORKER, behaviour], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(number)
        assert child.wait(20) == code
        (line,) = [json.loads(line) for line in child.stderr]
        assert line["event"] == event


def test_off_a_terminal_the_log_is_json_with_an_event_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    logging_before = logging.getLogger().handlers[:]
    try:
        set_up_logging("info")
        Log("test").info("restored", partitions=3, note='a "quoted"\nline')
        Log("test").debug("not at this level")
        logging.getLogger("stoppress.test").error("failed", exc_info=ValueError("why"))
    finally:
        logging.getLogger().handlers[:] = logging_before
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("restored", "info", "stoppress.test")
    assert (first["partitions"], first["note"]) == (3, 'a "quoted"\nline')
    assert first["at"].endswith("Z")
    assert "ValueError: why" in second["traceback"]


def test_an_event_that_repeats_is_limited_and_what_was_held_back_is_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.time_ns", lambda: int(now * 1e9))
    logging_before = logging.getLogger().handlers[:]
    try:
        set_up_logging("info")
        for _ in range(1000):
            Log("test").warning("consumer_error")
        Log("test").warning("another")
        now = 1_001.0
        Log("test").warning("consumer_error")
    finally:
        logging.getLogger().handlers[:] = logging_before
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["consumer_error"] * 20 + ["another", "consumer_error"]
    assert lines[-1]["held_back"] == 980
