"""``produce simulate --beside``: the simulator's shapes printed beside those of real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from contract.errors import SettingsError, SetupError
from producers.audience import Viewed
from producers.broken_lines import BrokenLines, OnBroken
from producers.globo import read_clicks
from producers.mind import read_behaviours
from producers.offline import DAY_MS, START_MS, Found, simulate_days
from producers.shapes import POSITIONS, Shape, Traffic
from producers.simulated_users import Ints

USERS, DAYS, ARTICLES_A_DAY = 5000, 3, 200
WIDTH = 120
"""Of the table where there is no terminal to ask."""
PERSONAL, POPULAR = "simulated, own lists", "simulated, popular list"
NOTES = {
    "": (
        f"simulated: {USERS:,} readers, {ARTICLES_A_DAY} articles a day; the last of {DAYS} days, in memory, "
        "with the live simulator's code. The popular list is made anew at every look, so its articles come and go "
        "faster than those of a front page."
    ),
    "sample": "popularity: of {clicks:,} clicks drawn from each, since its figures change with their number.",
    "mind": (
        "mind: a sample of a few impressions per user out of several days, so fewer clicks fall on one article than "
        "on a day of a site; clicks per user are weeks of history; its candidates are shuffled, so their order says "
        "nothing of positions; lists without a click were left out when it was made."
    ),
    "globo": "globo: clicks only, so nothing of lists; sessions with one click were left out when it was made.",
}


def compare(given: Sequence[str], *, seed: int, as_json: bool) -> None:
    """Print the shapes of ``given`` data sets, ``FORMAT=DIR`` each, and of the simulator; broken lines go to stderr.

    Raises as :func:`beside` does. Blocks for half a minute.
    """
    folders = [parse_beside(one) for one in given]
    broken = BrokenLines(Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print)
    shapes = beside(folders, broken, seed=seed)
    broken.sum_up()
    if as_json:
        print(to_json(shapes).decode())
    else:
        console = Console()
        print_beside(shapes, console if console.is_terminal else Console(width=WIDTH))


def beside(folders: Sequence[tuple[str, Path]], on_broken: OnBroken, *, seed: int) -> dict[str, Shape]:
    """Read the data sets, ``(format, folder)`` each, simulate, and return the shape of each under its name.

    Raises :class:`SettingsError` for an unknown format, :class:`SetupError` for a folder that cannot be used.
    Blocks for half a minute.
    """
    traffics: dict[str, Traffic] = {}
    for name, folder in folders:
        traffics[name] = read_traffic(name, folder, on_broken)
        if not traffics[name].clicks:
            raise SetupError(f"{folder} holds no click that can be used")
    personal, popular = simulated_traffic(USERS, DAYS, ARTICLES_A_DAY, seed=seed)
    traffics = {PERSONAL: personal, POPULAR: popular, **traffics}
    sample = min(traffic.clicks for traffic in traffics.values())
    return {name: traffic.shape(sample) for name, traffic in traffics.items()}


def parse_beside(given: str) -> tuple[str, Path]:
    """``mind=DIR`` as its two parts. Raises :class:`SettingsError`."""
    name, equals, folder = given.partition("=")
    if not equals or name not in READERS:
        raise SettingsError(f"--beside {given!r} is not FORMAT=DIR with FORMAT one of {', '.join(READERS)}")
    return name, Path(folder)


def read_traffic(name: str, folder: Path, on_broken: OnBroken) -> Traffic:
    """Read one data set, line by line. Raises as :func:`beside` does."""
    traffic = Traffic()
    READERS[name](traffic, folder, on_broken)
    return traffic


def simulated_traffic(users: int, days: int, articles_a_day: int, *, seed: int) -> tuple[Traffic, Traffic]:
    """Simulate, and return the last day's traffic of the users' own lists and of the popular list.

    What users find elsewhere belongs to both.
    """
    arms = Traffic(), Traffic()
    measured_from = START_MS + (days - 1) * DAY_MS

    def look(users: Ints, now: int, personal: Viewed, popular: Viewed, elsewhere: Found) -> None:
        if now < measured_from:
            return
        for traffic, viewed in zip(arms, (personal, popular), strict=True):
            for clicked, seen in zip(viewed.clicked, viewed.seen, strict=True):
                traffic.look(clicked[seen])
            rows, places = np.nonzero(viewed.clicked)
            _take(traffic, users[rows], viewed.lists[rows, places], now)
            _take(traffic, *elsewhere, now)

    simulate_days(users=users, days=days, articles_a_day=articles_a_day, seed=seed, on_look=look)
    return arms


def print_beside(shapes: dict[str, Shape], console: Console) -> None:
    """Print the shapes as a table, with what is to be known of it."""
    table = Table(title="Shapes of reading", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in shapes:
        table.add_column(name, justify="right")
    for part, lines in TABLE.items():
        table.add_section()
        table.add_row(f"[bold]{part}[/bold]")
        for label, text in lines.items():
            table.add_row(f"  {label}", *(_cell(shape, text) for shape in shapes.values()))
    console.print(table)
    sample = next(iter(shapes.values())).popularity
    for name, note in NOTES.items():
        if name in ("", "sample", *shapes):
            console.print(note.format(clicks=sample.clicks if sample else 0), highlight=False)


def to_json(shapes: dict[str, Shape]) -> bytes:
    """The same as JSON, by name."""
    return msgspec.json.format(msgspec.json.encode(shapes))


def _take(traffic: Traffic, users: Ints, articles: Ints, now: int) -> None:
    for user, article in zip(users.tolist(), articles.tolist(), strict=True):
        traffic.click(user, article, now)


def _take_mind(traffic: Traffic, folder: Path, on_broken: OnBroken) -> None:
    known: set[str] = set()
    for behaviour in read_behaviours(folder, on_broken):
        traffic.look(behaviour.clicked)
        for article_id, clicked in zip(behaviour.candidates, behaviour.clicked, strict=True):
            if clicked:
                traffic.click(behaviour.user_id, article_id, behaviour.at)
        if behaviour.user_id not in known:
            known.add(behaviour.user_id)
            traffic.past(behaviour.user_id, len(behaviour.history))


def _take_globo(traffic: Traffic, folder: Path, on_broken: OnBroken) -> None:
    for click in read_clicks(folder, on_broken):
        traffic.click(click.user_id, click.article_id, click.at)


READERS: dict[str, Callable[[Traffic, Path, OnBroken], None]] = {"mind": _take_mind, "globo": _take_globo}


def _cell(shape: Shape, text: Callable[[Shape], str | None]) -> str:
    return text(shape) or "-"


def _of(part: str, name: str, form: str) -> Callable[[Shape], str | None]:
    def text(shape: Shape) -> str | None:
        found = getattr(shape, part)
        return None if found is None else format(getattr(found, name), form)

    return text


def _at(position: int) -> Callable[[Shape], str | None]:
    def text(shape: Shape) -> str | None:
        found = shape.lists.by_position.get(position) if shape.lists else None
        return None if found is None else f"{found:.2f}"

    return text


TABLE: dict[str, dict[str, Callable[[Shape], str | None]]] = {
    "read": {
        "clicks": lambda shape: f"{shape.clicks:,}",
        "articles clicked": lambda shape: f"{shape.articles:,}",
        "users": lambda shape: f"{shape.users:,}",
    },
    "popularity: share of clicks of the": {
        "10 most clicked articles": _of("popularity", "top_10", ".1%"),
        "100 most clicked": _of("popularity", "top_100", ".1%"),
        "most clicked 1% of articles": _of("popularity", "top_1_percent", ".1%"),
        "most clicked 10%": _of("popularity", "top_10_percent", ".1%"),
        "slope of log clicks over log rank": _of("popularity", "slope", ".2f"),
    },
    "article lifetime: hours from first click to": {
        "half of its clicks": _of("lifetime", "half_hours", ".1f"),
        "nine tenths": _of("lifetime", "nine_tenths_hours", ".1f"),
        "articles with 10 clicks and more": _of("lifetime", "articles", ",d"),
    },
    "clicks per user, of those with two and more": {
        "mean": _of("activity", "mean", ".1f"),
        "median": _of("activity", "median", ".0f"),
        "90th percentile": _of("activity", "p90", ".0f"),
        "99th percentile": _of("activity", "p99", ".0f"),
        "most active tenth's share": _of("activity", "top_10_percent", ".1%"),
    },
    "lists with a click": {
        "clicks per list": _of("lists", "clicks_per_list", ".2f"),
        **{f"place {place}, 1 = no matter": _at(place) for place in POSITIONS},
    },
}
