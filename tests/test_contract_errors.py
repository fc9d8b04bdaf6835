"""The exception tree: few, told apart by what is to be done, each with its exit code."""

from __future__ import annotations

import pytest

from contract import errors
from contract.errors import BadRecord, SetupError, StoppressError


def all_errors(above: type[StoppressError] = StoppressError) -> list[type[StoppressError]]:
    below = [error for error in above.__subclasses__() if error.__module__ == errors.__name__]
    return [above, *(error for one in below for error in all_errors(one))]


def test_the_tree_in_the_page_is_the_tree() -> None:
    """Its first column of lines, in the order in which the classes were written."""
    drawn = [line.lstrip(" │├└─").split()[0] for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    assert drawn == [error.__name__ for error in all_errors()]


@pytest.mark.parametrize("error", all_errors())
def test_what_a_start_needs_ends_with_2_and_all_else_with_1(error: type[StoppressError]) -> None:
    assert error.exit_code == (2 if issubclass(error, SetupError) else 1)
    assert error.__doc__


def test_a_bad_record_tells_its_reason_and_what_to_do() -> None:
    error = BadRecord("bad_id", "article_id is empty; an id has 1 to 256 bytes")
    assert (error.reason, error.detail) == ("bad_id", "article_id is empty; an id has 1 to 256 bytes")
    assert str(error) == "bad_id: article_id is empty; an id has 1 to 256 bytes"
