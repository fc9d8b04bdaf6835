"""A consumed record, as everybody above Kafka sees it."""

from __future__ import annotations

from typing import Protocol

from contract.errors import UnreadableState


class Record(Protocol):
    """What a poll hands out: a record that was really read, never an error or an end of partition.

    Structural: confluent-kafka's Message is one, at no cost a record.
    """

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]:
        """The kind of timestamp, and epoch ms."""
        ...

    def headers(self) -> list[tuple[str, bytes]] | None: ...


def text_key(record: Record) -> str:
    """Return the key of a record of a compacted topic: Kafka takes none without a key there.

    Raises :class:`UnreadableState` where it is no id of ours.
    """
    key = record.key()
    assert key is not None, f"a record without a key in {record.topic()}"
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise UnreadableState(
            f"{record.topic()} has a key that is not UTF-8; something else than stoppress wrote it"
        ) from None
