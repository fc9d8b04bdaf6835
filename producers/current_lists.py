"""The newest list of every user of interest, as any client would follow it: by reading ``recommendations``."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping

import msgspec
import numpy as np

from contract.messages import POPULAR, Cause
from contract.settings import Settings
from streams.record import Record
from streams.table import TableReader
from streams.worker import Stop


class ListedItem(msgspec.Struct, frozen=True):
    """What a view needs to know of one place of a list."""

    article_id: str
    reason: str = ""
    source: str = ""
    propensity: float | None = None


class CurrentList(msgspec.Struct, frozen=True):
    """What a view needs to know of a list."""

    list_id: str
    items: list[ListedItem]
    fallback: bool = False


class _Head(msgspec.Struct, frozen=True):
    cause: Cause


_decode_list = msgspec.json.Decoder(CurrentList).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class Latencies:
    """Milliseconds from a cause's Kafka timestamp to the receipt of its list."""

    def __init__(self) -> None:
        self._values = array("q")

    def add(self, milliseconds: int) -> None:
        self._values.append(max(0, milliseconds))

    def figures(self) -> dict[str, float | int | None]:
        """``p50``, ``p95``, ``p99`` (None where nothing was measured) and ``count``."""
        names = ("p50", "p95", "p99")
        if not self._values:
            return {**dict.fromkeys(names), "count": 0}
        values = np.percentile(np.frombuffer(self._values, np.int64), [50, 95, 99], method="inverted_cdf")
        return {**dict(zip(names, map(int, values), strict=True)), "count": len(self._values)}


class CurrentLists:
    """Follows the lists of ``users`` (id -> number) and ``~popular``; decodes a list only when it is looked at."""

    def __init__(self, settings: Settings, topic: str, users: Mapping[str, int], *, name: str) -> None:
        self._reader = TableReader(settings, topic, name=name)
        self._numbers = {user_id.encode(): number for user_id, number in users.items()}
        self._raw: list[bytes | None] = [None] * len(users)
        self._decoded: list[CurrentList | None] = [None] * len(users)
        self._popular: CurrentList | None = None
        self._measure_from = float("inf")
        self.popular_changes = 0
        self.received = 0
        self.event_to_list = Latencies()
        self.publish_to_list = Latencies()

    def catch_up(self) -> None:
        """Block until everything has been read that is in the topic now."""
        for record in self._reader.catch_up():
            self._take(record)

    def measure_from(self, moment: float) -> None:
        """Measure the latency of lists received from ``moment`` (``time.time()``) on."""
        self._measure_from = moment

    def poll(self, seconds: float) -> None:
        """Take in what comes within ``seconds``."""
        for record in self._reader.poll(seconds, limit=1000):
            self._take(record)

    def of(self, user: int) -> CurrentList | None:
        """The user's own list, if there is one that is not merely the popular one under their name."""
        raw = self._raw[user]
        if raw is not None:
            self._decoded[user] = _decode_list(raw)
            self._raw[user] = None
        found = self._decoded[user]
        return None if found is None or found.fallback else found

    @property
    def popular(self) -> CurrentList | None:
        """The list under ``~popular``."""
        return self._popular

    def await_everyone(self, stop: Stop, patience: float) -> None:
        """Block until every user has been sent a list, no more have for ``patience`` seconds, or a stop."""
        had, since = -1, time.monotonic()
        while not stop.requested and (have := self.own_lists()) < len(self._raw):
            if have > had:
                had, since = have, time.monotonic()
            if time.monotonic() - since > patience:
                return
            self.poll(0.1)

    def own_lists(self) -> int:
        """How many users have been sent a list."""
        return sum(raw is not None or found is not None for raw, found in zip(self._raw, self._decoded, strict=True))

    def close(self) -> None:
        """Close the reader; blocks briefly."""
        self._reader.close()

    def _take(self, record: Record) -> None:
        key, value = record.key(), record.value()
        user = None if key is None else self._numbers.get(key)
        if user is not None:
            self._raw[user] = value
            self._decoded[user] = None
            self.received += value is not None
            if value is not None and (now := time.time()) >= self._measure_from:
                self._measure(_decode_head(value).cause, round(now * 1000))
        elif key == POPULAR.encode():
            self._popular = None if value is None else _decode_list(value)
            self.popular_changes += 1

    def _measure(self, cause: Cause, now_ms: int) -> None:
        if cause.kind == "event":
            self.event_to_list.add(now_ms - cause.at)
        elif cause.kind == "article":
            self.publish_to_list.add(now_ms - cause.at)
