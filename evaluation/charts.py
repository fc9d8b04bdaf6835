"""Plots as SVG that goes into a page; colours are the page's own (``--ink``, ``--soft``, ``--line-N``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROW, LEFT, RIGHT, WIDTH, TOP = 24, 130, 70, 720, 26
SQUARE, MARGIN = 340, 44
LINES = 6
"""So many colours there are for lines."""
STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True)
class Point:
    """A value with its interval."""

    value: float
    low: float
    high: float


def intervals(points: Mapping[str, Point], *, zero: bool = False, accent: str = "") -> str:
    """A row for each name: its value as a dot on its interval; ``zero`` puts 0 on the axis, ``accent`` stands out."""
    if not points:
        return ""
    low, high = min(p.low for p in points.values()), max(p.high for p in points.values())
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    ticks = ticks_of(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    scale = (WIDTH - LEFT - RIGHT) / ((high - low) or 1)
    bottom = TOP + ROW * len(points)

    def x(value: float) -> float:
        return round(LEFT + (value - low) * scale, 1)

    parts = []
    for tick in ticks:
        kind = "axis" if zero and tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP - 4}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(tick)}" y="{TOP - 10}" text-anchor="middle">{number(tick)}</text>')
    for row, (name, p) in enumerate(points.items()):
        y = TOP + ROW * row + ROW / 2
        mark = ' class="accent"' if name == accent else ""
        value = f"{p.value:+.4f}" if zero else f"{p.value:.4f}"
        parts.append(
            f"<g{mark}><title>{escape(name)}: {value} ({p.low:.4f} to {p.high:.4f})</title>"
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line class="whisker" x1="{x(p.low)}" x2="{x(p.high)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(p.value)}" cy="{y}" r="4"/>'
            f'<text class="value" x="{WIDTH - RIGHT + 10}" y="{y + 4}">{value}</text></g>'
        )
    return _svg(WIDTH, bottom + 8, parts)


def reliability(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """What was said against what came of it, a line for each name, up to the largest of either."""
    largest = max((max(point) for curve in curves.values() for point in curve), default=1.0)
    ticks = ticks_of(0.0, largest)
    end = max(ticks[-1], largest)
    inner = SQUARE - 2 * MARGIN

    def at(said: float, clicked: float) -> tuple[float, float]:
        return round(MARGIN + said / end * inner, 1), round(SQUARE - MARGIN - clicked / end * inner, 1)

    parts = []
    for tick in ticks:
        (x, _), (_, y) = at(tick, 0), at(0, tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{MARGIN}" y2="{SQUARE - MARGIN}"/>')
        parts.append(f'<line class="grid" x1="{MARGIN}" x2="{SQUARE - MARGIN}" y1="{y}" y2="{y}"/>')
        label = number(tick)
        parts.append(f'<text class="tick" x="{x}" y="{SQUARE - MARGIN + 16}" text-anchor="middle">{label}</text>')
        parts.append(f'<text class="tick" x="{MARGIN - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    (x1, y1), (x2, y2) = at(0, 0), at(end, end)
    parts.append(f'<line class="axis" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    parts.append(f'<text class="tick" x="{SQUARE / 2}" y="{SQUARE - 6}" text-anchor="middle">probability given</text>')
    parts.append(
        f'<text class="tick" transform="translate(11 {SQUARE / 2}) rotate(-90)" text-anchor="middle">clicked</text>'
    )
    for place, (name, curve) in enumerate(curves.items()):
        line = " ".join(f"{x},{y}" for x, y in (at(*point) for point in curve))
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in (at(*point) for point in curve))
        parts.append(
            f'<g class="curve line-{place % LINES}"><title>{escape(name)}</title><polyline points="{line}"/>{dots}</g>'
        )
    return _svg(SQUARE, SQUARE, parts)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str) -> str:
    """A line for each name over ``x_name``, from the lowest value to the highest, with its name at its end."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    xs, ys = (ticks_of(*_ends(values)) for values in zip(*points, strict=True))
    right, bottom = WIDTH - LEFT, SQUARE - MARGIN

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - xs[0]) / ((xs[-1] - xs[0]) or 1), (y - ys[0]) / ((ys[-1] - ys[0]) or 1)
        return round(MARGIN + across * (right - MARGIN), 1), round(bottom - up * (bottom - TOP), 1)

    parts = []
    for tick in ys:
        _, y = at(xs[0], tick)
        parts.append(f'<line class="grid" x1="{MARGIN}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{MARGIN - 6}" y="{y + 4}" text-anchor="end">{number(tick)}</text>')
    for tick in xs:
        x, _ = at(tick, ys[0])
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{number(tick)}</text>')
    middle = (MARGIN + right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{SQUARE - 6}" text-anchor="middle">{escape(x_name)}</text>')
    for place, (name, line) in enumerate(lines.items()):
        if line:
            places = [at(*point) for point in line]
            drawn = " ".join(f"{x},{y}" for x, y in places)
            dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in places)
            x, y = places[-1]
            parts.append(
                f'<g class="curve line-{place % LINES}"><polyline points="{drawn}"/>{dots}'
                f'<text x="{x + 8}" y="{y + 4}">{escape(name)}</text></g>'
            )
    return _svg(WIDTH, SQUARE, parts)


def image(svg: str) -> str:
    """A plot as a file of its own."""
    style = f'<style>{STYLE.read_text()}</style><rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{style}", 1)


def shares(rows: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each name, one bar for each of its shares."""
    if not rows:
        return ""
    bar = 8
    largest = max(max(values) for values in rows.values()) or 1.0
    ticks = ticks_of(0.0, largest)
    scale = (WIDTH - LEFT - RIGHT) / max(ticks[-1], largest)
    height = bar * len(next(iter(rows.values()))) + 8
    bottom = TOP + height * len(rows)
    parts = []
    for tick in ticks:
        x = round(LEFT + tick * scale, 1)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{TOP - 10}" text-anchor="middle">{tick:.0%}</text>')
    for row, (name, values) in enumerate(rows.items()):
        y = TOP + height * row
        middle = y + height / 2
        parts.append(f'<text x="{LEFT - 10}" y="{middle + 2}" text-anchor="end">{escape(name)}</text>')
        parts += [
            f'<rect class="bar line-{place % LINES}" x="{LEFT}" y="{y + 2 + bar * place}" '
            f'width="{max(0.5, round(value * scale, 1))}" height="{bar - 1}"><title>{value:.1%}</title></rect>'
            for place, value in enumerate(values)
        ]
    return _svg(WIDTH, bottom + 8, parts)


def ticks_of(low: float, high: float) -> list[float]:
    """Round numbers that span ``low`` to ``high``, four to eight of them."""
    span = (high - low) or 1.0
    exponent = -12
    while True:
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            if span / step <= 6:
                first = int(low // step)
                last = first
                while last * step < high - 1e-9 * span:
                    last += 1
                return [round(number_ * step, 12) for number_ in range(first, last + 1)]
        exponent += 1


def _ends(values: Iterable[float]) -> tuple[float, float]:
    some = list(values)
    return min(some), max(some)


def number(value: float) -> str:
    """A tick's number, as short as it can be."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value else "0"


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n{inside}\n</svg>'
