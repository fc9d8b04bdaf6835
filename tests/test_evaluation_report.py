"""The report as a page, Markdown and JSON."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import SetupError
from contract.settings import load
from evaluation.articles import Articles
from evaluation.charts import Point, curves, image, intervals, reliability, shares, ticks_of
from evaluation.left_out import LeftOut
from evaluation.report import html_page, write_report
from evaluation.results import Result
from evaluation.run import Asked, evaluate_impressions
from evaluation.vectors import read_articles
from producers.mind import behaviours_at, offsets_by_time, read_news
from tests.data_sets import readers_with_tastes

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
MODELS = ("random", "popular", "ctr", "mean", "blend")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, encoder_path: Path) -> Result:
    folder, settings = readers_with_tastes(tmp_path_factory.mktemp("data")), load([f"encoder={encoder_path}"])
    left_out = LeftOut(lambda _: None)
    articles: Articles = read_articles(read_news(folder, print), settings, folder / "cache", left_out)
    shown = behaviours_at(folder, offsets_by_time(folder, print))
    left_out("lines left out", "behaviors.tsv:9: <b>bold</b>")
    return evaluate_impressions(shown, articles, settings, Asked("A & B", MODELS), left_out)


class Links(HTMLParser):
    """Collects whatever a browser would fetch, and whether all tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]
        if tag in ("script", "link", "iframe", "img"):
            self.fetched.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_is_well_formed(result: Result) -> None:
    page = html_page(result)
    links = Links()
    links.feed(page)
    assert (links.fetched, links.open) == ([], [])
    assert "url(" not in page
    assert "A &amp; B: impressions" in page
    figures = [ElementTree.fromstring(svg) for svg in SVG.findall(page)]
    assert len(figures) == 5, "accuracy, two differences, reliability, exposure"
    for name in MODELS:
        assert f"<td>{name}</td>" in page


def test_markdown_and_json_hold_the_same_figures(result: Result, tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder", result)
    table = (tmp_path / "new" / "folder" / "report.md").read_text()
    figures = msgspec.json.decode((tmp_path / "new" / "folder" / "report.json").read_bytes())
    for name in MODELS:
        row, *_ = re.findall(rf"^\| {name} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
        expected = [figures["models"][name][metric] for metric in ("auc", "mrr", "ndcg@5", "ndcg@10")]
        assert [float(cell) for cell in row] == pytest.approx(expected, abs=6e-5)
    assert figures["left_out"] == {"lines left out": 1}
    heads = [line for line in table.splitlines() if line.startswith("| ---")]
    assert len(heads) == 7, "accuracy, intervals, three kinds of slices, probabilities, lists"


def test_a_folder_that_cannot_be_written_to_is_said(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot write the report"):
        write_report(tmp_path / "file", result)


def test_dots_stand_where_their_values_are() -> None:
    svg = ElementTree.fromstring(
        intervals({"low": Point(0.5, 0.4, 0.6), "high": Point(0.7, 0.6, 0.8), "middle": Point(0.6, 0.5, 0.7)})
    )
    low, high, middle = (float(dot.attrib["cx"]) for dot in svg.iter("circle"))
    assert middle == pytest.approx((low + high) / 2, abs=0.2)
    assert low < middle < high
    whiskers = [line for line in svg.iter("line") if line.attrib["class"] == "whisker"]
    assert float(whiskers[0].attrib["x2"]) == pytest.approx(middle, abs=0.2)


def test_a_calibrated_curve_lies_on_the_diagonal() -> None:
    svg = ElementTree.fromstring(reliability({"honest": [(0.02, 0.02), (0.1, 0.1)], "bold": [(0.1, 0.05)]}))
    honest = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in svg.iter("circle")][:2]
    (x1, y1), (x2, y2) = honest
    assert x2 - x1 == pytest.approx(y1 - y2, abs=0.2)


def test_bars_are_as_long_as_their_shares() -> None:
    svg = ElementTree.fromstring(shares({"news": [0.4, 0.2], "sports": [0.1, 0.0]}))
    lengths = [float(bar.attrib["width"]) for bar in svg.iter("rect")]
    assert lengths[:3] == pytest.approx([lengths[0], lengths[0] / 2, lengths[0] / 4], abs=0.2)


@given(st.floats(-1, 1), st.floats(1e-4, 100))
def test_ticks_span_what_they_are_for(low: float, span: float) -> None:
    ticks = ticks_of(low, low + span)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= low + span - 1e-6 * span - 1e-9
    assert 2 <= len(ticks) <= 9


def test_curves_are_drawn_to_scale_and_can_stand_alone() -> None:
    root = ElementTree.fromstring(image(curves({"a < b": [(0, 2.0), (1, 1.0), (2, 1.5)], "one": [(1, 2.0)]}, "epoch")))
    space = "{http://www.w3.org/2000/svg}"
    first, second = (line.attrib["points"].split() for line in root.iter(f"{space}polyline"))
    (x0, y0), (x1, y1), (x2, y2) = ([float(n) for n in point.split(",")] for point in first)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y0, abs=0.2), "lower is further down"
    assert second == [f"{x1},{y0}"]
    assert [text.text for text in root.iter(f"{space}text")][-2:] == ["a < b", "one"]
    assert root.find(f"{space}style") is not None
    assert curves({}, "epoch") == ""
