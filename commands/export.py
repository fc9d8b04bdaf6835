"""``stoppress export``; needs the extra ``export``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.wiring import settings_of
from contract.errors import SettingsError
from contract.settings import Settings
from contract.topics import Topics

if TYPE_CHECKING:
    from contract.messages import Article

app = typer.Typer(no_args_is_help=True, help="Convert models to ONNX; needs the extra `export`.")


class Precision(Enum):
    FP32 = "fp32"
    FP16 = "fp16"


@app.command("encoder")
def export_encoder_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="minilm (packaged), a folder, or a Hugging Face name")],
    out: Annotated[Path, typer.Argument(help="the folder to write")],
    dims: Annotated[int | None, typer.Option(help="centre and project to this many dimensions")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="what the projection learns from: JSON lines, MIND's news.tsv, or `topic`, the system's own"),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="fp16 is for GPUs")] = Precision.FP32,
) -> None:
    """Convert a sentence model to ONNX and prove that it gives the same vectors."""
    from encoders.text import article_text
    from export.encoder import export_encoder

    articles = None
    if corpus == "topic":
        articles = _published(settings_of(context))
    elif corpus is not None:
        articles = _articles_in(Path(corpus))
    texts = None if articles is None else (article_text(a.title, a.abstract, a.body) for a in articles)
    export_encoder(model, out, dims=dims, corpus=texts, precision=precision.value)


def _published(settings: Settings) -> Iterator[Article]:
    """What is in the topic ``articles`` now; what cannot be used is left out, as a worker would."""
    from contract.errors import BadRecord
    from contract.messages import decode_article
    from streams.admin import require_topics
    from streams.table import read_to_end

    topics = Topics(settings, "")
    require_topics(settings, [spec for spec in topics.specs() if spec.name == topics.articles])
    for record in read_to_end(settings, topics.articles, name="export"):
        try:
            article = decode_article(record.key(), record.value())
        except BadRecord:
            continue
        if article is not None:
            yield article


def _articles_in(path: Path) -> Iterator[Article]:
    from contract.errors import BadRecord
    from contract.messages import Article, decode

    if path.name == "news.tsv":
        from producers.mind import read_news

        yield from (news.article(published_at=0) for news in read_news(path.parent, lambda _: None))
        return
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007  the message below says which line it was
                if line.strip():
                    yield decode(Article, line)
    except OSError as error:
        raise SettingsError(f"cannot read the corpus {path}: {error.strerror}") from None
    except BadRecord as error:
        raise SettingsError(f"line {number} of the corpus {path} is not an article: {error.detail}") from None
