"""When the articles worker has read enough to run a batch: its bounds, as they are set."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from consumers import articles_reader
from consumers.articles_backlog import Backlog
from consumers.articles_reader import Reader
from consumers.articles_runner import Bounds
from contract.settings import load
from encoders.session import CPU, CUDA
from encoders.text import BATCH_TOKENS
from tests.test_articles_backlog import version


class Encoder:
    """As far as bounds are concerned."""

    def __init__(self, provider: str, batch_tokens: int) -> None:
        self.provider = provider
        self.batch_tokens = batch_tokens


class Runner:
    busy = False

    def wait(self, seconds: float) -> None:
        """There is nothing to wait for."""


class Source:
    """One partition, all of which has been read."""

    assigned = (0,)
    end = 0

    def known_ends(self) -> dict[int, int]:
        return {0: self.end}

    def consume(self, limit: int, seconds: float) -> list[Any]:
        return []


class Desk:
    def __init__(self) -> None:
        self.backlog = Backlog(10_000)


class World:
    """A reader whose encoder is free, and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> None:
        self.desk, self.source, self.runner, self.now = Desk(), Source(), Runner(), 100.0
        monkeypatch.setattr(articles_reader, "time", self)
        self.reader = Reader(
            cast(Any, self.source), cast(Any, self.desk), cast(Any, self.runner),
            Bounds(**{"articles": 4, "tokens": 1000, "wait_seconds": 0.5, **bounds}),
        )  # fmt: skip

    def monotonic(self) -> float:
        return self.now

    time = staticmethod(time.time)

    def come(self, offset: int, tokens: int = 10) -> None:
        self.desk.backlog.add(version(f"{offset}", offset, tokens=tokens))
        self.desk.backlog.passed(0, offset)
        self.source.end = offset + 1
        self.reader.read()


def test_nothing_is_run_where_nothing_waits_or_the_encoder_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, wait_seconds=0.0)
    assert not world.reader.may_run()
    world.come(0)
    assert world.reader.may_run()
    world.runner.busy = True
    assert not world.reader.may_run()


def test_a_batch_waits_to_fill_and_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.come(0)
    assert not world.reader.may_run()
    world.now += 0.49
    assert not world.reader.may_run()
    world.now += 0.02
    assert world.reader.may_run()


def test_a_batch_with_all_its_articles_or_all_its_tokens_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    for offset in range(3):
        world.come(offset)
        assert not world.reader.may_run()
    world.come(3)
    assert world.reader.may_run()
    world = World(monkeypatch)
    world.come(0, tokens=999)
    assert not world.reader.may_run()
    world.come(1, tokens=1)
    assert world.reader.may_run()


def test_while_there_is_more_to_read_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, wait_seconds=0.0)
    world.come(0)
    world.source.end = 5
    world.reader.read()
    assert not world.reader.may_run()


@pytest.mark.parametrize(
    ("values", "provider", "articles", "seconds"),
    [
        ([], CPU, 64, 0.0), ([], CUDA, 512, 0.005),
        (["encoder_batch_articles=7", "encoder_wait_ms=30"], CPU, 7, 0.03), (["encoder_wait_ms=0"], CUDA, 512, 0.0),
    ],
)  # fmt: skip
def test_bounds_are_those_that_are_set_or_suit_the_provider(
    values: list[str], provider: str, articles: int, seconds: float
) -> None:
    bounds = Bounds.of(load(values, environ={}), cast(Any, Encoder(provider, 321)))
    assert (bounds.articles, bounds.tokens, bounds.wait_seconds) == (articles, 321, seconds)


def test_what_the_settings_say_of_the_token_budget_is_so() -> None:
    from contract.settings import Settings

    described = Settings.model_fields["encoder_batch_tokens"].description or ""
    assert f"unset: {BATCH_TOKENS[CPU]}, on CUDA {BATCH_TOKENS[CUDA]}" in described
