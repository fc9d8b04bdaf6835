"""The changelogs of some partitions, read to their ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from contract.errors import NewerState, UnreadableState
from contract.settings import Settings
from streams.health import Pulse
from streams.record import Record
from streams.table import batches_to_end

START_NEWER = "start the version that wrote it"


def replace_it(_record: Record) -> str:
    """What mends a record that can be done without."""
    return "write a readable record or a tombstone under the same key"


class Damage(NamedTuple):
    """``record``: the place of a record that cannot be read, and what is wrong with it; ``do``: what mends it."""

    record: str
    do: str


class Restore:
    """One restore of the partitions in ``committed``, by partition number the offset to go on from.

    ``by_workers`` are those whose offset a worker committed, and nobody who set it by hand.

    A record that cannot be read does not end it: its partition is ``damaged`` afterwards, unless a
    later record of the same key takes its place.
    """

    def __init__(
        self,
        settings: Settings,
        committed: Mapping[int, int],
        *,
        name: str,
        pulse: Pulse,
        by_workers: Collection[int] = (),
    ) -> None:
        self.committed = dict(committed)
        self.ahead: dict[int, int] = {}
        self._by_workers = by_workers
        self.records = 0
        self._settings = settings
        self._name = f"{name}.restore"
        self._pulse = pulse
        self._unreadable: dict[tuple[str, int, bytes | None], Damage] = {}

    def reached(self, partition: int, offset: int) -> None:
        """Say that the changelogs hold everything before ``offset``, as the same transactions wrote it.

        Where the group's offset is behind that, Kafka has lost commits: ``committed`` and ``ahead`` have it then.
        """
        if partition in self._by_workers and offset > self.committed[partition]:
            self.committed[partition] = self.ahead[partition] = offset

    @property
    def damaged(self) -> dict[int, Damage]:
        """By partition, one of the records that cannot be read."""
        return {partition: damage for (_, partition, _), damage in self._unreadable.items()}

    def read(self, topic: str, put: Callable[[Record], None], mended_by: Callable[[Record], str] = replace_it) -> None:
        """Hand every committed record of ``topic`` in these partitions to ``put``; blocks.

        ``put`` raises :class:`UnreadableState` for what it cannot take; ``mended_by`` says what to do about it then.
        """
        partitions = list(self.committed)
        for batch in batches_to_end(self._settings, topic, name=self._name, partitions=partitions, pulse=self._pulse):
            self.records += len(batch)
            for record in batch:
                try:
                    put(record)
                except UnreadableState as error:
                    place = f"{topic}[{record.partition()}]@{record.offset()}"
                    do = START_NEWER if isinstance(error, NewerState) else mended_by(record)
                    damage = Damage(f"{place}: {error}", do)
                    self._unreadable[topic, record.partition(), record.key()] = damage
                else:
                    if self._unreadable:
                        self._unreadable.pop((topic, record.partition(), record.key()), None)
