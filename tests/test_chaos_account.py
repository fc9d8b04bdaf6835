"""The account of chaos finds what it looks for: with one thing tampered with at a time, each has its finding."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from contract.messages import Carried, Event, encode
from contract.records import decode_co_reads, decode_stats, encode_plain
from encoders.decay import Decay
from streams.clients import make_producer
from streams.local_broker import LocalBroker
from streams.record import Record
from tests.chaos.account import Account
from tests.chaos.kills import Chaos
from tests.chaos.load import Load, World
from tests.chaos.merges import Merges
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Place, Witness
from tests.pipeline import Pipeline, await_true, pipeline_on

CLICK, LIKE = ("click", "a1", 1000, None), ("like", "a2", 2000, None)


def absorb(place: str, *words: tuple[str, str, int, int | None], target: str = "new") -> Event:
    carried = [
        Carried(event=msgspec.Raw(encode(Event(user_id="old", kind=kind, at=at, article_id=article_id))))  # type: ignore[arg-type]
        for kind, article_id, at, _ in words
    ]
    return Event(user_id=target, kind="absorb", at=0, event_id=f"absorb-{place}", events=carried)


def verdict_of(merges: Merges) -> Verdict:
    verdict = Verdict()
    merges.compare(verdict)
    return verdict


def test_a_merge_has_its_absorb_once_with_all_that_is_handed_over() -> None:
    def after(*absorbs: Event, withdrawable: tuple[str, ...] = ()) -> tuple[int, int, int]:
        merges = Merges(withdrawable)
        merges.merge((3, 7), "new", [CLICK, LIKE], late=False)
        for event in absorbs:
            merges.absorb(event)
        verdict = verdict_of(merges)
        return verdict.lost, verdict.duplicated, verdict.mismatched_keys

    assert after(absorb("3-7", CLICK, LIKE)) == (0, 0, 0)
    assert after(absorb("3-7", CLICK), absorb("3-7-1", LIKE)) == (0, 0, 0)
    assert after() == (1, 0, 0)
    assert after(absorb("3-7-1", LIKE)) == (1, 0, 0)
    assert after(absorb("3-7", CLICK, LIKE), absorb("3-7", CLICK, LIKE)) == (0, 1, 0)
    assert after(absorb("3-7", CLICK)) == (0, 0, 1)
    assert after(absorb("3-7", CLICK), withdrawable=("a2",)) == (0, 0, 0)
    assert after(absorb("3-7", CLICK), withdrawable=("a1",)) == (0, 0, 1)
    assert after(absorb("3-7", LIKE, CLICK)) == (0, 0, 1)
    assert after(absorb("3-7", CLICK, LIKE, target="other")) == (0, 0, 1)
    assert after(absorb("3-7", CLICK, LIKE), absorb("3-9", CLICK)) == (0, 0, 1)


def test_everything_that_is_tampered_with_is_found(broker: LocalBroker, tmp_path: Path) -> None:
    with pipeline_on(broker, tmp_path, partitions=2) as pipeline:
        assert isinstance(pipeline.model, Decay)
        witness = Witness(pipeline.settings, pipeline.topics)
        load = Load(pipeline.settings, pipeline.topics, pipeline.model.dims, World(users=20, anonymous=10)).start()
        chaos = Chaos(broker, pipeline, load, witness, 1, str)
        chaos.set_workers(1)
        await_true(lambda: load.delivered > 1500, "enough is sent")
        chaos.finish()
        account = Account(pipeline.settings, pipeline.topics, pipeline.model, changing=False)
        untouched = account.compare(witness)
        assert untouched.good, untouched
        assert sum(untouched.aborted.values()) == 0  # nothing is ended that is not open

        users = sorted(witness.states, key=lambda user_id: -witness.states[user_id].folded)
        assert all(witness.states[user_id].windows.affinities for user_id in users[:13])
        del witness.states[users[0]]
        for user_id, window, value in (
            (users[1], "follows", ("nobody",)), (users[2], "minute_events", 100_000), (users[3], "limited_until", 1),
            (users[4], "recents", b""), (users[5], "affinities", b""),
        ):  # fmt: skip
            setattr(witness.states[user_id].windows, window, value)
        witness.states[users[6]].at += 1
        for user_id, off in ((users[7], 0.01), (users[8], np.nan)):
            witness.states[user_id].numbers = (witness.states[user_id].vector + off).astype("<f4").tobytes()
        witness.states[users[9]].folded -= 1
        witness.states[users[10]].hash_sum ^= 1
        witness.states[users[11]].windows.read = b"\0" * len(witness.states[users[11]].windows.read)
        witness.states[users[12]].windows.seen += bytes(8)
        witness.totals[0].hash_sum ^= 1
        bent = next(n for n, version in enumerate(witness.versions) if version.folded)
        witness.versions[bent] = replace(witness.versions[bent], hash_sum=witness.versions[bent].hash_sum ^ 1)
        place, value = next((k, v) for k, v in witness.stats.items() if decode_stats(v).positions)
        stats = decode_stats(value)
        positions = stats.positions | {next(iter(stats.positions)): (99.0, 99.0)}
        witness.stats[place] = encode_plain(msgspec.structs.replace(stats, positions=positions))
        pair, value = next(iter(witness.co_reads.items()))
        co_reads = decode_co_reads(value)
        witness.co_reads[pair] = encode_plain(msgspec.structs.replace(co_reads, weights=bytes(len(co_reads.weights))))
        witness.dead[0, 1 << 40] += 1
        see_what_is_aborted(pipeline, witness)

        found = account.compare(witness)
        assert not found.good
        assert (found.misordered, found.aborted_seen, found.aborted[pipeline_topic(pipeline)]) == (1, 1, 1)
        said = Counter(
            finding.split(": ")[1].split(" is ")[0] for finding in found.findings if finding.startswith(tuple(users))
        )
        once = "no state, follows, minute_events, limited_until, recents, affinities, at, folded, hash_sum, read, seen"
        assert said == Counter(once.split(", ")) + Counter({"the vector": 2}), found.findings
        assert found.mismatched_keys == said.total() + 4, found.findings


def pipeline_topic(pipeline: Pipeline) -> str:
    return pipeline.topics.co_reads.removeprefix(pipeline.settings.namespace)


def see_what_is_aborted(pipeline: Pipeline, witness: Witness) -> None:
    """Abort a real transaction, and let the witness say that it saw what was in it."""
    producer = make_producer(
        pipeline.settings, name="aborting", extra={"transactional.id": pipeline.settings.namespace}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    places: list[Place] = []
    producer.produce(
        pipeline.topics.co_reads, b"x", b"article-0", 0,
        on_delivery=lambda error, message: places.append((cast(Record, message).partition(), message.offset() or 0)),
    )  # fmt: skip
    producer.flush(30)
    producer.abort_transaction(30)
    witness.places[pipeline.topics.co_reads].update(places)
