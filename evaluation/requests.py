"""What is asked of a model, and what it learns from afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.articles import Indices

Clicked = NDArray[np.bool_]


class Request(msgspec.Struct, frozen=True, gc=False):
    """A list to be ranked. Articles and users are indices; ``at`` is epoch ms.

    ``candidates`` [n], no two alike, in an order that says nothing; ``history`` what was read before, oldest first: by
    the user, or where ``session`` is not -1 in this session. ``first``: nothing was asked or learned of this user (or
    session) before, so nobody knows the history yet. ``group``: of users, as the data names it, if it does.
    ``positions`` [n]: where the candidates stood in the list that was shown (-1: not told), where there was one.
    ``context``: where it, or the session by its first click, came from: device, region, referrer or the like, by name.
    """

    at: int
    user: int
    session: int
    history: Indices
    candidates: Indices
    first: bool
    group: str = ""
    positions: NDArray[np.int64] | None = None
    context: Mapping[str, str] = {}


class Draw(msgspec.Struct, frozen=True, gc=False):
    """A place of a list that was given by chance: ``request`` has as candidates what could have been drawn.

    ``drawn`` is the place among them of what was, with the probability ``propensity``.
    """

    request: Request
    drawn: int
    propensity: float
    clicked: bool


class Feedback(msgspec.Struct, frozen=True, gc=False):
    """What became of a request, or a click without one: ``clicked`` [n] of what was ``shown`` [n].

    ``elsewhere``: no list showed it.
    """

    request: Request
    shown: Indices
    clicked: Clicked
    elsewhere: bool = False

    @property
    def clicks(self) -> Indices:
        return self.shown[self.clicked]


class Moment(msgspec.Struct, frozen=True, gc=False):
    """All that happened at one time: every request is scored before anything is learned from."""

    at: int
    requests: list[tuple[Request, Clicked]]
    """Each with which of its candidates were clicked."""
    feedback: list[Feedback]
    read: int
    """Lines of the data set that it was made of."""
    draws: list[Draw] = []


class Impression(Protocol):
    """What was shown to a user, as a reader of data sets hands it in; ``at`` is epoch ms."""

    @property
    def impression_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def history(self) -> list[str]: ...
    @property
    def candidates(self) -> list[str]: ...
    @property
    def clicked(self) -> list[bool]: ...


class ShownItem(Protocol):
    """An item of an own list; ``propensity`` is the probability with which it was drawn, None where it was not."""

    @property
    def article_id(self) -> str: ...
    @property
    def position(self) -> int | None: ...
    @property
    def propensity(self) -> float | None: ...


class Shown(Protocol):
    """An impression of an own list, or (``elsewhere``) a click that no list led to; ``at`` is epoch ms."""

    @property
    def user_id(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def items(self) -> Sequence[ShownItem]: ...
    @property
    def clicked(self) -> list[bool]: ...
    @property
    def elsewhere(self) -> bool: ...
    @property
    def context(self) -> Mapping[str, str]: ...


class Click(Protocol):
    """A click in a session; ``at`` is epoch ms."""

    @property
    def user_id(self) -> str: ...
    @property
    def session_id(self) -> str: ...
    @property
    def article_id(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def context(self) -> Mapping[str, str]: ...


class Text(Protocol):
    """What is known of an article."""

    @property
    def article_id(self) -> str: ...
    @property
    def category(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def abstract(self) -> str: ...
