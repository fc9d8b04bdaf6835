"""Exact search by other libraries, in a process and an environment of its own.

    python bench/ranker_peers.py FOLDER TOP CHUNK

Searches FOLDER/articles.npy [n, d] for each CHUNK of FOLDER/queries.npy [m, d] by inner product, with one thread,
writes the places of the TOP nearest to FOLDER/NAME.npy, and answers a line of JSON: the least seconds of five runs
by library, or of fewer where those take longer than ten seconds. Imports nothing of stoppress, whose packages are
not here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MOST_SECONDS = 10.0
Search = Callable[[Any], Any]


def faiss_flat(articles: Any, top: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(articles.shape[1])
    index.add(articles)
    return lambda queries: index.search(queries, top)[1]


def usearch_exact(articles: Any, top: int) -> Search:
    from usearch.index import MetricKind, search

    return lambda queries: search(articles, queries, top, MetricKind.IP, exact=True, threads=1).keys


PEERS = {"faiss flat": faiss_flat, "usearch exact": usearch_exact}


def main(folder: Path, top: int, chunk: int) -> None:
    """Search with each."""
    articles, queries = np.load(folder / "articles.npy"), np.load(folder / "queries.npy")
    chunks = [queries[start : start + chunk] for start in range(0, len(queries), chunk)]
    seconds = {}
    for name, peer in PEERS.items():
        search = peer(articles, top)
        np.save(folder / f"{name}.npy", np.concatenate([np.asarray(search(some), np.int64) for some in chunks]))
        runs: list[float] = []
        while len(runs) < 5 and sum(runs) < MOST_SECONDS:
            began = time.perf_counter()
            for some in chunks:
                search(some)
            runs.append(time.perf_counter() - began)
        seconds[name] = min(runs)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
