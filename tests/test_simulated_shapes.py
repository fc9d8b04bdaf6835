"""The shapes of reading, and the simulator's beside those of data sets in other formats."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from contract.errors import SettingsError, SetupError
from contract.settings import load
from producers.beside import (
    PERSONAL,
    POPULAR,
    beside,
    compare,
    parse_beside,
    print_beside,
    read_traffic,
    simulated_traffic,
    to_json,
)
from producers.broken_lines import NAMED, BrokenLine, BrokenLines
from producers.globo import read_clicks
from producers.shapes import Traffic
from tests.command import refused, stoppress

HOUR_MS = 3_600_000
HEADER = "user_id,session_id,click_article_id,click_timestamp,click_country"


def none_broken(line: BrokenLine) -> None:
    pytest.fail(str(line))


def clicks_of(counts: dict[str, int]) -> Traffic:
    """So many clicks on each article, an hour apart, each by a user of its own."""
    traffic = Traffic()
    for article, count in counts.items():
        for number in range(count):
            traffic.click(f"{article}/{number}", article, number * HOUR_MS)
    return traffic


def write_globo(folder: Path, *lines: str, name: str = "clicks.csv.gz") -> Path:
    text = "".join(f"{line}\n" for line in (HEADER, *lines)).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


def write_mind(folder: Path, *behaviours: str) -> Path:
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in behaviours))
    return folder


def test_popularity_is_the_share_of_the_most_clicked() -> None:
    shape = clicks_of({f"a{rank}": 400 // rank for rank in range(1, 201)}).shape()
    counts = [400 // rank for rank in range(1, 201)]
    assert shape.popularity is not None
    assert (shape.clicks, shape.articles) == (sum(counts), 200)
    assert shape.popularity.top_10 == pytest.approx(sum(counts[:10]) / sum(counts))
    assert shape.popularity.top_100 == pytest.approx(sum(counts[:100]) / sum(counts))
    assert shape.popularity.top_1_percent == pytest.approx(sum(counts[:2]) / sum(counts))
    assert shape.popularity.top_10_percent == pytest.approx(sum(counts[:20]) / sum(counts))
    assert shape.popularity.slope == pytest.approx(-1, abs=0.05)


def test_popularity_can_be_that_of_fewer_clicks() -> None:
    traffic = clicks_of({f"a{rank}": 400 // rank for rank in range(1, 201)})
    sample = traffic.shape(500).popularity
    assert sample is not None
    assert sample.clicks == 500
    assert sample.articles < 200
    assert sample == traffic.shape(500).popularity, "and the same ones each time"


def test_lifetime_is_the_time_to_half_and_nine_tenths_of_the_clicks() -> None:
    shape = clicks_of({"long": 101, "short": 11, "middle": 21, "too few": 9}).shape()
    assert shape.lifetime is not None
    assert shape.lifetime.articles == 3
    assert shape.lifetime.half_hours == pytest.approx(10)
    assert shape.lifetime.nine_tenths_hours == pytest.approx(18)


def test_activity_is_of_those_with_two_clicks_and_more() -> None:
    traffic = Traffic()
    for user, clicks in {"once": 1, "twice": 2, "often": 18, "never": 0}.items():
        traffic.past(user, clicks)
    activity = traffic.shape().activity
    assert activity is not None
    assert (activity.users, activity.mean, activity.median) == (2, 10, 10)
    assert activity.top_10_percent == pytest.approx(0.9)


def test_places_are_held_against_their_own_lists() -> None:
    traffic = Traffic()
    for _ in range(10):
        traffic.look([True, False, False, False])
    for _ in range(10):
        traffic.look([True, True])
    traffic.look([False, False, False])
    lists = traffic.shape().lists
    assert lists is not None
    assert lists.clicks_per_list == 1.5
    assert lists.by_position == pytest.approx({1: 20 / 12.5, 2: 10 / 12.5, 3: 0.0})


def test_where_nothing_is_known_there_is_no_shape() -> None:
    shape = Traffic().shape()
    assert (shape.clicks, shape.popularity, shape.lifetime, shape.activity, shape.lists) == (0, None, None, None, None)


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.csv.gz", "clicks_hour_003.csv"])
def test_globo_clicks_are_read_by_their_columns_names(tmp_path: Path, name: str) -> None:
    write_globo(tmp_path, "7,1,500,1506826800026,1", "", "8,2,500,1506826800027,1", name=name)
    clicks = list(read_clicks(tmp_path, none_broken))
    assert [(click.user_id, click.article_id, click.at) for click in clicks] == [
        ("7", "500", 1506826800026),
        ("8", "500", 1506826800027),
    ]


def test_broken_globo_lines_are_named_and_left_out(tmp_path: Path) -> None:
    write_globo(tmp_path, "7,1,500,1506826800026,1", "7,1", "7,1,500,soon,1", ",1,500,1506826800026,1")
    broken: list[BrokenLine] = []
    assert len(list(read_clicks(tmp_path, broken.append))) == 1
    assert [str(line).split(":")[:2] for line in broken] == [["clicks.csv.gz", number] for number in ("3", "4", "5")]
    assert "2 columns" in broken[0].problem


def test_a_folder_that_is_not_globos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no clicks\*\.csv"):
        list(read_clicks(tmp_path, none_broken))
    (tmp_path / "clicks.csv").write_text("user_id,click_timestamp\n1,2\n")
    with pytest.raises(SetupError, match="no column 'click_article_id'"):
        list(read_clicks(tmp_path, none_broken))
    (tmp_path / "clicks.csv").unlink()
    (tmp_path / "clicks.csv.gz").write_bytes(gzip.compress(HEADER.encode() + b"\n" + b"1,2,3,4,5\n" * 1000)[:-20])
    with pytest.raises(SetupError, match=r"cannot read .*clicks\.csv\.gz"):
        list(read_clicks(tmp_path, none_broken))


def test_minds_traffic_is_its_clicks_its_lists_and_its_histories(tmp_path: Path) -> None:
    write_mind(
        tmp_path,
        "1\tU1\t11/9/2019 9:00:00 AM\tN7 N8 N9\tN1-1 N2-0",
        "2\tU1\t11/9/2019 10:00:00 AM\tN7 N8 N9\tN1-0 N2-1 N3-0 N4-0",
        "3\tU2\t11/9/2019 11:00:00 AM\t\tN1-1",
    )
    shape = read_traffic("mind", tmp_path, none_broken).shape()
    assert (shape.clicks, shape.articles, shape.users) == (3, 2, 2)
    assert shape.activity is not None
    assert shape.activity.mean == 5, "three of the past, counted once, and two"
    assert shape.lists is not None
    assert shape.lists.by_position[1] == pytest.approx(2 / (0.5 + 0.25 + 1))


@pytest.mark.parametrize("given", ["mind", "mind:here", "netflix=here", "=here"])
def test_what_is_not_a_format_and_a_folder_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="is not FORMAT=DIR with FORMAT one of mind, globo"):
        parse_beside(given)


def test_data_without_clicks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no click that can be used"):
        beside([("globo", write_globo(tmp_path))], none_broken, seed=1)


def test_a_simulated_day_has_the_shape_of_news() -> None:
    own, popular = (traffic.shape(1000) for traffic in simulated_traffic(1500, 2, 200, seed=2))
    for shape in (own, popular):
        assert shape.popularity is not None
        assert shape.lifetime is not None
        assert shape.activity is not None
        assert shape.lists is not None
        assert -1.7 < shape.popularity.slope < -0.4, "a few articles take most of the clicks"
        assert 0.1 < shape.popularity.top_10 < 0.75
        assert 1 < shape.lifetime.half_hours < 9, "news is old by the evening"
        assert shape.lifetime.half_hours < shape.lifetime.nine_tenths_hours < 18
        assert 2 <= shape.activity.median <= 4
        assert shape.activity.p99 > 2 * shape.activity.median
        assert 0.2 < shape.activity.top_10_percent < 0.35
        assert 1.1 < shape.lists.clicks_per_list < 1.8
        places = shape.lists.by_position
        assert places[1] > 1.1, "the top is clicked more than it would be by chance"
        assert places[10] < 0.9, "and what stands below less"
    assert own.popularity is not None
    assert popular.popularity is not None
    assert own.popularity.top_100 < popular.popularity.top_100, "own lists spread the clicks"


def test_the_shapes_are_printed_side_by_side(tmp_path: Path) -> None:
    traffic = clicks_of({f"a{rank}": 400 // rank for rank in range(1, 201)})
    mind = Traffic()
    mind.click("u", "a", 0)
    mind.look(np.array([True, False]))
    shapes = {PERSONAL: traffic.shape(1), POPULAR: traffic.shape(1), "mind": mind.shape(1)}
    out = io.StringIO()
    print_beside(shapes, Console(file=out, width=160))
    text = out.getvalue()
    for wanted in (PERSONAL, POPULAR, "mind", "most clicked 1% of articles", "half of its clicks", "place 1"):
        assert wanted in text
    assert "candidates are shuffled" in text, "what the data cannot show is said"
    assert "globo: clicks only" not in text
    (row,) = [line for line in text.splitlines() if "place 2," in line]
    assert [cell.strip() for cell in row.strip("│").split("│")][1:] == ["-", "-", "0.00"]
    found = json.loads(to_json(shapes))
    assert found["mind"]["lists"]["by_position"] == {"1": 2.0, "2": 0.0}
    assert found[PERSONAL]["clicks"] == traffic.clicks


def test_broken_lines_are_named_up_to_a_number_and_counted() -> None:
    said: list[str] = []
    broken = BrokenLines(said.append)
    for number in range(NAMED + 30):
        broken(BrokenLine("clicks.csv", number, "no user"))
    assert said[0] == "left out: clicks.csv:0: no user"
    assert len(said) == NAMED
    broken.sum_up()
    assert said[-1] == f"left out: 30 more lines, {NAMED + 30} in all"
    few = BrokenLines(said.append)
    few.sum_up()
    assert len(said) == NAMED + 1


@pytest.mark.parametrize("as_json", [False, True])
def test_compare_prints_the_data_beside_a_simulation_and_names_broken_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setattr("producers.beside.USERS", 200)
    monkeypatch.setattr("producers.beside.ARTICLES_A_DAY", 40)
    lines = [f"{number % 7},1,{number % 5},{1506826800000 + number},1" for number in range(50)]
    write_globo(tmp_path, *lines, "no click")
    compare([f"globo={tmp_path}"], seed=1, as_json=as_json)
    out, err = capsys.readouterr()
    assert err == "left out: clicks.csv.gz:52: 1 columns where the first line has 5\n"
    if as_json:
        shapes = json.loads(out)
        assert list(shapes) == [PERSONAL, POPULAR, "globo"]
        assert shapes["globo"]["clicks"] == 50
        assert {shape["popularity"]["clicks"] for shape in shapes.values()} == {50}, "equally many of each"
    else:
        assert "Shapes of reading" in out
        assert "of 50 clicks drawn from each" in out


def test_the_command_refuses_what_is_not_there_in_one_line(tmp_path: Path) -> None:
    settings = load(environ={})
    for given, problem in (("globo", "is not FORMAT=DIR"), (f"mind={tmp_path}", "cannot read")):
        assert problem in refused(stoppress(settings, "produce", "simulate", "--beside", given))
