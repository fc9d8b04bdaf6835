"""V-SKNN: the sessions most like this one say what is read next (Ludewig and Jannach, 2018)."""

from __future__ import annotations

from collections import deque
from itertools import chain

import numpy as np

from evaluation.articles import grown
from evaluation.models.contract import Floats
from evaluation.models.reading_order import LATEST
from evaluation.requests import Feedback, Request

NEIGHBOURS = 200
SESSIONS_OF_AN_ARTICLE = 500
"""The newest ones are looked at."""


class SessionNeighbours:
    """The neighbours are the ``neighbours`` sessions with the largest overlap, of equal ones the newest.

    An article of the present session weighs by its place, the last one 1, in the overlap as well as in what a neighbour
    adds to the scores. Without sessions, a user's history is one.
    """

    probabilities = False

    def __init__(self, neighbours: int = NEIGHBOURS, sessions: int = SESSIONS_OF_AN_ARTICLE) -> None:
        self._neighbours = neighbours
        self._newest_of_article = sessions
        self._read: dict[int, list[int]] = {}
        self._sessions: dict[int, deque[int]] = {}
        self._overlap: Floats = np.zeros(1024)

    def scores(self, request: Request) -> Floats:
        history = list(dict.fromkeys(reversed(request.history[-LATEST:].tolist())))[::-1]
        found = [np.array(self._sessions.get(article, ()), np.intp) for article in history]
        n = len(history)
        own = _session(request)
        if not n or not any(len(sessions) for sessions in found):
            return np.zeros(len(request.candidates))
        all_found = np.concatenate(found)
        self._overlap = grown(self._overlap, int(all_found.max()) + 1)
        for place, sessions in enumerate(found, 1):
            self._overlap[sessions] += place / n
        distinct = np.unique(all_found)
        distinct = distinct[distinct != own]
        similarity = self._overlap[distinct]
        self._overlap[all_found] = 0.0
        if len(distinct) > self._neighbours:
            nearest = np.lexsort((-distinct, -similarity))[: self._neighbours]
            distinct, similarity = distinct[nearest], similarity[nearest]
        lists = [self._read[session] for session in distinct.tolist()]
        lengths = np.fromiter(map(len, lists), np.intp, len(lists))
        articles = np.fromiter(chain.from_iterable(lists), np.intp, int(lengths.sum()))
        largest = max(int(articles.max(initial=0)), int(request.candidates.max(initial=0)))
        added = np.bincount(articles, np.repeat(similarity, lengths), largest + 1)
        return np.asarray(added[request.candidates], np.float64)

    def learn(self, feedback: Feedback) -> None:
        request = feedback.request
        read = self._read.setdefault(_session(request), [])
        for article in (*(request.history.tolist() if request.first else ()), *feedback.clicks.tolist()):
            if article not in read:
                read.append(article)
                sessions = self._sessions.get(article)
                if sessions is None:
                    sessions = self._sessions[article] = deque(maxlen=self._newest_of_article)
                sessions.append(_session(request))


def _session(request: Request) -> int:
    return request.user if request.session < 0 else request.session
