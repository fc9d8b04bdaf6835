"""The ranking: exact search, the whole ranking with its rules, and one publication against a million users.

    python -m bench.ranker

With one thread, as the worker runs; faiss and usearch in a process of their own, and so is the publication. What every
search finds is held against float64. The first row of a group is the best, to which the others' ratios are.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.exact_search_graph import search_graph
from bench.report import Row, write
from contract.records import KIND_BITS, RECENT
from ranking.candidates import Amounts, best_places, products
from ranking.catalogue import Catalogue, Facts
from ranking.features import Weights
from ranking.ranking import Formula, Standing, concerned, rank, rank_traced
from ranking.readers import Past, Readers
from ranking.rules import Rules

ARTICLES = (1_000, 10_000, 100_000)
DIMS = (96, 384)
TOP = 50
SIMILAR = 150
"""With what the other ways of finding candidates add, and less what several find, some 200 are scored."""
CHUNK = 64
USERS = 256
READERS = 1_000_000
PUBLICATION = "publication"
NOW = 1_750_000_000_000
HOUR = 3_600_000
PEERS = Path(__file__).parents[1] / ".venv-bench-ranker" / "bin" / "python"
Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[np.intp]]


def main() -> None:
    if not PEERS.exists():
        print(f"without faiss and usearch, which are not installed: `make {PEERS.parents[1].name}/installed`")
    rows: list[Row] = []
    draw = np.random.default_rng(1)
    for dims in DIMS:
        for count in ARTICLES:
            rows += exact_search(draw, count, dims)
    searched = {row.group: row.value for row in rows if row.name == "stoppress"}
    for count in ARTICLES:
        rows.append(whole_ranking(draw, count, searched[search_group(count, 96)]))
    command = [sys.executable, "-m", "bench.ranker", PUBLICATION]
    alone = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout  # for its memory to be its own
    rows += msgspec.json.decode(alone, type=list[Row])
    print(write("ranker", rows))


def exact_search(draw: np.random.Generator, count: int, dims: int) -> list[Row]:
    """Users a second, top 50: ours, plain numpy, ONNX Runtime, and the libraries of the peers' environment."""
    articles, queries = units(draw, count, dims), units(draw, USERS, dims)
    session = ort.InferenceSession(search_graph(TOP), one_thread(), providers=["CPUExecutionProvider"])
    columns = np.ascontiguousarray(articles.T)

    def ours(some: Floats) -> NDArray[np.intp]:
        found = products(articles, some)
        return best_places(found.scores, TOP, found.maxima)

    def plain(some: Floats) -> NDArray[np.intp]:
        scores = some @ articles.T
        best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    def onnx(some: Floats) -> NDArray[np.intp]:
        return np.asarray(session.run(["places"], {"queries": some, "articles": columns})[0], np.intp)

    searches: dict[str, Search] = {"stoppress": ours, "numpy argpartition": plain, "ONNX Runtime MatMul + TopK": onnx}
    exact = queries.astype(np.float64) @ articles.T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :TOP]
    group = search_group(count, dims)
    rows = []
    for name, search in searches.items():
        hold_against(exact, best, name, np.concatenate(in_chunks(search, queries)))
        seconds = least_seconds(partial(in_chunks, search, queries))
        rows.append(Row(name=name, value=USERS / seconds, unit="users/s", group=group))
    for name, (seconds, found) in peers(articles, queries).items():
        hold_against(exact, best, name, found)
        rows.append(Row(name=name, value=USERS / seconds, unit="users/s", group=group))
    return sorted(rows, key=lambda row: -row.value)


def search_group(count: int, dims: int) -> str:
    return f"top {TOP} of {count:,} articles, d = {dims}"


def hold_against(exact: NDArray[np.float64], best: NDArray[np.float64], name: str, found: NDArray[np.intp]) -> None:
    """Raise where what was ``found`` [users, TOP] is less near than the ``best``."""
    difference = np.abs(np.take_along_axis(exact, found, axis=1) - best).max()
    if difference > 1e-5:
        raise AssertionError(f"{name} is not exact: {difference}")


def peers(articles: Floats, queries: Floats) -> dict[str, tuple[float, NDArray[np.intp]]]:
    """Seconds and places by library; none where their environment is not there."""
    if not PEERS.exists():
        return {}
    with TemporaryDirectory() as folder:
        np.save(f"{folder}/articles.npy", articles)
        np.save(f"{folder}/queries.npy", queries)
        script = Path(__file__).with_name("ranker_peers.py")
        done = subprocess.run([PEERS, script, folder, str(TOP), str(CHUNK)], stdout=subprocess.PIPE, check=True)
        seconds = json.loads(done.stdout)
        return {name: (taken, np.load(f"{folder}/{name}.npy").astype(np.intp)) for name, taken in seconds.items()}


def in_chunks(search: Search, queries: Floats) -> list[NDArray[np.intp]]:
    return [search(queries[start : start + CHUNK]) for start in range(0, len(queries), CHUNK)]


def whole_ranking(draw: np.random.Generator, count: int, searched: float) -> Row:
    """Users a second for lists of 20: candidates, all parts, all rules; ``searched`` are those of our exact search."""
    category = draw.integers(1, 13, count)
    vectors = units(draw, 13, 96)[category] + 0.8 * units(draw, count, 96)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    hashes = draw.integers(1, 2**63, count).astype(np.uint64)
    facts = Facts(
        category=category.astype(np.uint64),
        source=draw.integers(1, 6, count).astype(np.uint64),
        popularity=draw.normal(0, 0.5, count).astype(np.float32),
        impressions=draw.integers(0, 200, count).astype(np.float32),
    )
    published = NOW - draw.integers(0, 24 * HOUR, count)
    catalogue = Catalogue([str(n) for n in range(count)], vectors, hashes, published, facts)
    pasts, queries = [], []
    for user in range(USERS):
        read = draw.choice(np.flatnonzero(category == 1 + user % 12), 30)
        shown = hashes[draw.choice(count, 100, replace=False)]
        recents = b"".join(RECENT.pack(int(hashes[place]), NOW, KIND_BITS["click"] << 16) for place in read)
        liked = np.array([(1 + user % 12, 9.0)], [("category", "<u8"), ("weight", "<f8")]).tobytes()
        pasts.append(Past(np.unique(hashes[read]).tobytes(), shown.tobytes(), bytes([1] * 100), recents, liked, NOW))
        interest = vectors[read].sum(axis=0)
        queries.append(np.stack([interest, interest]) / np.linalg.norm(interest))
    seeds = draw.integers(1, 2**63, USERS).astype(np.uint64)
    readers = Readers.of(np.array(queries, np.float32), pasts, seeds=seeds)
    formula = Formula(rules=Rules(category_cap=10, source_cap=10), amounts=Amounts(similar=SIMILAR))
    seconds = least_seconds(lambda: rank(readers, catalogue, formula, NOW))
    candidates = (rank_traced(readers.some(slice(0, CHUNK)), catalogue, formula, NOW)[1].candidates.places >= 0).sum()
    return Row(
        name=f"stoppress, {count:,} articles",
        value=USERS / seconds,
        unit="users/s",
        group="candidates, scores and all rules, lists of 20, d = 96",
        detail={"candidates": round(candidates / CHUNK), "of the exact search": round(USERS / seconds / searched, 3)},
    )


def publication(draw: np.random.Generator) -> list[Row]:
    """Milliseconds to find whom one new article concerns among a million, and the memory of the process at its most."""
    trigger = np.empty((READERS, 96), np.float32)
    for start in range(0, READERS, 100_000):
        trigger[start : start + 100_000] = units(draw, 100_000, 96)
    entry = np.full(READERS, 0.3, np.float32)
    likings = np.zeros((1, READERS), np.float32)
    newcomer = Catalogue(["new"], units(draw, 1, 96), np.ones(1, np.uint64), np.array([NOW]))
    formula = Formula(weights=Weights(freshness=0.0))
    lists, place = (READERS, formula.rules.length), np.zeros(1, np.intp)
    standing = Standing(trigger, entry, np.zeros(lists, np.uint64), np.full(lists, -np.inf, np.float32))

    def found_concerned() -> NDArray[np.bool_]:
        return concerned(standing, likings, newcomer, place, formula, NOW) >= 0

    found = found_concerned()
    if not np.array_equal(found, trigger @ newcomer.vectors[0] >= 0.3):
        raise AssertionError("not those whom the products find")
    seconds = least_seconds(found_concerned)
    group = f"one publication against {READERS:,} users, d = 96"
    peak = most_memory() / 1024
    return [
        Row(name="stoppress", value=1000 * seconds, unit="ms", group=group),
        Row(name="stoppress, the process at its most", value=peak, unit="MiB", group=group),
    ]


def most_memory() -> int:
    """The KiB of this process at its most: of the program that runs; what getrusage says knows of its parent's too."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def units(draw: np.random.Generator, count: int, dims: int) -> Floats:
    vectors = draw.standard_normal((count, dims), np.float32)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def one_thread() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def least_seconds(work: Callable[[], object], times: int = 5) -> float:
    """The least of some runs: what others do on the machine only adds."""
    least = np.inf
    for _ in range(times):
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return float(least)


if __name__ == "__main__":
    if sys.argv[1:] == [PUBLICATION]:
        print(msgspec.json.encode(publication(np.random.default_rng(1))).decode())
    else:
        main()
