"""quixstreams, exactly once, in an environment of its own.

python quix_streams.py BOOTSTRAP INPUT GROUP ARTICLES STATE_DIR
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from quixstreams import Application, State, message_context
from reduced_fold import fold, read_articles


def main(bootstrap: str, source: str, group: str, articles_file: str, state_dir: str) -> None:
    articles = read_articles(Path(articles_file))
    application = Application(
        broker_address=bootstrap,
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_every=10_000,
        commit_interval=1.0,
        state_dir=state_dir,
        loglevel="WARNING",
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
    )
    topic = application.topic(source, key_deserializer="bytes", value_deserializer="bytes")
    first = True

    def update(value: bytes, state: State) -> Any:
        nonlocal first
        if first:
            print(f"FIRST {time.time():.3f}", flush=True)
            first = False
        context = message_context()
        state.set_bytes("s", fold(state.get_bytes("s"), value, context.partition, context.offset, articles))

    application.dataframe(topic).update(update, stateful=True)
    application.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
