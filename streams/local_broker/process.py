"""One Kafka process: its files in the data directory, its command line, and when it is ready."""

from __future__ import annotations

import fcntl
import logging
import random
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from contract.errors import PortInUse, SetupError

HOST = "127.0.0.1"
LOG_NAME = "kafka.log"
_LOG_KEPT_BYTES = 5 << 20
# Below the ports that systems hand out to connecting clients, who might take it while the broker restarts.
_PORTS = range(20_000, 32_768)

# Sizes let a record of 9 MiB through: an article may carry a body of 5 MB, a dead letter wraps it whole.
# The short sessions make a killed broker come back in seconds: its old registration must time out first.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:0
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.quorum.bootstrap.servers={host}:0
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=1000
log.cleaner.backoff.ms=1000
log.cleaner.dedupe.buffer.size=33554432
message.max.bytes=9437184
replica.fetch.max.bytes=9437184
num.network.threads=2
num.io.threads=4
"""

_LOGGING = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""

_JVM = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    # Java 25 warns at each start that a few of the stubs in its AOT cache do not fit, and makes them anew.
    "-Xlog:aot=error,aot+codecache+stubs=error",
)
_QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_THROUGHPUT = ("-XX:+UseG1GC",)


def jvm_options(*, throughput: bool) -> tuple[str, ...]:
    """Return the JVM's flags: quickest to start, or fully optimising for benchmarks."""
    return _JVM + (_THROUGHPUT if throughput else _QUICK_START)


def free_port() -> int:
    """Return a port on loopback that nobody listens on now."""
    for port in random.sample(_PORTS, 100):
        try:
            require_free(port)
        except PortInUse:
            continue
        return port
    raise PortInUse(f"no free port found between {_PORTS.start} and {_PORTS.stop}")


def require_free(port: int) -> None:
    """Raise :class:`PortInUse` where somebody listens on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise PortInUse(
                f"port {port} on {HOST} is taken; stop what listens there or choose another with --port"
            ) from None


def write_properties(data_dir: Path, port: int) -> Path:
    """Write ``server.properties`` and the logging settings into ``data_dir``; return the first."""
    (data_dir / "log4j2.properties").write_text(_LOGGING)
    path = data_dir / "server.properties"
    path.write_text(_PROPERTIES.format(host=HOST, port=port, logs=data_dir / "data"))
    return path


def prepare_files(data_dir: Path, port: int, template: Path) -> Path:
    """Make ``data_dir`` ready for a start on ``port``; data that is there stays. Returns ``server.properties``."""
    if in_use(data_dir):
        raise SetupError(f"a broker already runs on {data_dir}; stop it or choose another directory")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not (data_dir / "data" / "meta.properties").exists():
            shutil.copytree(template, data_dir / "data", dirs_exist_ok=True)
        log = data_dir / LOG_NAME
        if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        return write_properties(data_dir, port)
    except OSError as error:
        raise SetupError(f"cannot keep Kafka's data in {data_dir}: {error.strerror}") from None


def command(java: Path, classpath: str, properties: Path, options: tuple[str, ...]) -> list[str]:
    """Return the command line that runs the broker of ``properties``."""
    return [
        str(java),
        *options,
        f"-XX:ErrorFile={properties.with_name('jvm-crash.log')}",
        f"-Dlog4j2.configurationFile={properties.with_name('log4j2.properties')}",
        "-cp",
        classpath,
        "kafka.Kafka",
        str(properties),
    ]


def in_use(data_dir: Path) -> bool:
    """Tell whether a broker runs on ``data_dir``: Kafka locks ``data/.lock`` as long as it lives."""
    try:
        with (data_dir / "data" / ".lock").open("r+b") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def wait_ready(port: int, alive: Callable[[], bool], seconds: float) -> bool:
    """Block until the broker on ``port`` answers a metadata request; False where it died or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        if _listens(port) and _answers(port):
            return True
        time.sleep(0.02)
    return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _answers(port: int) -> bool:
    quiet = logging.Logger("local broker", logging.CRITICAL + 1)
    properties: dict[str, Any] = {"bootstrap.servers": f"{HOST}:{port}", "log_level": 0, "logger": quiet}
    admin = AdminClient(properties)
    try:
        return bool(admin.list_topics(timeout=2.0).brokers)
    except KafkaException:
        return False


def last_error(data_dir: Path) -> str:
    """Return the last line of the broker's log that tells of an error, or the last line at all, or ''."""
    try:
        lines = (data_dir / LOG_NAME).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    telling = [line for line in lines[-200:] if " ERROR " in line or " FATAL " in line or "Exception" in line]
    return (telling or lines or [""])[-1].strip()
