"""What interest models are trained on: who read what in which order, and what else they were shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.requests import Click, Impression
from export.interest.co_reads import CoReadVectors

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

TRAINED = 0.5
"""The share of the log that is learned from; the judgement is on what comes after ``HELD_BACK``."""
HELD_BACK = 0.6
"""What lies between the two tells when to stop."""
SHOWN = 8
"""Items shown and not clicked that are kept beside a click."""
MOST_REQUESTS = 3000
VISIT_MS = 30 * 60_000
FRESH_MS = 24 * 3_600_000
POPULAR_HALF_LIFE_MS = 15 * 60_000


class Request(NamedTuple):
    """What is judged on: of ``candidates`` (rows) these were ``clicked``, after the first ``before`` reads of ``user``.

    ``popularity`` is what was known of each candidate's at that moment. The order of candidates says nothing.
    """

    user: int
    before: int
    candidates: Rows
    clicked: NDArray[np.bool_]
    popularity: Floats


@dataclass(frozen=True)
class ReadingLog:
    """Reads of users, each user's in the order of time.

    A row is one version of an article's vector: ``vectors`` [R, d], ``articles`` [R] its number. User u read ``rows``
    [E] from ``starts[u]`` to ``starts[u + 1]``, at ``ats`` [E] (epoch ms). ``shown`` [E, 8] are rows that were shown
    beside it and not clicked, -1: none. Trained on is what was read before ``trained_until``; ``requests`` are of the
    time from ``judged_from`` on, in its order. ``task`` names what is measured.
    """

    task: str
    vectors: Floats
    articles: Rows
    starts: Rows
    rows: Rows
    ats: Rows
    shown: NDArray[np.int32]
    requests: Sequence[Request]
    trained_until: int
    judged_from: int

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of it."""
        hashed = hashlib.sha256(f"{self.task} {self.trained_until} {self.judged_from}".encode())
        for array in (self.vectors, self.articles, self.starts, self.rows, self.ats, self.shown):
            hashed.update(np.ascontiguousarray(array).tobytes())
        for request in self.requests:
            hashed.update(f"{request.user} {request.before}".encode())
            for part in request[2:]:
                hashed.update(np.ascontiguousarray(part).tobytes())
        return hashed.hexdigest()


class _Reads:
    """Reads by user, as they come in the order of time."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.rows: list[list[int]] = []
        self.ats: list[list[int]] = []
        self.shown: list[list[Sequence[int]]] = []

    def user(self, user_id: str) -> int:
        user = self.users.setdefault(user_id, len(self.rows))
        if user == len(self.rows):
            self.rows.append([])
            self.ats.append([])
            self.shown.append([])
        return user

    def read(self, user: int, row: int, at: int, shown: Sequence[int] = ()) -> None:
        self.rows[user].append(row)
        self.ats[user].append(at)
        self.shown[user].append(shown)

    def log(
        self, task: str, vectors: Floats, articles: Rows, requests: list[Request], cuts: tuple[int, int]
    ) -> ReadingLog:
        shown = np.full((sum(map(len, self.rows)), SHOWN), -1, np.int32)
        for event, beside in enumerate(beside for user in self.shown for beside in user):
            shown[event, : len(beside)] = beside
        return ReadingLog(
            task=task,
            vectors=vectors,
            articles=articles,
            starts=np.cumsum([0, *map(len, self.rows)]),
            rows=np.array([row for user in self.rows for row in user], np.int64),
            ats=np.array([at for user in self.ats for at in user], np.int64),
            shown=shown,
            requests=requests,
            trained_until=cuts[0],
            judged_from=cuts[1],
        )


def log_of_impressions(impressions: Iterable[Impression], vectors: Mapping[str, Floats], seed: int) -> ReadingLog:
    """Return the log of what was shown to users; what has no vector is left out.

    A history counts from the user's first impression on, since nobody says when it was read.
    """
    draw, shuffle = np.random.default_rng(seed), np.random.default_rng(0)
    ordered = sorted(impressions, key=lambda impression: impression.at)
    row_of = {article_id: row for row, article_id in enumerate(vectors)}
    reads, requests = _Reads(), []
    shown_times, clicks = np.zeros((2, len(row_of)), np.float32)
    cuts = _cuts([impression.at for impression in ordered])
    for impression in ordered:
        new = impression.user_id not in reads.users
        user, at = reads.user(impression.user_id), impression.at
        for article_id in impression.history if new else ():
            if article_id in row_of:
                reads.read(user, row_of[article_id], at)
        labels: dict[int, bool] = {}
        for article_id, was_clicked in zip(impression.candidates, impression.clicked, strict=True):
            if article_id in row_of:
                row = row_of[article_id]
                labels[row] = labels.get(row, False) or was_clicked
        candidates = np.fromiter(labels, np.int64, len(labels))
        clicked = np.fromiter(labels.values(), np.bool_, len(labels))
        if at >= cuts[1] and clicked.any() and not clicked.all():
            rate = (clicks[candidates] + 1) / (shown_times[candidates] + 25)
            order = shuffle.permutation(len(labels))
            requests.append(Request(user, len(reads.rows[user]), candidates[order], clicked[order], rate[order]))
        passed = candidates[~clicked]
        for row in candidates[clicked].tolist():
            reads.read(user, row, at, draw.choice(passed, min(SHOWN, len(passed)), replace=False).tolist())
        shown_times[candidates] += 1
        clicks[candidates[clicked]] += 1
    matrix = np.array(list(vectors.values()), np.float32).reshape(len(row_of), -1)
    return reads.log("impressions", matrix, np.arange(len(row_of)), requests, cuts)


def log_of_clicks(clicks: Iterable[Click], dims: int, on_progress: Callable[[int], None]) -> ReadingLog:
    """Return the log of clicks alone: articles get vectors from who reads what next, learned anew as time goes by.

    A click on what nobody has read before has no vector yet and is left out. Judged are clicks that follow another of
    the same user within 30 minutes, against all that was clicked in the last 24 hours and not yet read by the user.
    ``on_progress`` is told how many clicks are read.
    """
    ordered = sorted(clicks, key=lambda click: click.at)
    cuts = _cuts([click.at for click in ordered])
    number: dict[str, int] = {}
    for click in ordered:
        number.setdefault(click.article_id, len(number))
    draw = np.random.default_rng(0)
    learned = CoReadVectors(len(number), dims)
    reads, requests = _Reads(), []
    last_click = np.full(len(number), -FRESH_MS, np.int64)
    popular = np.zeros(len(number))
    read_by: dict[int, list[int]] = {}
    follow_ups = sum(click.at >= cuts[1] for click in ordered) // 2
    every, follow_up = max(1, follow_ups // MOST_REQUESTS), 0
    for i, click in enumerate(ordered):
        if i % 1000 == 0:
            on_progress(i)
        learned.update(click.at)
        user, at, article = reads.user(click.user_id), click.at, number[click.article_id]
        past = read_by.setdefault(user, [])
        row = learned.row(article)
        if past and at - _last_at(reads, user, at) <= VISIT_MS and at >= cuts[1] and article not in past:
            follow_up += 1
            if follow_up % every == 0 and last_click[article] > at - FRESH_MS:
                fresh = last_click > at - FRESH_MS
                fresh[past] = False
                candidates = draw.permutation(np.flatnonzero(fresh))
                popularity = popular[candidates] * np.exp2((last_click[candidates] - at) / POPULAR_HALF_LIFE_MS)
                rows = np.array([learned.row_or_none(a) for a in candidates.tolist()], np.int64)
                requests.append(
                    Request(
                        user, len(reads.rows[user]), rows, candidates == article,
                        np.log(popularity + 0.1).astype(np.float32),
                    )
                )  # fmt: skip
        if row >= 0:
            reads.read(user, row, at)
        learned.read(past[-3:], article)
        past.append(article)
        popular[article] = popular[article] * np.exp2((last_click[article] - at) / POPULAR_HALF_LIFE_MS) + 1
        last_click[article] = at
    vectors, articles = learned.rows()
    return reads.log("next click", vectors, articles, requests, cuts)


def _last_at(reads: _Reads, user: int, otherwise: int) -> int:
    """When the user last read something that had a vector; ``otherwise`` where nothing had."""
    return reads.ats[user][-1] if reads.ats[user] else otherwise


def _cuts(ats: Sequence[int]) -> tuple[int, int]:
    """The times that end the trained and the held-back part of times in their order."""
    if not ats:
        return 0, 0
    return ats[int(len(ats) * TRAINED)], ats[int(len(ats) * HELD_BACK)]
