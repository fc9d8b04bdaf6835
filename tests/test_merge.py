"""Merges, follows and mutes on a real Kafka: two workers share the partitions; the new user has the old one's past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from contract.messages import Event, ShownItem, decode
from contract.records import UserRecord, decode_co_reads, decode_stats
from encoders.articles import hash64
from streams.local_broker import LocalBroker
from tests.pipeline import Pipeline, Seen, Sent, now_ms, pipeline_on, states_of, totals_of

TITLES = {
    "football": "Late goal sends United into the cup final",
    "rates": "Central bank raises interest rates to curb inflation",
    "space": "Telescope finds water vapour on a distant planet",
}


@pytest.fixture(scope="module")
def running(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pipeline_on(broker, tmp_path_factory.mktemp("merge")) as pipeline:
        pipeline.start("articles")
        for slot in ("0", "1"):
            pipeline.worker("users", slot).start()
        for article_id, title in TITLES.items():
            pipeline.article(article_id, title, category=article_id)
        pipeline.until_embedded(*TITLES)
        yield pipeline


def two_users(pipeline: Pipeline, name: str) -> tuple[str, str]:
    """An old and a new user who live in different partitions."""
    old = f"{name} anonymous"
    new = next(u for u in map(f"{name} {{}}".format, range(100)) if pipeline.partition(u) != pipeline.partition(old))
    return old, new


def until_state(pipeline: Pipeline, user_id: str, sent: Sent | Seen) -> UserRecord:
    """Block until a state has taken in the record at this place."""

    def found(records: Sequence[Seen]) -> UserRecord | None:
        state = states_of(records).get(user_id)
        return state if state is not None and state.last_offset >= sent.offset else None

    return pipeline.records(pipeline.topics.user_vectors).until(found, f"{user_id} takes in {sent}")


def until_absorb(pipeline: Pipeline, merge: Sent) -> Seen:
    """Block until the absorb that a merge leads to stands in user-events."""

    def found(records: Sequence[Seen]) -> Seen | None:
        wanted = f"absorb-{merge.partition}-{merge.offset}"
        return next((r for r in records if decode(Event, r.value).event_id == wanted), None)

    return pipeline.records(pipeline.topics.user_events).until(found, "the absorb is written")


def until_gone(pipeline: Pipeline, user_id: str) -> None:
    pipeline.records(pipeline.topics.user_vectors).until(
        lambda records: any(r.key == user_id.encode() and r.value is None for r in records), f"{user_id} is gone"
    )


def test_the_new_user_has_the_old_ones_past_and_every_event_is_accounted_for(running: Pipeline) -> None:
    old, new = two_users(running, "reader")
    at = now_ms()
    running.event(old, "click", "football", at=at)
    running.event(old, "follow", target="space", at=at)
    waits = running.event(old, "click", "tomorrow", at=at)
    before = until_state(running, new, running.event(new, "click", "rates", at=at))
    merge = running.event(old, "merge", target=new)

    absorb = until_absorb(running, merge)
    assert (absorb.key, absorb.partition) == (new.encode(), running.partition(new))
    merged = until_state(running, new, absorb)
    until_gone(running, old)
    assert np.frombuffer(merged.windows.read, np.uint64).tolist() == [hash64("rates"), hash64("football")]
    assert merged.windows.follows == ("space",)
    assert merged.folded == before.folded + 1
    (wait,) = merged.windows.waiting
    assert (wait.article_id, wait.carried_from, wait.offset) == ("tomorrow", waits.partition, waits.offset)
    assert merged.windows.cause is not None
    assert merged.windows.cause.at == absorb.timestamp

    running.article("tomorrow", "Astronomers photograph a black hole in a nearby galaxy")
    met = running.records(running.topics.user_vectors).until(
        lambda records: found if not (found := states_of(records)[new]).windows.waiting else None, "what waited folds"
    )
    assert (met.folded, len(met.windows.read)) == (merged.folded, 24)
    assert_all_accounted_for(running)


def test_who_goes_on_as_the_old_user_begins_anew(running: Pipeline) -> None:
    old, new = two_users(running, "returning")
    running.event(old, "click", "football")
    running.event(old, "merge", target=new)
    state = until_state(running, old, running.event(old, "click", "space"))
    assert np.frombuffer(state.windows.read, np.uint64).tolist() == [hash64("space")]
    assert state.folded == 1


def test_a_merge_into_oneself_is_a_dead_letter_and_loses_nothing(running: Pipeline) -> None:
    running.event("selfish", "click", "football")
    letter = running.until_dead(running.event("selfish", "merge", target="selfish"))
    assert letter.headers["reason"] == b"wrong_shape"
    assert b"merged into itself" in letter.headers["detail"]
    state = until_state(running, "selfish", running.event("selfish", "click", "rates"))
    assert state.folded == 2


def test_two_users_who_merge_into_each_other_lose_nothing(running: Pipeline) -> None:
    old, new = two_users(running, "circle")
    running.event(old, "click", "football")
    running.event(new, "click", "rates")
    merges = [running.event(old, "merge", target=new), running.event(new, "merge", target=old)]
    for merge in merges:
        until_absorb(running, merge)
    sent = len(running.records(running.topics.user_events).to_the_end())
    running.until_all_read(sent)
    states = states_of(running.records(running.topics.user_vectors).to_the_end())
    read = b"".join(states[user].windows.read for user in (old, new) if user in states)
    assert sorted(np.frombuffer(read, np.uint64).tolist()) == sorted([hash64("football"), hash64("rates")])
    assert_all_accounted_for(running)


def test_a_mute_ends_a_follow_and_speaks_against_the_article_it_was_made_on(running: Pipeline) -> None:
    running.event("choosy", "follow", target="rates")
    muted = until_state(running, "choosy", running.event("choosy", "mute", "rates", target="rates"))
    assert (muted.windows.follows, muted.windows.mutes) == ((), ("rates",))
    liked = until_state(running, "fond", running.event("fond", "click", "rates"))
    assert float(muted.vector @ liked.vector) < 0


def test_what_is_shown_and_read_counts_by_place_and_source_and_leads_on(running: Pipeline) -> None:
    shown = [ShownItem(article_id="space", position=3, reason="similar", source="vectors")]
    running.event("counted", "impression", shown=shown)
    running.event("counted", "click", "space", position=3, reason="similar", source="vectors")
    until_state(running, "counted", running.event("counted", "click", "football"))
    partition = running.partition("counted")

    def newest(topic: str, key: bytes) -> bytes:
        mine = [r for r in running.records(topic).to_the_end() if (r.key, r.partition) == (key, partition)]
        assert mine[-1].value is not None
        return mine[-1].value

    stats = decode_stats(newest(running.topics.article_stats, b"space"))
    assert min(stats.positions[3]) > 0
    assert min(stats.reasons["similar"]) > 0
    assert min(decode_stats(newest(running.topics.article_stats, b"~source/vectors")).positions[3]) > 0
    co_reads = decode_co_reads(newest(running.topics.co_reads, b"space"))
    assert hash64("football") in np.frombuffer(co_reads.articles, np.uint64)


def assert_all_accounted_for(pipeline: Pipeline) -> None:
    """sent = folded + waiting + duplicate + dead, with what the workers themselves sent among it."""
    sent = len(pipeline.records(pipeline.topics.user_events).to_the_end())
    pipeline.until_all_read(sent)
    totals = totals_of(pipeline.records(pipeline.topics.user_vectors).all).values()
    assert sent == sum(t.folded + t.waiting + t.duplicate + t.dead for t in totals)
