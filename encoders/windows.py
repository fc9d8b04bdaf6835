"""Windows of 64-bit hashes as bytes: never written into, found in by a search for eight bytes."""

from __future__ import annotations


def find(window: bytes, item: bytes) -> int:
    """Return the byte at which the entry ``item`` begins, -1 where it is not in the window."""
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
