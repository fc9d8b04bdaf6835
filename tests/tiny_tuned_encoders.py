"""A small random encoder tuned on synthetic clicks: some follow from the words of titles, some from nothing.

Run by the environment that has torch: ``python tests/tiny_tuned_encoders.py OUT`` writes the encoder to OUT/source,
what was kept to OUT/signal and OUT/kept, and what else was tried to OUT/results.json.

The signal: every title has three words of one of two topics, of twenty words each, and readers read one topic only. Two
titles of a topic seldom share a word, so that an encoder has to learn which words belong together.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from rich.console import Console

from contract.errors import StoppressError
from contract.settings import load
from export import tuning
from export.tuned_encoder import Text, train_encoder
from tests.tiny_models import SMALL, tokenizer

DIMS, TOPICS, ARTICLES, USERS = 8, 2, 600, 60
WORDS = [[f"{letter}{n}" for n in range(20)] for letter in "ab"]


class Impression(NamedTuple):
    impression_id: str
    user_id: str
    at: int
    history: list[str]
    candidates: list[str]
    clicked: list[bool]


def write_source(folder: Path) -> Path:
    words = tokenizer(special=["[PAD]", "[CLS]", "[SEP]"], post=("[CLS]", "[SEP]"), lower=True)
    torch.manual_seed(1)
    config = transformers.BertConfig(vocab_size=400, **(SMALL | {"num_hidden_layers": 3}), max_position_embeddings=64)
    transformers.BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def titles() -> dict[str, Text]:
    draw = random.Random(3)
    return {
        f"N{n}": Text(f"{' '.join(draw.sample(WORDS[n % TOPICS], 3))} {n}", f"category {n % 3}")
        for n in range(ARTICLES)
    }


def shown(*, signal: bool) -> list[Impression]:
    draw = random.Random(4)
    found = []
    for n in range(360):
        user = n % USERS
        topic = user % TOPICS if signal else draw.randrange(TOPICS)
        history = [f"N{draw.randrange(ARTICLES // TOPICS) * TOPICS + topic}" for _ in range(4)]
        candidates = [f"N{draw.randrange(ARTICLES // TOPICS) * TOPICS + place % TOPICS}" for place in range(8)]
        clicked = draw.choice([place for place in range(8) if not signal or place % TOPICS == topic])
        found.append(
            Impression(f"i{n}", f"u{user}", 10_000 * n, history, candidates, [place == clicked for place in range(8)])
        )
    return found


def untold(items: Sequence[Any], _name: str) -> Iterable[Any]:
    return items


def train(impressions: list[Impression], source: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Train; return what was said, or the error."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=200)
        try:
            train_encoder(
                impressions, titles(), out, load(environ={}), track=untold, model=str(source), dims=DIMS,
                console=console, **options,
            )  # fmt: skip
        except StoppressError as error:
            return {"error": str(error), "exit_code": error.exit_code}
        return {"error": "", "exit_code": 0, "said": console.export_text()}


def main(out: Path) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tuning.LEARNING_RATE = 1e-2
    source = write_source(out / "source")
    signal, noise = shown(signal=True), shown(signal=False)
    results = {
        "signal": train(signal, source, out / "signal", epochs=6),
        "noise": train(noise, source, out / "noise", epochs=2),
        "kept": train(noise, source, out / "kept", epochs=2, keep=True),
        "short": train(signal[:20], source, out / "short"),
    }
    (out / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
