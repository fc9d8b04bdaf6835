"""The task *next click*: within a session, rank every article that was clicked lately, but those read in it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from evaluation.articles import Articles, Indices, grown
from evaluation.left_out import LeftOut
from evaluation.requests import Click, Feedback, Moment, Request

HOUR_MS = 3_600_000
FRESH_MS = 24 * HOUR_MS
OUT_OF_ORDER, REPEATED = "clicks out of the order of time, put in their place", "repeated clicks, left out"
READ_AGAIN = "follow-up clicks on what the session had read already, not judged"
NOTHING_READ = np.empty(0, np.intp)


@dataclass(frozen=True)
class Protocol:
    """Which follow-up clicks are judged: every n-th, once ``warm_up_hours`` have passed. All are learned from."""

    every: int = 4
    warm_up_hours: float = 6.0


class Clicks:
    """A data set's clicks as arrays, in the order of time; 32 bytes each. ``contexts``: of each session"""

    def __init__(self, clicks: Iterable[Click], articles: Articles, left_out: LeftOut) -> None:
        """Read all of ``clicks``."""
        users: dict[str, int] = {}
        sessions: dict[str, int] = {}
        columns = array("q"), array("q"), array("q"), array("q")
        newest = -1
        first_at: list[int] = []
        self.contexts: list[Mapping[str, str]] = []
        distinct: dict[tuple[str, ...], Mapping[str, str]] = {}
        for click in clicks:
            session = sessions.setdefault(click.session_id or f"user {click.user_id}", len(sessions))
            context = distinct.setdefault(tuple(click.context.values()), click.context)
            if session == len(first_at):
                first_at.append(click.at)
                self.contexts.append(context)
            elif click.at < first_at[session]:
                first_at[session], self.contexts[session] = click.at, context
            for column, value in zip(
                columns,
                (click.at, users.setdefault(click.user_id, len(users)), session, articles.index(click.article_id)),
                strict=True,
            ):
                column.append(value)
            if click.at < newest:
                left_out(OUT_OF_ORDER, f"{click.article_id} at {click.at} in session {click.session_id}")
            newest = max(newest, click.at)
        at, user, session_of, article = (np.frombuffer(column, np.int64) for column in columns)
        order = np.argsort(at, kind="stable")
        self.at, self.user, self.session, self.article = at[order], user[order], session_of[order], article[order]

    def __len__(self) -> int:
        return len(self.at)


def next_clicks(
    clicks: Clicks, articles: Articles, left_out: LeftOut, rng: np.random.Generator, protocol: Protocol
) -> Iterator[Moment]:
    """Yield the moments of ``clicks``.

    A click on what nobody clicked in the last 24 h is among no candidates: whatever a model does, it is missed.
    """
    last_click = np.full(len(articles), np.iinfo(np.int64).min)
    read_in: dict[int, Indices] = {}
    starts = int(clicks.at[0]) + round(protocol.warm_up_hours * HOUR_MS) if len(clicks) else 0
    follow_ups = 0
    rows = zip(*(c.tolist() for c in (clicks.at, clicks.user, clicks.session, clicks.article)), strict=True)
    for at, together in groupby(rows, key=lambda row: row[0]):
        moment = Moment(at, [], [], 0)
        read: dict[int, list[int]] = {}
        count = 0
        for _, user, session, article in together:
            count += 1
            if article in read.get(session, ()):
                left_out(REPEATED, f"{articles.ids[article]} at {at}")
                continue
            read.setdefault(session, []).append(article)
            history = read_in.get(session, NOTHING_READ)
            judged = False
            if len(history) and at >= starts:
                follow_ups += 1
                judged = follow_ups % protocol.every == 0
            if judged and article in history:
                left_out(READ_AGAIN, f"{articles.ids[article]} at {at}")
                judged = False
            candidates = NOTHING_READ
            if judged:
                fresh = last_click >= at - FRESH_MS
                fresh[history] = False
                candidates = np.flatnonzero(fresh)
                candidates = candidates[rng.permutation(len(candidates))]
            request = Request(
                at, user, session, history, candidates, not len(history), context=clicks.contexts[session]
            )
            if judged:
                moment.requests.append((request, candidates == article))
            moment.feedback.append(Feedback(request, np.array([article], np.intp), np.ones(1, np.bool_)))
        for feedback in moment.feedback:
            session, article = feedback.request.session, feedback.shown
            read_in[session] = np.concatenate([read_in.get(session, NOTHING_READ), article])
            last_click = grown(last_click, len(articles), np.iinfo(np.int64).min)
            last_click[article] = at
            articles.note_seen(article, at)
        yield Moment(at, moment.requests, moment.feedback, count)
