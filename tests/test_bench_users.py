"""What `make bench-users` measures is right: its folds against the events taken one by one, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.users.full_record import worst_error_of_full
from bench.users.input import places, reference_of
from bench.users.reduced import ARTICLES, STATE, Events, make_events, worst_error, write_articles
from bench.users.stoppress_worker import States, fold
from contract.messages import decode_event
from contract.records import ArticleMeta, ArticleRecord, encode_user
from encoders.articles import ArticleTable
from encoders.decay import HOUR_MS, Decay
from encoders.fold import Fold
from encoders.fold_rules import Arrival, FoldLimits
from encoders.user_state import PartitionState
from streams.record import Record

COUNT, USERS = 400, 30
INDEX = {f"article-{number:05d}": number for number in range(ARTICLES)}


@dataclass(frozen=True)
class Sent:
    """A record of the input topic."""

    place: tuple[int, int]
    sent: tuple[bytes, bytes]

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]

    def key(self) -> bytes:
        return self.sent[0]

    def value(self) -> bytes:
        return self.sent[1]


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return write_articles(tmp_path_factory.mktemp("bench") / "articles.bin")


def sent(events: Events) -> list[Sent]:
    partitions, offsets = places(events)
    in_order = zip(partitions.tolist(), offsets.tolist(), strict=True)
    return [Sent(place, pair) for place, pair in zip(in_order, events.records(), strict=True)]


def folded(records: Sequence[Sent], cuts: Sequence[int], articles: np.ndarray) -> dict[bytes, bytes]:
    """All states after batches that end at ``cuts``."""
    states = States("changelog")
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        if begin < end:
            touched, staged = fold(states, cast(list[Record], records[begin:end]), INDEX, articles)
            states.table[touched] = staged
    return {key: states.table[row].tobytes() for key, row in states.rows.items()}


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, COUNT), max_size=6).map(sorted), seed=st.integers(0, 5))
def test_the_reduced_record_is_folded_as_one_by_one_wherever_batches_are_cut(
    articles: np.ndarray, cuts: list[int], seed: int
) -> None:
    events = make_events(COUNT, USERS, seed=seed)
    assert worst_error(reference_of(events, articles), folded(sent(events), cuts, articles)) < 1e-5


def test_what_is_lost_doubled_or_weighed_wrong_is_noticed(articles: np.ndarray) -> None:
    events = make_events(COUNT, USERS)
    reference, records = reference_of(events, articles), sent(events)
    with pytest.raises(ValueError, match="is wrong for 1 users"):
        worst_error(reference, folded(records[:-1], [], articles))
    with pytest.raises(ValueError, match="folded is wrong for 1 users"):
        worst_error(reference, folded([*records, records[-1]], [], articles))
    states = folded(records, [], articles)
    off = np.frombuffer(states[records[0].key()], STATE).copy()
    off["sum"] *= 1.01
    with pytest.raises(ValueError, match="a sum is off by 1"):
        worst_error(reference, {**states, records[0].key(): off.tobytes()})


def test_the_full_record_is_held_against_both_half_lives(articles: np.ndarray) -> None:
    events = make_events(COUNT, USERS)
    model = Decay(articles.shape[1], 48.0 * HOUR_MS, 2.0 * HOUR_MS)
    table = ArticleTable(model.dims)
    for article_id, number in INDEX.items():
        table.put(article_id, ArticleRecord(articles[number], 0, 0, 0, ArticleMeta()))
    arrivals: dict[int, list[Arrival]] = {}
    for record in sent(events):
        event = decode_event(record.key(), record.value())
        arrivals.setdefault(record.partition(), []).append(
            Arrival(record.offset(), event.at + 1, event, record.value())
        )
    states: dict[bytes, bytes] = {}
    for partition, arrived in arrivals.items():
        state = PartitionState(partition)
        batch = Fold(state, table, model, FoldLimits())
        batch.take(arrived)
        batch.finish()
        batch.adopt()
        states |= {user_id.encode(): encode_user(user) for user_id, user in state.users.items()}
    assert worst_error_of_full(events, articles, states, model) < 1e-4
    swapped = Decay(model.dims, model.short_half_life_ms, model.long_half_life_ms)
    with pytest.raises(ValueError, match="a sum is off"):
        worst_error_of_full(events, articles, states, swapped)
