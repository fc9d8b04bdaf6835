"""The limit: reads the input and commits how far it came, and does nothing else.

python -m bench.users.consume_only BOOTSTRAP TOPIC GROUP
"""

from __future__ import annotations

import sys
import time

from contract.settings import load
from streams.clients import make_consumer
from streams.worker import Stop


def main(bootstrap: str, topic: str, group: str) -> None:
    stop = Stop.on_signals()
    consumer = make_consumer(load([f"bootstrap_servers={bootstrap}"], environ={}), name="bench-consume", group=group)
    consumer.subscribe([topic])
    since, behind = 0, False
    while not stop.requested:
        messages = consumer.consume(1000, 0.05)
        if messages and not since:
            print(f"FIRST {time.time():.3f}", flush=True)
        since += len(messages)
        behind = behind or bool(messages)
        if behind and (len(messages) < 1000 or since % 100_000 < 1000):
            consumer.commit(offsets=consumer.position(consumer.assignment()), asynchronous=False)
            behind = False
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
