"""The task *impressions*: rank what was shown; a user's history is what they had read before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from evaluation.articles import Articles, Indices
from evaluation.left_out import LeftOut
from evaluation.requests import Feedback, Impression, Moment, Request

NO_CLICK, ALL_CLICKED = "requests without a click, learned from but not judged", "requests with every item clicked"
REPEATED, SHOWN_TWICE = "repeated impressions, left out", "items shown twice in an impression, taken once"
NOT_IN_NEWS = "articles that are not in the news file, without text and category"


def impressions(
    shown: Iterable[Impression], articles: Articles, left_out: LeftOut, rng: np.random.Generator
) -> Iterator[Moment]:
    """Yield the moments of ``shown``, which comes in the order of time.

    A user's history is the first one that the data set gives, and what they clicked since. Requests of which nothing or
    everything was clicked say nothing about an order: they are learned from, not judged.
    """
    users: dict[str, int] = {}
    histories: dict[int, Indices] = {}
    seen: set[int] = set()
    known = len(articles)
    for at, together in groupby(shown, key=lambda impression: impression.at):
        moment = Moment(at, [], [], 0)
        read = 0
        for impression in together:
            read += 1
            name = f"{impression.impression_id} of {impression.user_id}"
            key = hash((impression.impression_id, impression.user_id, at))
            if key in seen:
                left_out(REPEATED, name)
                continue
            seen.add(key)
            user = users.setdefault(impression.user_id, len(users))
            first = user not in histories
            if first:
                histories[user] = articles.indices(impression.history)
            label: dict[int, bool] = {}
            for article_id, clicked in zip(impression.candidates, impression.clicked, strict=True):
                article = articles.index(article_id)
                if article in label:
                    left_out(SHOWN_TWICE, f"{article_id} in {name}")
                label[article] = label.get(article, False) or clicked
            for article in range(known, len(articles)):
                left_out(NOT_IN_NEWS, articles.ids[article])
            known = len(articles)
            order = rng.permutation(len(label))
            candidates = np.fromiter(label, np.intp, len(label))[order]
            labels = np.fromiter(label.values(), np.bool_, len(label))[order]
            articles.note_seen(candidates, at)
            request = Request(at, user, -1, histories[user], candidates, first)
            if labels.all() or not labels.any():
                left_out(NO_CLICK if not labels.any() else ALL_CLICKED, name)
            else:
                moment.requests.append((request, labels))
            moment.feedback.append(Feedback(request, candidates, labels))
        for feedback in moment.feedback:
            user = feedback.request.user
            histories[user] = np.concatenate([histories[user], feedback.clicks])
        yield Moment(at, moment.requests, moment.feedback, read)
