"""The ONNX graph of an exact search, MatMul and TopK, written by hand: nothing here needs the package ``onnx``.

Field numbers are those of ``onnx.proto3`` of ONNX 1.16, IR version 8, operator set 17.
"""

from __future__ import annotations

import struct

FLOAT, INT64 = 1, 7


def search_graph(k: int) -> bytes:
    """Return a model: ``queries`` [u, d] and ``articles`` [d, n] -> ``scores`` and ``places`` [u, k], largest first."""
    nodes = _node("MatMul", ["queries", "articles"], ["all"]) + _node("TopK", ["all", "k"], ["scores", "places"])
    count = _number(1, 1) + _number(2, INT64) + _text(8, "k") + _bytes(9, struct.pack("<q", k))
    graph = (
        nodes + _text(2, "search") + _bytes(5, count)
        + _value(11, "queries", FLOAT, "u", "d") + _value(11, "articles", FLOAT, "d", "n")
        + _value(12, "scores", FLOAT, "u", "k") + _value(12, "places", INT64, "u", "k")
    )  # fmt: skip
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))


def _node(operator: str, inputs: list[str], outputs: list[str]) -> bytes:
    names = b"".join(_text(1, name) for name in inputs) + b"".join(_text(2, name) for name in outputs)
    return _bytes(1, names + _text(4, operator))


def _value(field: int, name: str, kind: int, *dimensions: str) -> bytes:
    shape = b"".join(_bytes(1, _text(2, dimension)) for dimension in dimensions)
    tensor = _number(1, kind) + _bytes(2, shape)
    return _bytes(field, _text(1, name) + _bytes(2, _bytes(1, tensor)))


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
