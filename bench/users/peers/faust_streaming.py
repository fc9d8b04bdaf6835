"""faust-streaming, exactly once: python faust_streaming.py worker, settings in FOLD_*. In an environment of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import faust
from reduced_fold import fold, read_articles

GROUP = os.environ["FOLD_GROUP"]
articles = read_articles(Path(os.environ["FOLD_ARTICLES"]))
app = faust.App(
    GROUP,
    broker=f"kafka://{os.environ['FOLD_BOOTSTRAP']}",
    processing_guarantee="exactly_once",
    store="memory://",
    topic_partitions=4,
    topic_replication_factor=1,
    topic_allow_declare=True,
    topic_disable_leader=True,
    broker_commit_interval=1.0,
    stream_wait_empty=False,
    datadir=os.environ["FOLD_STATE"],
    web_enabled=False,
    key_serializer="raw",
    value_serializer="raw",
)
source = app.topic(os.environ["FOLD_SOURCE"], key_type=bytes, value_type=bytes)
states = app.Table("states", partitions=4, key_type=bytes, value_type=bytes)
first = True


@app.agent(source)
async def update(stream: faust.StreamT[bytes]) -> None:
    """Fold one event after the other."""
    global first
    async for event in stream.events():
        if first:
            print(f"FIRST {time.time():.3f}", flush=True)
            first = False
        message = event.message
        states[event.key] = fold(states.get(event.key), event.value, message.tp.partition, message.offset, articles)


if __name__ == "__main__":
    app.main()
