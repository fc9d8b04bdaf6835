"""Our contender: a worker of the parts in ``streams``, folding the reduced record in whole batches.

    python -m bench.users.stoppress_worker INPUT CHANGELOG ARTICLES BATCH WAIT_MS

Settings come from ``STOPPRESS_*``; ``STOPPRESS_SLOT`` tells two of them apart.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bench.users.reduced import DIMS, HALF_LIFE_MS, STATE, splitmix64
from contract.settings import load
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.record import Record
from streams.restore import Restore
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Stop, Stopped

NAME = "bench-users"
AT_ONCE = 1000
RESTORED_AT_ONCE = 5000
ROOM = 1 << 21
"""So many users before the tables grow. It is address space alone: a page is taken when something is written to it."""


class Click(msgspec.Struct, gc=False):
    at: int
    article_id: str


_decode_lines = msgspec.json.Decoder(Click).decode_lines


class States:
    """All users of the partitions owned, as rows of one structured array."""

    def __init__(self, changelog: str) -> None:
        self._changelog = changelog
        self.rows: dict[bytes, int] = {}
        self.keys: list[bytes] = []
        self.partition: NDArray[np.int32] = np.zeros(ROOM, np.int32)
        self.table = np.zeros(ROOM, STATE)

    def restore(self, restore: Restore) -> None:
        """Read the changelog of these partitions to its end."""
        began = time.perf_counter()
        chunk: list[Record] = []

        def put(record: Record) -> None:
            chunk.append(record)
            if len(chunk) == RESTORED_AT_ONCE:
                self._put(chunk)

        restore.read(self._changelog, put)
        self._put(chunk)
        print(f"RESTORED {restore.records} {time.perf_counter() - began:.3f}", flush=True)

    def _put(self, chunk: list[Record]) -> None:
        rows = self.rows_of([record.key() or b"" for record in chunk], [record.partition() for record in chunk])
        self.table[rows] = np.frombuffer(b"".join([record.value() or b"" for record in chunk]), STATE)
        chunk.clear()

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the users of these partitions."""
        used = len(self.keys)
        kept = np.flatnonzero(~np.isin(self.partition[:used], list(partitions)))
        self.keys = [self.keys[row] for row in kept.tolist()]
        self.rows = {key: row for row, key in enumerate(self.keys)}
        for table in (self.table, self.partition):
            table[: len(kept)] = table[kept]
            table[len(kept) : used] = np.zeros(1, table.dtype)

    def rows_of(self, keys: Sequence[bytes], partitions: Sequence[int]) -> NDArray[np.intp]:
        """Return each key's row, made where there was none."""
        known = self.rows
        rows = list(map(known.get, keys))
        if None in rows:
            new = dict.fromkeys([key for key, row in zip(keys, rows, strict=True) if row is None])
            known.update(zip(new, count(len(known)), strict=False))
            self.keys += new
            rows = list(map(known.__getitem__, keys))
            if len(known) > len(self.table):
                # In place, which moves pages instead of copying them; nothing else holds a view.
                self.table.resize(len(known) * 3 // 2, refcheck=False)
                self.partition.resize(len(self.table), refcheck=False)
            self.partition[np.array(rows)] = partitions
        return np.array(rows, np.intp)


def fold(
    states: States, records: Sequence[Record], index: Mapping[str, int], articles: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.void]]:
    """Return the rows that the records touch and their new states; nothing current is written to."""
    partitions = [record.partition() for record in records]
    offsets = np.array([record.offset() for record in records], np.int64)
    clicks = _decode_lines(b"\n".join([record.value() or b"" for record in records]))
    at = np.array([click.at for click in clicks], np.int64)
    columns = np.array([index[click.article_id] for click in clicks], np.int32)
    rows = states.rows_of([record.key() or b"" for record in records], partitions)
    order = np.argsort(rows, kind="stable")
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    touched = rows[order][starts]
    lengths = np.diff(np.append(starts, len(order)))

    staged = states.table[touched]
    at, columns, offsets = at[order], columns[order], offsets[order]
    newest = np.maximum(np.maximum.reduceat(at, starts), staged["at"])
    added = np.exp2((at - np.repeat(newest, lengths)) / HALF_LIFE_MS).astype(np.float32)
    kept = np.exp2((staged["at"] - newest) / HALF_LIFE_MS).astype(np.float32)
    weights = csr_array((added, columns, np.append(starts, len(order))), shape=(len(touched), len(articles)))
    staged["sum"] = staged["sum"] * kept[:, None] + weights @ articles
    staged["at"] = newest
    staged["folded"] += lengths
    staged["hash_sum"] += np.add.reduceat(splitmix64(np.array(partitions)[order], offsets), starts)
    staged["last_offset"] = np.maximum.reduceat(offsets, starts)
    return touched, staged


def run(source_topic: str, changelog: str, articles_file: Path, most: int, wait_seconds: float) -> None:
    """Fold until a stop is requested, in batches of at most ``most`` records."""
    # A batch's records hold no cycles, and looking for some in them takes a sixth of the time.
    gc.freeze()
    gc.set_threshold(1_000_000)
    settings = load()
    stop = Stop.on_signals()
    articles = np.fromfile(articles_file, "<f4").reshape(-1, DIMS)
    index = {f"article-{number:05d}": number for number in range(len(articles))}
    states = States(changelog)
    identity = Identity.of(settings, NAME, "reduced")
    first = True
    with suppress(Stopped), ExitStack() as stack:
        pulse = Pulse(stop, stack.enter_context(HealthServer("127.0.0.1", 0)))
        output = TransactionalOutput(settings, identity, name=NAME, pulse=pulse, reads=source_topic, writes=[changelog])
        group = GroupInput(settings, source_topic, identity, states, name=NAME, changelogs=[changelog], pulse=pulse)
        source = stack.enter_context(closing(group))
        while not stop.requested:
            records = source.consume(min(AT_ONCE, most), wait_seconds)
            while AT_ONCE <= len(records) < most and len(more := source.consume(AT_ONCE, 0.0)) > 0:
                records += more
            if not records:
                continue
            if first:
                print(f"FIRST {time.time():.3f}", flush=True)
                first = False
            touched, staged = fold(states, records, index, articles)
            values, size = staged.tobytes(), STATE.itemsize
            with output.transaction(source, source.positions_after(records)):
                places = zip(touched.tolist(), states.partition[touched].tolist(), strict=True)
                for number, (row, partition) in enumerate(places):
                    output.send(changelog, states.keys[row], values[number * size : (number + 1) * size], partition)
            states.table[touched] = staged


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]) / 1000)
