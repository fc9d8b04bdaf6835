"""Make a virtual environment and install locked packages and this project into it.

``python scripts/install.py VENV SIZE LOCK ...`` says what it fetches and leaves VENV/installed when it
is complete. No syntax in here is newer than Python 3.7, so that it can tell an old one to step aside.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)


def main(venv: str, size: str, *locks: str) -> None:
    found = sys.version_info[:2]
    if found < OLDEST:
        sys.exit(f"stoppress needs Python 3.11 or newer, this is {found[0]}.{found[1]}: make PYTHON=python3.11 ...")
    print(f"installing into {venv}: {size}", flush=True)
    began = time.monotonic()
    python = Path(venv, "bin", "python")
    if subprocess.call([sys.executable, "-m", "venv", venv]) != 0:
        sys.exit("this Python cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps"]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    _run([*pip, *quiet, "--require-hashes", *(word for lock in locks for word in ("-r", lock))])
    _run([*pip, "--no-build-isolation", "-e", "."], only_failure=True)
    Path(venv, "installed").touch()
    print(f"{venv} is ready after {time.monotonic() - began:.0f} s", flush=True)


def _run(command: list[str], only_failure: bool = False) -> None:
    done = subprocess.run(command, capture_output=only_failure, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout or "", done.stderr or "", file=sys.stderr)
        sys.exit("failed: " + " ".join(command))


if __name__ == "__main__":
    main(*sys.argv[1:])
