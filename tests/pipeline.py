"""Workers as real processes on a real Kafka, what is sent to them, and what they write."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from confluent_kafka import KafkaError, Message, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from contract.messages import Article, Cause, Event, List, decode, encode
from contract.murmur2 import partition_of
from contract.records import PARTITION_KEY, PartitionTotals, UserRecord, decode_totals, decode_user
from contract.settings import Settings, load
from contract.topics import Topics
from demo.processes import Child, environment
from encoders.interest import interest_model
from encoders.manifest import generation_of, read_manifest
from streams.admin import create_topics
from streams.clients import make_admin, make_consumer, make_producer
from streams.local_broker import LocalBroker
from streams.record import Record
from streams.table import TableReader

ROOT = Path(__file__).resolve().parents[1]
Found = TypeVar("Found")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def await_true(
    found: Callable[[], Found | None], what: str, seconds: float = 30.0, seen: Callable[[], object] = str
) -> Found:
    """Return what ``found`` returns once it is neither None nor False; the caller's ``found`` may block briefly."""
    deadline = time.monotonic() + seconds
    while True:
        answer = found()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; seen: {seen()}"
        threading.Event().wait(0.01)


def settings_for(broker: LocalBroker, **values: object) -> Settings:
    """Settings with a namespace of their own, short sessions and any free port."""
    chosen = {
        "bootstrap_servers": broker.bootstrap_servers,
        "namespace": f"test-{uuid.uuid4().hex[:12]}.",
        "partitions": 4,
        "article_partitions": 2,
        "encoder": ROOT / "var" / "encoder",
        "encoder_threads": 1,
        "port": 0,
        "session_timeout_ms": 2000,
        **values,
    }
    return load([f"{name}={value}" for name, value in chosen.items()], environ={})


class Worker:
    """``python -m stoppress run NAME``; its log lines, its services, and signals to it."""

    def __init__(self, settings: Settings, name: str, folder: Path, slot: str = "0") -> None:
        self.name = name
        self.settings = settings.model_copy(update={"slot": slot, "port": 0})
        self._came = threading.Condition()
        self._lines: list[dict[str, Any]] = []
        log = folder / f"{name}-{slot}.log"
        self._child = Child(name, ["run", name], environment(self.settings), log, on_line=self._take)

    def start(self, *, ready: bool = True) -> Self:
        """Start it, or start it again after its end; blocks until it is ready unless told otherwise."""
        with self._came:
            self._lines = []
        self._child.start()
        if ready:
            self.await_ready()
        return self

    @property
    def running(self) -> bool:
        return self._child.running

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log since the last start; a line that is not JSON has the event ``?``."""
        with self._came:
            return [line for line in self._lines if event in (None, line["event"])]

    def await_log(self, event: str, seconds: float = 40.0, count: int = 1) -> dict[str, Any]:
        """Block until the log has ``count`` such events; return the last."""
        with self._came:
            met = self._came.wait_for(lambda: len([x for x in self._lines if x["event"] == event]) >= count, seconds)
            assert met, f"{self.name} did not log {event!r} {count} times within {seconds:g} s: {self._lines[-20:]}"
            return [x for x in self._lines if x["event"] == event][count - 1]

    def await_ready(self, seconds: float = 40.0) -> None:
        self.await_log("listening", seconds)
        await_true(lambda: self.get("/readyz")[0] == 200, f"{self.name} is ready", seconds, lambda: self.lines()[-20:])

    def get(self, path: str) -> tuple[int, str]:
        """GET from its address: status and body; status 0 where nobody answers."""
        assert self.running, f"{self.name} has ended with {self._child.exit_code}: {self.lines()[-20:]}"
        try:
            with urlopen(self.await_log("listening")["address"] + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (URLError, ConnectionError) as error:
            return 0, str(error)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry ``labels``."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def signal(self, number: signal.Signals) -> None:
        self._child.signal(number)

    def kill(self) -> None:
        """kill -9; blocks until it has ended."""
        self.signal(signal.SIGKILL)
        self.exit_code()

    def stop(self) -> int:
        """SIGTERM; return the exit code, which must come before the deadline of the settings."""
        self._child.terminate()
        return self.exit_code(self.settings.shutdown_seconds + 2)

    def exit_code(self, seconds: float = 20.0) -> int:
        """Block until it has ended by itself; return its exit code."""
        await_true(lambda: not self.running, f"{self.name} ends", seconds, lambda: self.lines()[-20:])
        self._child.wait(1)
        code = self._child.exit_code
        assert code is not None
        return code

    def close(self) -> None:
        """kill -9, unless it has ended, and let go of its pipes."""
        self.signal(signal.SIGKILL)
        self._child.stop(10)

    def _take(self, line: bytes) -> None:
        try:
            parsed = json.loads(line)
            parsed["event"]
        except (ValueError, TypeError, KeyError):
            parsed = {"event": "?", "text": line.decode(errors="replace").rstrip()}
        with self._came:
            self._lines.append(parsed)
            self._came.notify_all()


@dataclass(frozen=True)
class Seen:
    """A consumed record; ``timestamp`` is Kafka's, in epoch ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    @classmethod
    def of(cls, record: Record) -> Seen:
        return cls(
            record.topic(), record.partition(), record.offset(), record.timestamp()[1],
            record.key(), record.value(), dict(record.headers() or []),
        )  # fmt: skip

    def __str__(self) -> str:
        value = "null" if self.value is None else repr(self.value[:300])
        return f"{self.partition}@{self.offset} {self.key!r}: {value}"


class Records:
    """All committed records of a topic so far, and the wait for those that are still to come."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._reader = TableReader(settings, topic, name=f"test.{topic}", fetch_wait_ms=20)
        self.all: list[Seen] = []

    def poll(self) -> list[Seen]:
        """Everything that has come, this call's included; blocks at most 20 ms."""
        self.all += map(Seen.of, self._reader.poll(0.02, limit=10_000))
        return self.all

    def to_the_end(self) -> list[Seen]:
        """Everything up to the present end."""
        self.all += map(Seen.of, self._reader.catch_up(30))
        return self.all

    def until(self, found: Callable[[Sequence[Seen]], Found | None], what: str, seconds: float = 30.0) -> Found:
        """Block until ``found`` of all records so far is neither None nor False."""
        return await_true(lambda: found(self.poll()), what, seconds, lambda: [str(record) for record in self.all[-5:]])

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True)
class Sent:
    """Where a record landed and its Kafka timestamp."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Pipeline:
    """A namespace with its topics, the workers started in it, and readers of what they write."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        manifest = read_manifest(settings.encoder)
        self.model = interest_model(settings, manifest.dims)
        self.topics = Topics(settings, generation_of(manifest, self.model.manifest()))
        self._producer = make_producer(settings, name="test")
        self._workers: list[Worker] = []
        self._records: dict[str, Records] = {}
        create_topics(settings, self.topics.specs())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()
        for records in self._records.values():
            records.close()

    def worker(self, name: str, slot: str = "0", **settings: object) -> Worker:
        """A worker that is not started yet; it ends with the pipeline."""
        worker = Worker(self.settings.model_copy(update=settings), name, self._folder, slot)
        self._workers.append(worker)
        return worker

    def start(self, *names: str) -> list[Worker]:
        """Start these workers at once and return them when all are ready."""
        started = [self.worker(name).start(ready=False) for name in names]
        for worker in started:
            worker.await_ready()
        return started

    def records(self, topic: str) -> Records:
        """The one reader of ``topic``."""
        if topic not in self._records:
            self._records[topic] = Records(self.settings, topic)
        return self._records[topic]

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> Sent:
        """Write one record; blocks until Kafka has it."""
        return self.send_all([(topic, key, value, partition)])[0]

    def send_all(
        self, records: Sequence[tuple[str, bytes | None, bytes | None, int]], seconds: float = 30.0
    ) -> list[Sent]:
        """Write records in their order; blocks until Kafka has them."""
        sent: dict[int, Sent] = {}

        def delivered(number: int) -> Callable[[KafkaError | None, Message], None]:
            def note(error: KafkaError | None, message: Message) -> None:
                assert error is None, error
                record = cast(Record, message)
                sent[number] = Sent(record.topic(), record.partition(), record.offset(), record.timestamp()[1])

            return note

        for number, (topic, key, value, partition) in enumerate(records):
            self._producer.produce(topic, value, key, partition, on_delivery=delivered(number))
        assert self._producer.flush(seconds) == 0
        return [sent[number] for number in range(len(records))]

    def article(self, article_id: str, title: str, **fields: Any) -> Sent:
        """Publish an article, a minute old unless told otherwise."""
        published_at = fields.pop("published_at", now_ms() - 60_000)
        article = Article(article_id=article_id, title=title, published_at=published_at, **fields)
        return self.send(self.topics.articles, article_id.encode(), encode(article))

    def withdraw(self, article_id: str) -> Sent:
        return self.send(self.topics.articles, article_id.encode(), None)

    def event(self, user_id: str, kind: Any, article_id: str = "", **fields: Any) -> Sent:
        """Send one event, of this moment unless told otherwise."""
        return self.send(self.topics.user_events, user_id.encode(), encode(event(user_id, kind, article_id, **fields)))

    def partition(self, key: str) -> int:
        return partition_of(key.encode(), self.settings.partitions)

    def until_embedded(self, *article_ids: str) -> None:
        wanted = {article_id.encode() for article_id in article_ids}
        self.records(self.topics.article_vectors).until(
            lambda records: wanted <= {m.key for m in records if m.value is not None}, f"vectors of {article_ids}"
        )

    def until_list(
        self, user_id: str, wanted: Callable[[List], bool], what: str, *, after: int = -1, seconds: float = 30.0
    ) -> List:
        """Block until a list of the user, written after offset ``after``, is as ``wanted``."""

        def found(records: Sequence[Seen]) -> List | None:
            mine = (m for m in records if m.key == user_id.encode() and m.offset > after and m.value is not None)
            return next((x for m in mine if wanted(x := decode(List, m.value))), None)

        return self.records(self.topics.recommendations).until(found, f"a list of {user_id}: {what}", seconds)

    def until_ranked(self, user_id: str, event_id: str) -> None:
        """Block until the ranker has committed a state of the user that this event caused."""

        def found(records: Sequence[Seen]) -> Seen | None:
            mine = (m for m in records if m.key == user_id.encode() and m.value is not None)
            return next((m for m in mine if event_id == getattr(_cause(m), "id", None)), None)

        state = self.records(self.topics.user_vectors).until(found, f"a state of {user_id} caused by {event_id!r}")
        group = f"{self.settings.namespace}ranker.{self.topics.generation}"
        consumer = make_consumer(self.settings, name="test.committed", group=group)
        try:
            await_true(
                lambda: consumer.committed([TopicPartition(state.topic, state.partition)], 10)[0].offset > state.offset,
                f"the ranker has taken the state of {user_id} after {event_id!r}",
            )
        finally:
            consumer.close()

    def until_totals(self, partition: int, wanted: Callable[[PartitionTotals], bool], what: str) -> PartitionTotals:
        def found(records: Sequence[Seen]) -> PartitionTotals | None:
            totals = totals_of(records).get(partition)
            return totals if totals is not None and wanted(totals) else None

        return self.records(self.topics.user_vectors).until(found, f"totals of partition {partition}: {what}")

    def until_all_read(self, count: int, seconds: float = 60.0) -> dict[int, PartitionTotals]:
        """Block until the users worker has committed ``count`` events in all."""

        def found(records: Sequence[Seen]) -> dict[int, PartitionTotals] | None:
            totals = totals_of(records)
            read = sum(t.read for t in totals.values())
            assert read <= count, f"{read} events were read where {count} were sent: {totals}"
            return totals if read == count else None

        return self.records(self.topics.user_vectors).until(found, f"{count} events are read", seconds)

    def until_dead(self, sent: Sent) -> Seen:
        """Block until the record at this place is a dead letter; return that."""
        where = [sent.topic.encode(), str(sent.partition).encode(), str(sent.offset).encode()]
        return self.records(self.topics.dead_letters).until(
            lambda records: next(
                (m for m in records if [m.headers[name] for name in ("topic", "partition", "offset")] == where), None
            ),
            f"a dead letter of {sent}",
        )


@contextmanager
def pipeline_on(broker: LocalBroker, folder: Path, **values: object) -> Iterator[Pipeline]:
    """A pipeline in a namespace of its own, whose topics go when it ends."""
    settings = settings_for(broker, **values)
    with Pipeline(settings, folder) as pipeline:
        yield pipeline
    if broker.running:
        admin = make_admin(settings)
        for deleted in admin.delete_topics([spec.name for spec in pipeline.topics.specs()]).values():
            deleted.result(20)


def event(user_id: str, kind: Any, article_id: str = "", **fields: Any) -> Event:
    """An event of this moment unless told otherwise."""
    at = fields.pop("at", now_ms())
    return Event(user_id=user_id, kind=kind, at=at, article_id=article_id, **fields)


def _cause(state: Seen) -> Cause | None:
    assert state.value is not None
    return decode_user(state.value).windows.cause


def totals_of(records: Sequence[Seen]) -> dict[int, PartitionTotals]:
    """The newest totals by partition."""
    newest = {m.partition: m.value for m in records if m.key == PARTITION_KEY}
    return {partition: decode_totals(value) for partition, value in newest.items() if value is not None}


def states_of(records: Sequence[Seen]) -> Mapping[str, UserRecord]:
    """The newest state of each user who has one."""
    newest = {m.key.decode(): m.value for m in records if m.key is not None and m.key != PARTITION_KEY}
    return {user_id: decode_user(value) for user_id, value in newest.items() if value is not None}
