"""A small random encoder tuned on synthetic clicks: some follow from the words of titles, some from nothing.

Run by the environment that has torch: ``python tests/tiny_tuned_encoders.py OUT`` writes the encoder to OUT/source,
what was kept to OUT/signal and OUT/kept, the encoder untuned to OUT/plain, and what else was tried to OUT/results.json.

The signal: titles have three words of one of four groups, and whoever had read of the first group clicks on the second,
of the third on the fourth. Their words have nothing in common: an encoder has to learn that they belong together.
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
from export.encoder import export_encoder
from export.tuned_encoder import Text, train_encoder
from tests.tiny_models import SMALL, tokenizer

DIMS, ARTICLES, IMPRESSIONS = 8, 600, 600
USERS = IMPRESSIONS // 2
GROUPS = ["fog river lamp goat zinc bread kite moss", "sun cedar wolf pearl drum honey axle tide",
          "ink maple crab stone flute pepper oar dune", "ash violet heron salt organ plum sail cliff"]  # fmt: skip


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
    texts = [" ".join(draw.sample(GROUPS[n % 4].split(), 3)) + f" {n % 7} {n % 11}" for n in range(ARTICLES)]
    return {f"N{n}": Text(text, f"category {n % 3}") for n, text in enumerate(texts)}


def shown(*, signal: bool) -> list[Impression]:
    """One title of the group to click on among three of the other; without a signal any of the four is clicked."""
    draw = random.Random(4)

    def of_group(group: int) -> str:
        return f"N{draw.randrange(ARTICLES // 4) * 4 + group}"

    found = []
    for n in range(IMPRESSIONS):
        user = n % USERS
        history = [of_group(user % 2 * 2) for _ in range(6)]
        groups = [1, 3, 3, 3] if user % 2 == 0 else [3, 1, 1, 1]
        candidates = [of_group(group) for group in groups]
        clicked = [place == (0 if signal else n // 2 % 4) for place in range(4)]
        found.append(Impression(f"i{n}", f"u{user}", 10_000 * n, history, candidates, clicked))
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
    tuning.LEARNING_RATE = 2e-3
    source = write_source(out / "source")
    signal, noise = shown(signal=True), shown(signal=False)
    results: dict[str, Any] = {
        "signal": train(signal, source, out / "signal", epochs=6),
        "noise": train(noise, source, out / "noise", epochs=2),
        "kept": train(noise, source, out / "kept", epochs=2, keep=True),
        "short": train(signal[:20], source, out / "short"),
    }
    corpus = [text.text for text in titles().values()]
    export_encoder(str(source), out / "plain", dims=DIMS, corpus=corpus, console=Console(quiet=True))
    results["titles"] = corpus[:200]
    (out / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
