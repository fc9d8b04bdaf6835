"""The local broker: keeps its data, ends with its parent, says plainly what is wrong."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic

from contract.errors import PortInUse, SetupError
from contract.settings import Settings, load
from streams.clients import make_admin, make_consumer, make_producer
from streams.local_broker import LocalBroker, prepare, start_detached, status, stop
from streams.local_broker.jars import Jar, JarLock, exclusive, fetch_jars, maven_context
from streams.local_broker.process import free_port, jvm_options

PARENT = """
import os, sys, time
from pathlib import Path
from streams.local_broker import LocalBroker

broker = LocalBroker.start(Path(sys.argv[1]), die_with_parent=True)
survivor = os.fork() if sys.argv[2] == "fork" else 0
if sys.argv[2] == "fork" and survivor == 0:
    time.sleep(60)
    os._exit(0)
print(broker.port, survivor, flush=True)
time.sleep(60)
"""


def settings_for(broker: LocalBroker) -> Settings:
    return load([f"bootstrap_servers={broker.bootstrap_servers}"], environ={})


def write(broker: LocalBroker, value: bytes) -> None:
    producer = make_producer(settings_for(broker), name="test")
    producer.produce("kept", value)
    assert producer.flush(20) == 0


def read(broker: LocalBroker) -> list[bytes | None]:
    consumer: Consumer = make_consumer(settings_for(broker), name="test")
    try:
        consumer.assign([TopicPartition("kept", 0, 0)])
        _, end = consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=20)
        return [message.value() for message in consumer.consume(end, 20)]
    finally:
        consumer.close()


def test_data_outlives_a_restart_and_a_kill(tmp_path: Path) -> None:
    began = time.monotonic()
    with LocalBroker.start(tmp_path) as broker:
        print(f"ready after {time.monotonic() - began:.2f} s")
        admin = make_admin(settings_for(broker))
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
        write(broker, b"before")
        port = broker.port

        began = time.monotonic()
        broker.restart()
        print(f"ready again after {time.monotonic() - began:.2f} s")
        assert broker.port == port
        write(broker, b"between")

        broker.kill()
        assert not broker.running
        assert status(tmp_path) is None
        began = time.monotonic()
        broker.restart()
        print(f"ready again after kill -9: {time.monotonic() - began:.2f} s")
        assert read(broker) == [b"before", b"between"]
    assert not broker.running


def test_an_article_of_the_largest_size_passes(broker: LocalBroker, settings: Settings) -> None:
    topic = f"{settings.namespace}large"
    admin = make_admin(settings)
    wanted = NewTopic(topic, 1, 1, config={"max.message.bytes": str(9 << 20)})
    admin.create_topics([wanted])[topic].result(20)
    producer = make_producer(settings, name="test")
    body = os.urandom(8 << 20)
    producer.produce(topic, body)
    assert producer.flush(20) == 0
    consumer = make_consumer(settings, name="test")
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert [message.value() for message in consumer.consume(1, 20)] == [body]
    finally:
        consumer.close()


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path, how: str) -> None:
    """Also where a fork of the parent lives on and holds the guard's pipe open."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        port, survivor = map(int, parent.stdout.readline().split())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            parent.kill()
            connection.settimeout(20)
            assert connection.recv(1) == b""  # Kafka closes its connections when it ends
        if survivor:
            os.kill(survivor, signal.SIGKILL)
    with (tmp_path / "data" / ".lock").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # waits for the end of the process, which holds it until then
    assert status(tmp_path) is None


def test_a_detached_broker_is_found_again_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    began = start_detached(tmp_path, port=port)
    try:
        assert (began.port, began.ready, began.started) == (port, True, True)
        again = start_detached(tmp_path, port=port)
        assert (again.pid, again.port, again.started) == (began.pid, port, False)
        found = status(tmp_path)
        assert found is not None
        assert (found.pid, found.ready) == (began.pid, True)
        with pytest.raises(SetupError, match="already runs"):
            LocalBroker.start(tmp_path)
        with pytest.raises(PortInUse, match=f"port {port} .*--port"):
            start_detached(tmp_path / "other", port=port)
    finally:
        assert stop(tmp_path) is True
    assert status(tmp_path) is None
    assert stop(tmp_path) is False


def test_its_log_is_a_file_in_the_data_directory(broker: LocalBroker) -> None:
    assert "activation" in broker.log.read_text()  # the controller's one warning on a new directory


def test_java_accepts_the_aot_cache() -> None:
    """With AOTMode=on Java refuses to start where it would otherwise go on without the cache."""
    installed = prepare()
    flags = [*jvm_options(throughput=False), "-XX:AOTMode=on", f"-XX:AOTCache={installed.aot_cache}"]
    done = subprocess.run(
        [installed.java, *flags, "-cp", installed.classpath, "-version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jgo.config", None)
    with pytest.raises(SetupError, match=r"stoppress\[local\]"):
        maven_context(tmp_path)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jar repository on this machine, named in jgo's own settings file as a user would."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = tmp_path / "jgo.conf"
        config.write_text(f"[repositories]\nmirror = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
        yield directory
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def publish(mirror: Path, content: bytes) -> Jar:
    path = mirror / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return Jar("org.example:thing:1.0", len(content), hashlib.sha256(content).hexdigest())


def test_jars_are_fetched_once_and_anew_where_damaged(mirror: Path, tmp_path: Path) -> None:
    lock = JarLock("0", [publish(mirror, b"bytes of a jar")])
    said: list[str] = []
    (path,) = fetch_jars(lock, tmp_path / "jars", said.append)
    assert path.read_bytes() == b"bytes of a jar"
    assert "1 jars" in said[0]
    said.clear()
    fetch_jars(lock, tmp_path / "jars", said.append)
    assert said == []
    path.write_bytes(b"cut off")
    fetch_jars(lock, tmp_path / "jars", said.append)
    assert path.read_bytes() == b"bytes of a jar"


def test_a_jar_that_is_not_the_locked_one_is_refused(mirror: Path, tmp_path: Path) -> None:
    jar = publish(mirror, b"bytes of a jar")
    forged = Jar(jar.coordinate, jar.size, "0" * 64)
    with pytest.raises(SetupError, match=r"org\.example:thing:1\.0 .*sha256"):
        fetch_jars(JarLock("0", [forged]), tmp_path / "jars", print)
    assert not (tmp_path / "jars").exists()


def test_a_jar_that_cannot_be_had_is_one_line(mirror: Path, tmp_path: Path) -> None:
    missing = Jar("org.example:absent:1.0", 1, "0" * 64)
    with pytest.raises(SetupError, match="check the network") as caught:
        fetch_jars(JarLock("0", [missing]), tmp_path / "jars", print)
    assert "\n" not in str(caught.value)


def test_first_starts_at_the_same_time_fetch_once(mirror: Path, tmp_path: Path) -> None:
    lock = JarLock("0", [publish(mirror, b"bytes of a jar")])
    said: list[str] = []

    def first_start(_: int) -> bytes:
        with exclusive(tmp_path, "lock"):
            return fetch_jars(lock, tmp_path / "jars", said.append)[0].read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(first_start, range(4))) == {b"bytes of a jar"}
    assert len([line for line in said if "fetching" in line]) == 1
