"""Runs a command as its child and ends it when the process at the other end of standard input is gone.

A script of its own, standard library only: ``python -I -S guard.py COMMAND ...``. It prints the
child's pid. End of file on standard input, or another parent than at the start (a fork may hold the
pipe open), means that whoever started it has died, by kill -9 as well.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

_LOOK_EVERY_SECONDS = 0.5
_GRACE_SECONDS = 10.0


def main(command: list[str]) -> None:
    parent = os.getppid()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    print(child.pid, flush=True)
    threading.Thread(target=lambda: os._exit(child.wait()), daemon=True).start()
    while os.getppid() == parent and not select.select([sys.stdin], [], [], _LOOK_EVERY_SECONDS)[0]:
        pass
    child.terminate()
    threading.Timer(_GRACE_SECONDS, child.kill).start()


if __name__ == "__main__":
    main(sys.argv[1:])
