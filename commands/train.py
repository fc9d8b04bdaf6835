"""``stoppress train``; needs the extra ``export``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from export.interest.run import EPOCHS, MODELS, check_out, train_interest

if TYPE_CHECKING:
    from export.interest.log import ReadingLog

app = typer.Typer(no_args_is_help=True, help="Train models from clicks; needs the extra `export`.")
GLOBO_DIMS = 64


class Format(Enum):
    MIND = "mind"
    GLOBO = "globo"


def _command(name: str) -> Callable[..., None]:
    def train(
        dataset: Annotated[Path, typer.Argument(help="the folder with the data set")],
        out: Annotated[Path, typer.Argument(help="the folder to write")],
        format_: Annotated[Format, typer.Option("--format", help="of the data")],
        encoder: Annotated[Path, typer.Option(help="gives articles with texts their vectors")] = Path("var/encoder"),
        seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 0,
        epochs: Annotated[int, typer.Option(min=1, help="at most")] = EPOCHS,
        plain: Annotated[
            bool, typer.Option("--plain", help="leave out what the model is named for, to see what that is worth")
        ] = False,
    ) -> None:
        check_out(out)
        console = Console(stderr=True, soft_wrap=True)
        log = _impressions(dataset, encoder, seed, console) if format_ is Format.MIND else _clicks(dataset, console)
        train_interest(name, log, out, seed=seed, epochs=epochs, plain=plain, console=console)

    return train


def _impressions(folder: Path, encoder: Path, seed: int, console: Console) -> ReadingLog:
    from encoders.text import TextEncoder, article_text
    from export.interest.log import log_of_impressions
    from producers.broken_lines import BrokenLines
    from producers.mind import read_behaviours, read_news

    broken = BrokenLines(console.print)
    loaded = TextEncoder.load(encoder, "auto")
    behaviours = list(read_behaviours(folder, broken))
    wanted = {article for b in behaviours for article in (*b.history, *b.candidates)}
    news = {n.article_id: n for n in read_news(folder, broken) if n.article_id in wanted}
    broken.sum_up()
    console.print(f"{len(behaviours):,} impressions; embedding {len(news):,} articles")
    vectors = loaded.encode([article_text(n.title, n.abstract, "") for n in news.values()])
    return log_of_impressions(behaviours, dict(zip(news, vectors, strict=True)), seed)


def _clicks(folder: Path, console: Console) -> ReadingLog:
    from export.interest.log import log_of_clicks
    from producers.broken_lines import BrokenLines
    from producers.globo import read_clicks

    broken = BrokenLines(console.print)
    clicks = list(read_clicks(folder, broken))
    broken.sum_up()
    console.print(f"{len(clicks):,} clicks; learning vectors from what is read together")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=1.0)
        return log_of_clicks(clicks, GLOBO_DIMS, lambda share: progress.update(task, completed=share))


for _name, _help in MODELS.items():
    app.command(_name, help=f"Interest model: {_help}.")(_command(_name))
