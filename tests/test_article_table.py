"""The articles that have a vector, as rows of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from contract.messages import Placement
from contract.records import ArticleMeta, ArticleRecord
from encoders import articles
from encoders.articles import ArticleTable, hash64

DIMS = 2


def a_record(
    x: float = 1.0, published_at: int = 10, expires_at: int = 0, placement: Placement = "auto"
) -> ArticleRecord:
    vector = np.array([x, 0], np.float32)
    return ArticleRecord(vector, published_at, expires_at, 20, ArticleMeta(category="sport", placement=placement))


def test_an_article_is_found_with_all_that_is_known_of_it() -> None:
    table = ArticleTable(DIMS)
    row = table.put("a", a_record(0.5, expires_at=30))
    assert table.row("a") == row
    assert table.row("b") is None
    assert len(table) == 1
    assert (table.ids[row], table.meta[row].category, table.hashes[row]) == ("a", "sport", hash64("a"))
    assert (table.published_at[row], table.expires_at[row], table.cause_at[row]) == (10, 30, 20)
    assert (table.listed[row], table.held[row]) == (True, False)
    assert table.vectors[row].tolist() == [0.5, 0]


def test_a_new_version_takes_the_row_of_the_old() -> None:
    table = ArticleTable(DIMS)
    row = table.put("a", a_record(1, placement="held"))
    assert table.held[row]
    assert table.put("a", a_record(2, published_at=11)) == row
    assert (table.vectors[row, 0], table.published_at[row], table.held[row]) == (2, 11, False)
    assert len(table) == 1


def test_a_withdrawn_article_leaves_nothing_and_its_row_is_used_again() -> None:
    table = ArticleTable(DIMS)
    row = table.put("a", a_record(1, expires_at=30, placement="held"))
    assert table.withdraw("a") == row
    assert table.withdraw("a") is None
    assert table.is_gone("a")
    assert table.row("a") is None
    for values in (table.vectors, table.hashes, table.published_at, table.expires_at, table.listed, table.held):
        assert not values[row].any()
    assert table.put("b", a_record(2)) == row
    assert (table.ids[row], table.expires_at[row], table.held[row]) == ("b", 0, False)
    assert not table.is_gone("b")


def test_what_is_published_again_is_not_gone_any_more() -> None:
    table = ArticleTable(DIMS)
    assert table.withdraw("never seen") is None
    assert table.is_gone("never seen")
    table.put("never seen", a_record())
    assert not table.is_gone("never seen")


def test_only_the_last_withdrawn_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(articles, "REMEMBERED_GONE", 3)
    table = ArticleTable(DIMS)
    for article_id in ("a", "b", "c", "a", "d"):
        table.withdraw(article_id)
    assert [article_id for article_id in "abcd" if table.is_gone(article_id)] == ["a", "c", "d"]


def test_the_table_grows_and_keeps_everything() -> None:
    table = ArticleTable(DIMS, capacity=2)
    rows = [table.put(f"a{number}", a_record(number, published_at=number)) for number in range(5)]
    assert rows == [0, 1, 2, 3, 4]
    assert table.vectors[rows, 0].tolist() == [0, 1, 2, 3, 4]
    assert table.published_at[rows].tolist() == [0, 1, 2, 3, 4]
    assert table.listed.sum() == 5


def test_hashes_are_those_of_every_process() -> None:
    """They stand in stored states, so they may never change."""
    assert hash64("article-1") == 0x5AB274B6A97FD09E
    assert hash64("") != hash64(" ")
    assert 0 <= hash64("\ud800") < 2**64
