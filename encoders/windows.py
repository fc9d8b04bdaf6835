"""A user's windows: bytes that are replaced and never written into, found in by a search for eight of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contract.messages import device_of, language_of, region_of
from contract.records import Windows

MINUTE_MS = 60_000
LIMITED_MINUTES = 60
# Who was without a network for a while sends what they did meanwhile at once.
SENT_AT_ONCE = 2


def find(window: bytes, item: bytes) -> int:
    """Return the byte at which the 64-bit entry ``item`` begins, -1 where it is not in the window."""
    place = window.find(item)
    while place > 0 and place & 7:
        place = window.find(item, place + 1)
    return place


def push(window: bytes, item: bytes, size: int) -> bytes:
    """Return the window with ``item`` as its newest, its last ``size`` bytes at most."""
    window += item
    return window[-size:] if len(window) > size else window


def without(window: bytes, place: int, width: int) -> bytes:
    """Return the window without the entry of ``width`` bytes at ``place``."""
    return window[:place] + window[place + width :]


def note_read(windows: Windows, hashed: bytes, bit: int, length: int) -> bool:
    """Note that an article was read in the way of ``bit``; return whether it was the first time."""
    place = find(windows.read, hashed)
    if place < 0:
        windows.read = push(windows.read, hashed, 8 * length)
        windows.read_kinds = push(windows.read_kinds, bytes((bit,)), length)
        return True
    place >>= 3
    kinds = windows.read_kinds
    if kinds[place] & bit:
        return False
    windows.read_kinds = kinds[:place] + bytes((kinds[place] | bit,)) + kinds[place + 1 :]
    return True


def note_shown(windows: Windows, items: Sequence[bytes], length: int) -> list[bool]:
    """Note what one impression showed, each a different article; return which of it is not in the window yet."""
    shown, times = windows.shown, windows.shown_counts
    fresh, counts, places = [], [], []
    for item in items:
        place = shown.find(item)
        if place > 0 and place & 7:
            place = find(shown, item)
        if place < 0:
            fresh.append(True)
            counts.append(1)
        else:
            fresh.append(False)
            count = times[place >> 3]
            counts.append(count + 1 if count < 255 else 255)
            places.append(place)
    if places:  # what is shown again becomes the newest
        places.sort()
        begins = [0, *(place + 8 for place in places)]
        ends = [*places, len(shown)]
        kept, kept_times = [], []
        for begin, end in zip(begins, ends, strict=True):
            if begin != end:
                kept.append(shown[begin:end])
                kept_times.append(times[begin >> 3 : end >> 3])
        shown, times = b"".join(kept), b"".join(kept_times)
    windows.shown = push(shown, b"".join(items), 8 * length)
    windows.shown_counts = push(times, bytes(counts), length)
    return fresh


def note_target(windows: Windows, target: str, *, follow: bool, follows: int, mutes: int) -> None:
    """Note a follow or a mute; each ends the other."""
    windows.follows = tuple(t for t in windows.follows if t != target)
    windows.mutes = tuple(t for t in windows.mutes if t != target)
    if follow:
        windows.follows = (*windows.follows, target)[-follows:]
    else:
        windows.mutes = (*windows.mutes, target)[-mutes:]


def note_context(windows: Windows, context: Mapping[str, Any]) -> None:
    """Note what an event's context tells of its user; what it does not tell stays as it was."""
    windows.language = language_of(context.get("language")) or windows.language
    windows.region = region_of(context.get("region")) or windows.region
    windows.device = device_of(context.get("device")) or windows.device


def note_rate(windows: Windows, at: int, timestamp: int, most: int) -> None:
    """Count an event in the minute of its time and in that of its record; too many in either limit who sent them.

    ``most`` are allowed in a minute of event time, :data:`SENT_AT_ONCE` times as many in one of records: the first
    alone would let a client choose times that are far enough apart. What is late counts in the newest minute.
    """
    windows.minute, windows.minute_events = _counted(windows.minute, windows.minute_events, at)
    if windows.minute_events > most:
        _limit(windows, minute=windows.minute)
    windows.record_minute, windows.record_minute_events = _counted(
        windows.record_minute, windows.record_minute_events, timestamp
    )
    if windows.record_minute_events > SENT_AT_ONCE * most:
        _limit(windows, minute=windows.record_minute)


def _counted(minute: int, events: int, at: int) -> tuple[int, int]:
    """Return the newest minute and how many events are in it, with one more at ``at``."""
    return (at // MINUTE_MS, 1) if at // MINUTE_MS > minute else (minute, events + 1)


def _limit(windows: Windows, minute: int) -> None:
    until = (minute + LIMITED_MINUTES) * MINUTE_MS
    if until > windows.limited_until:
        windows.limited_until = until
