"""Open server-sent event streams: who watches which users, and what is still to be sent to them.

Everything runs in the event loop's thread. A stream remembers only *which* of its users changed, at
most as many as it asked for, and reads the newest feed when the client can take it: a slow client
skips lists, it never queues them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from consumers.feed_view import FeedView, encode_feed
from contract.messages import POPULAR

STREAMED = Counter("stoppress_feed_streamed_lists", "Lists sent over open streams.")
MAX_STREAMS = 10_000
MAX_USERS = 64
HEARTBEAT_SECONDS = 15.0


@dataclass(eq=False)
class Stream:
    """One client's connection. ``pending`` holds the users whose feed is to be sent, oldest first."""

    users: tuple[str, ...]
    pending: dict[str, None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    named: dict[str, frozenset[str]] = field(default_factory=dict)
    fallbacks: set[str] = field(default_factory=set)
    sent: dict[str, bytes] = field(default_factory=dict)
    closed: bool = False


class Streams:
    """All open streams."""

    def __init__(self, view: FeedView) -> None:
        self._view = view
        self._open: set[Stream] = set()
        self._by_user: dict[str, set[Stream]] = defaultdict(set)
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """No more streams can be opened: too many are, or the service is ending."""
        return self._closed or len(self._open) >= MAX_STREAMS

    def changed(self, users: Iterable[str], articles: set[str]) -> None:
        """Wake the streams that show these users' lists or these articles."""
        for user in users:
            for stream in self._by_user.get(user, ()):
                _mark(stream, user)
            if user == POPULAR:
                for stream in self._open:
                    for watched in stream.fallbacks:
                        _mark(stream, watched)
        if articles:
            for stream in self._open:
                for user, named in stream.named.items():
                    if not named.isdisjoint(articles):
                        _mark(stream, user)

    def close(self) -> None:
        """End every stream; new ones end at once."""
        self._closed = True
        for stream in self._open:
            stream.closed = True
            stream.wake.set()

    async def events(self, users: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield the users' current feeds, then each change, until the client leaves or :meth:`close`."""
        stream = Stream(tuple(users), dict.fromkeys(users), closed=self._closed)
        self._open.add(stream)
        for user in stream.users:
            self._by_user[user].add(stream)
        try:
            yield b"retry: 1000\n\n"
            while not stream.closed:
                while stream.pending and not stream.closed:
                    user = next(iter(stream.pending))
                    del stream.pending[user]
                    if event := self._next(stream, user):
                        yield event
                stream.wake.clear()
                if stream.pending or stream.closed:
                    continue
                try:
                    await asyncio.wait_for(stream.wake.wait(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._remove(stream)

    def _next(self, stream: Stream, user: str) -> bytes | None:
        feed, named = self._view.read(user)
        stream.named[user] = named
        if feed.fallback:
            stream.fallbacks.add(user)
        else:
            stream.fallbacks.discard(user)
        payload = encode_feed(feed)
        if stream.sent.get(user) == payload:
            return None
        stream.sent[user] = payload
        STREAMED.inc()
        return b"event: feed\ndata: " + payload + b"\n\n"

    def _remove(self, stream: Stream) -> None:
        self._open.discard(stream)
        for user in stream.users:
            watching = self._by_user[user]
            watching.discard(stream)
            if not watching:
                del self._by_user[user]


def _mark(stream: Stream, user: str) -> None:
    stream.pending[user] = None
    stream.wake.set()
