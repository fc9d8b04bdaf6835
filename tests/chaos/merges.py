"""Every merge that was folded has in the log exactly the absorb that hands its user over: none lost, none twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from contract.messages import Carried, Event
from tests.chaos.load import decoded
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Place

Word = tuple[str, str, int, int | None]  # kind, article or target, time, dwell_ms


@dataclass(frozen=True)
class _Merge:
    target: str
    handed: list[Word]
    late: bool


class Merges:
    """The merges that were folded, and the absorbs that the log has.

    ``withdrawable`` articles may be left out of one.
    """

    def __init__(self, withdrawable: Collection[str]) -> None:
        self._withdrawable = withdrawable
        self._merges: dict[Place, _Merge] = {}
        self._absorbs: dict[Place, list[tuple[int, Event]]] = defaultdict(list)

    def merge(self, place: Place, target: str, handed: list[Word], *, late: bool) -> None:
        """Note a folded merge; ``late``: its user read articles that may have come after their events."""
        self._merges[place] = _Merge(target, handed, late)

    def absorb(self, event: Event) -> None:
        """Note an absorb of the log, by its id: ``absorb-PARTITION-OFFSET`` of the merge, ``-N`` for further ones."""
        partition, offset, number = [*event.event_id.removeprefix("absorb-").split("-"), "0"][:3]
        self._absorbs[int(partition), int(offset)].append((int(number), event))

    def compare(self, verdict: Verdict) -> None:
        verdict.merges = len(self._merges)
        verdict.absorbs = sum(map(len, self._absorbs.values()))
        for place in self._absorbs.keys() - self._merges.keys():
            verdict.mismatch(f"absorb {place}", "of no merge that was folded")
        for place, merge in self._merges.items():
            absorbs = sorted(self._absorbs.get(place, []), key=lambda absorb: absorb[0])
            numbers = Counter(number for number, _ in absorbs)
            if twice := sum(count - 1 for count in numbers.values()):
                verdict.duplicated += twice
                verdict.find(f"absorb {place}: written again, {numbers}")
            elif sorted(numbers) != list(range(len(numbers))):
                verdict.lost += 1
                verdict.find(f"absorb {place}: only {sorted(numbers)}")
            elif wrong := [event.user_id for _, event in absorbs if event.user_id != merge.target]:
                verdict.mismatch(f"absorb {place}", f"went to {wrong} where it is {merge.target}")
            else:
                self._compare_handed(place, merge, [_word(c) for _, event in absorbs for c in event.events], verdict)

    def _compare_handed(self, place: Place, merge: _Merge, found: list[Word], verdict: Verdict) -> None:
        if found == merge.handed:
            return
        surely = [word for word in merge.handed if word[1] not in self._withdrawable]
        if surely and not found:
            verdict.lost += 1
            verdict.find(f"absorb {place}: there is none, where {merge.handed} is to be handed over")
            return
        if merge.late:  # what its recents push out depends on when the articles came
            return
        missing, extra = Counter(surely) - Counter(found), Counter(found) - Counter(merge.handed)
        if missing or extra or not self._withdrawable:
            verdict.mismatch(f"absorb {place}", f"{found} where it is {merge.handed}")


def _word(carried: Carried) -> Word:
    event = decoded(bytes(carried.event))
    assert event is not None
    at = min(event.at, carried.timestamp) if carried.timestamp else event.at
    dwell_ms = min(event.dwell_ms or 0, 60_000) if event.kind == "dwell" else None
    return event.kind, event.article_id or event.target, at, dwell_ms


def words(handed: list[Any]) -> list[Word]:
    """What the reference hands over where nothing waits, as it is compared here."""
    return [(kind, name, at, dwell_ms) for kind, name, at, dwell_ms in handed]
