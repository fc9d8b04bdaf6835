"""Topics, transactions and group members in the test's own process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from contract.errors import UnreadableState
from contract.settings import Settings
from streams.clients import make_admin, make_producer
from streams.group import GroupInput
from streams.health import HealthServer, Pulse
from streams.record import Record
from streams.restore import Restore
from streams.table import end_offsets
from streams.transactions import TransactionalOutput
from streams.worker import Identity, Stop
from tests.pipeline import await_true

DAMAGED = b"damaged"


def make_topic(settings: Settings, name: str, partitions: int = 2, **config: str) -> str:
    """Create a topic in the test's namespace, and wait until the broker serves it; return its full name."""
    full = f"{settings.namespace}{name}"
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    admin = make_admin(settings)
    admin.create_topics([NewTopic(full, partitions, 1, config=dotted)])[full].result(20)
    await_true(lambda: _serves(admin, full, partitions), f"{full} is served")
    return full


def _serves(admin: AdminClient, topic: str, partitions: int) -> bool:
    try:
        return len(end_offsets(admin, topic, range(partitions))) == partitions
    except KafkaException:
        return False


def write(settings: Settings, topic: str, *records: tuple[int, str, bytes | None]) -> None:
    """Write records (partition, key, value); blocks until Kafka has them."""
    producer = make_producer(settings, name="test")
    for partition, key, value in records:
        producer.produce(topic, value, key.encode(), partition)
    assert producer.flush(20) == 0


@contextmanager
def open_transaction(settings: Settings, topic: str, *records: tuple[int, str, bytes | None]) -> Iterator[Producer]:
    """A transaction whose records lie in the topic; the body commits or aborts it."""
    producer = make_producer(settings, name="test", transactional_id=f"{settings.namespace}{topic}.test")
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition, key, value in records:
        producer.produce(topic, value, key.encode(), partition)
    assert producer.flush(20) == 0
    yield producer


class Tables:
    """Tables of a group member: by partition, the last value of each key of the changelog."""

    def __init__(self, changelog: str) -> None:
        self.changelog = changelog
        self.values: dict[int, dict[str, bytes]] = {}
        self.restored: list[dict[int, int]] = []
        self.dropped: list[set[int]] = []

    def restore(self, restore: Restore) -> None:
        self.restored.append(dict(restore.committed))
        values: dict[int, dict[str, bytes]] = {p: {} for p in restore.committed}

        def put(record: Record) -> None:
            key, value = record.key(), record.value()
            assert key is not None
            if value == DAMAGED:
                raise UnreadableState("it says so")
            if value is None:
                values[record.partition()].pop(key.decode(), None)
            else:
                values[record.partition()][key.decode()] = value

        restore.read(self.changelog, put)
        self.values |= {p: table for p, table in values.items() if p not in restore.damaged}

    def drop(self, partitions: Iterable[int]) -> None:
        for partition in (gone := set(partitions)):
            self.values.pop(partition, None)
        if gone:
            self.dropped.append(gone)


class Member:
    """A worker of the smallest kind: counts by key what it reads, and writes the counts to the changelog."""

    def __init__(
        self, settings: Settings, events: str, changelog: str, slot: str = "0", also_read: Sequence[str] = ()
    ) -> None:
        self.settings = settings.model_copy(update={"slot": slot})
        self.events = events
        self.health = HealthServer("127.0.0.1", 0)
        self.stop = Stop()
        self.pulse = Pulse(self.stop, self.health)
        self.tables = Tables(changelog)
        identity = Identity.of(self.settings, "counter", "g")
        self.source = GroupInput(
            self.settings, events, identity, self.tables, name="counter", changelogs=[changelog], pulse=self.pulse,
            also_read=also_read,
        )  # fmt: skip
        self.output = TransactionalOutput(
            self.settings, identity, name="counter", pulse=self.pulse, reads=events, writes=[changelog]
        )
        self.read: list[tuple[int, int]] = []

    def step(self) -> int:
        """One round of the loop; return how many records it took in."""
        records = self.source.consume(1000, 0.05)
        if records:
            self.commit(records)
        return len(records)

    def commit(self, records: Sequence[Record]) -> None:
        staged: dict[int, dict[str, int]] = defaultdict(dict)
        for record in records:
            partition, key = record.partition(), (record.key() or b"").decode()
            before = staged[partition].get(key, int(self.tables.values[partition].get(key, b"0")))
            staged[partition][key] = before + 1
        with self.output.transaction(self.source, self.source.positions_after(records)):
            for partition, counts in staged.items():
                for key, count in counts.items():
                    self.output.send(self.tables.changelog, key.encode(), str(count).encode(), partition)
        for partition, counts in staged.items():
            self.tables.values[partition] |= {key: str(count).encode() for key, count in counts.items()}
        self.read += [(record.partition(), record.offset()) for record in records]

    def counts(self) -> dict[str, int]:
        return {key: int(value) for table in self.tables.values.values() for key, value in table.items()}

    def until_assigned(self, partitions: Sequence[int], *others: Member) -> None:
        """Let this member, and others that must take part, run until it owns exactly these."""

        def owns() -> bool:
            for member in (self, *others):
                member.step()
            return self.source.assigned == sorted(partitions)

        await_true(owns, f"{self.settings.slot} owns {partitions}", seen=lambda: self.source.assigned)

    def until_read(self, count: int) -> None:
        """Run until so many records were taken in and committed."""

        def done() -> bool:
            self.step()
            return len(self.read) >= count

        await_true(done, f"{count} records are read", seen=lambda: len(self.read))

    def until_it_ends(self) -> None:
        """Run until an error ends it."""
        await_true(lambda: self.step() < 0, "it ends")

    def close(self) -> None:
        self.source.close()
        self.health.close()
