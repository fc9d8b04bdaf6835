"""docs/failure-modes.md names tests, strikes and files; all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.chaos.run import KINDS

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "failure-modes.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/\w+\.py(?:::\w+)+)`", TEXT)))


def names(tree: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_is_named_exists(test: str) -> None:
    file, *path = test.split("::")
    found: ast.stmt | ast.Module = ast.parse((DOCS.parent / file).read_text())
    for name in path:
        assert isinstance(found, ast.Module | ast.ClassDef)
        assert name in names(found), f"{file} has no {name}"
        found = names(found)[name]


def test_every_kill_of_chaos_is_told_of() -> None:
    told = re.findall(r"Strikes? ((?:`[a-z ]+`(?: and )?)+)", TEXT)
    assert set(re.findall("`([a-z ]+)`", " ".join(told))) == set(KINDS)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
