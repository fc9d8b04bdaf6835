"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import SetupError


@contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """Make a folder to build in, on the same file system as ``out``; whatever is left in it goes at the end."""
    work = out.parent / f".{out.name}.{os.getpid()}"
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise SetupError(f"cannot write beside {out}: {error.strerror}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def put_in_place(work: Path, out: Path) -> None:
    """Rename ``work`` to ``out``; what stood there goes only after that."""
    former = work.with_name(work.name + ".former")
    if out.exists():
        out.rename(former)
    work.rename(out)
    shutil.rmtree(former, ignore_errors=True)
