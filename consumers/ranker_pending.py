"""Who waits for a ranking, why, and who is next."""

from __future__ import annotations

from collections.abc import Callable

from contract.messages import Cause

PUBLICATIONS_SHARE = 4
PRIORITY = {"withdrawal": 0, "event": 1, "article": 2, "start": 3, "refresh": 4}


class Pending:
    """Users by urgency: withdrawals and editors first, then events, then publications; within each, who came first.

    A user waits once, with the oldest of the causes and in the most urgent of the places that they ask for. However
    many events there are, a quarter of what is left after the most urgent goes to publications, so that these do not
    wait forever; whoever is only to be refreshed waits for everybody else.
    """

    def __init__(self) -> None:
        self._causes: dict[str, Cause] = {}
        self._priority: dict[str, int] = {}
        self._queues: list[dict[str, None]] = [{} for _ in range(max(PRIORITY.values()) + 1)]

    def __len__(self) -> int:
        return len(self._causes)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._causes

    def add(self, user_id: str, cause: Cause, *, urgent: bool = False, last: bool = False) -> None:
        """Let a user wait because of ``cause``; ``urgent``, before all events, or ``last``, whatever its kind."""
        priority = 0 if urgent else PRIORITY["refresh" if last else cause.kind]
        before = self._causes.get(user_id)
        if before is None or cause.at < before.at:
            self._causes[user_id] = cause
        if before is None or priority < self._priority[user_id]:
            self._leave(user_id)
            self._priority[user_id] = priority
            self._queues[priority][user_id] = None

    def discard(self, user_id: str) -> None:
        """Let nobody by that name wait."""
        if self._causes.pop(user_id, None) is not None:
            self._leave(user_id)
            del self._priority[user_id]

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Let those go who are not ``wanted``."""
        for user_id in [user_id for user_id in self._causes if not wanted(user_id)]:
            self.discard(user_id)

    def take(self, limit: int) -> list[tuple[str, Cause]]:
        """Return up to ``limit`` who are next, each with its cause; they wait no longer."""
        urgent, events, publications, *others = self._queues
        taken = self._taken(urgent, limit)
        rest = limit - len(taken)
        kept_free = min(len(publications), rest // PUBLICATIONS_SHARE)
        taken += self._taken(events, rest - kept_free)
        for queue in (publications, *others):
            taken += self._taken(queue, limit - len(taken))
        return taken

    def put_off(self, now_ms: int) -> dict[str, tuple[int, float]]:
        """Return by kind of cause how many wait, and for how many seconds who came first has."""
        waiting = {}
        for kind, queue in zip(("urgent", "event", "article", "start", "refresh"), self._queues, strict=True):
            first = next(iter(queue), None)
            since = now_ms if first is None else min(now_ms, self._causes[first].at)
            waiting[kind] = len(queue), (now_ms - since) / 1000
        return waiting

    def _taken(self, queue: dict[str, None], limit: int) -> list[tuple[str, Cause]]:
        taken: list[tuple[str, Cause]] = []
        while queue and len(taken) < limit:
            user_id = next(iter(queue))
            taken.append((user_id, self._causes[user_id]))
            self.discard(user_id)
        return taken

    def _leave(self, user_id: str) -> None:
        priority = self._priority.get(user_id)
        if priority is not None:
            self._queues[priority].pop(user_id, None)
