"""Who waits for a ranking and who is next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.ranker_pending import PRIORITY, Pending
from contract.messages import Cause, CauseKind


def a_cause(kind: CauseKind, at: int) -> Cause:
    return Cause(kind=kind, id=f"{kind} {at}", at=at)


def test_withdrawals_come_before_events_and_those_before_publications_and_refreshes() -> None:
    pending = Pending()
    for user_id, kind in (("e", "refresh"), ("d", "start"), ("c", "article"), ("b", "event"), ("a", "withdrawal")):
        pending.add(user_id, a_cause(kind, 1))  # type: ignore[arg-type]
    assert [user_id for user_id, _ in pending.take(9)] == list("abcde")
    assert pending.take(9) == []


def test_who_is_to_be_last_is_whatever_the_kind_of_the_cause() -> None:
    pending = Pending()
    pending.add("ann", a_cause("article", 1), last=True)
    pending.add("bob", a_cause("start", 2))
    assert pending.take(9) == [("bob", a_cause("start", 2)), ("ann", a_cause("article", 1))]


def test_among_equals_who_came_first_is_first() -> None:
    pending = Pending()
    for user_id in ("bob", "ann", "eve", "bob"):
        pending.add(user_id, a_cause("event", 5))
    assert [user_id for user_id, _ in pending.take(2)] == ["bob", "ann"]
    assert [user_id for user_id, _ in pending.take(2)] == ["eve"]


def test_the_oldest_cause_is_kept_whatever_order_they_come_in() -> None:
    pending = Pending()
    pending.add("ann", a_cause("event", 5))
    pending.add("ann", a_cause("article", 3))
    pending.add("ann", a_cause("event", 4))
    assert len(pending) == 1
    assert pending.take(1) == [("ann", a_cause("article", 3))]


def test_a_younger_cause_that_is_more_urgent_hurries_the_older_one() -> None:
    pending = Pending()
    pending.add("ann", a_cause("article", 1))
    pending.add("bob", a_cause("event", 2))
    pending.add("ann", a_cause("withdrawal", 3))
    assert pending.take(1) == [("ann", a_cause("article", 1))]
    assert pending.take(9) == [("bob", a_cause("event", 2))]


def test_who_is_discarded_or_not_wanted_waits_no_longer() -> None:
    pending = Pending()
    for user_id in ("ann", "bob", "eve"):
        pending.add(user_id, a_cause("event", 1))
    pending.discard("bob")
    pending.discard("nobody")
    pending.keep(lambda user_id: user_id != "ann")
    assert "eve" in pending
    assert "ann" not in pending
    assert [user_id for user_id, _ in pending.take(9)] == ["eve"]


asks = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(sorted(PRIORITY)), st.integers(0, 9)) | st.integers(0, 3),
    max_size=40,
)


@given(asks)
def test_everybody_is_taken_once_the_most_urgent_first(asks: list[tuple[str, CauseKind, int] | int]) -> None:
    """Numbers among the asks take so many; a plain dict of all causes is the reference."""
    pending = Pending()
    waiting: dict[str, list[Cause]] = {}
    for ask in asks:
        if isinstance(ask, tuple):
            user_id, kind, at = ask
            pending.add(user_id, a_cause(kind, at))
            waiting.setdefault(user_id, []).append(a_cause(kind, at))
            continue
        urgency = {user_id: min(PRIORITY[cause.kind] for cause in causes) for user_id, causes in waiting.items()}
        taken = pending.take(ask)
        assert [urgency[user_id] for user_id, _ in taken] == sorted(urgency.values())[:ask]
        for user_id, cause in taken:
            assert cause == min(waiting.pop(user_id), key=lambda c: c.at)
    assert len(pending) == len(waiting)


def test_events_without_end_do_not_keep_publications_waiting_forever() -> None:
    pending = Pending()
    for number in range(1000):
        pending.add(f"clicks {number}", a_cause("event", 5))
    for number in range(50):
        pending.add(f"reads {number}", a_cause("article", 5))
    pending.add("refreshed", a_cause("refresh", 1))
    taken = [user_id for user_id, _ in pending.take(100)]
    assert sum(user_id.startswith("reads") for user_id in taken) == 25
    assert sum(user_id.startswith("clicks") for user_id in taken) == 75
    pending.take(100)
    assert "refreshed" in pending
    assert len(pending.take(100)) == 100
    assert not any(f"reads {number}" in pending for number in range(50))


def test_an_editors_change_comes_before_all_events() -> None:
    pending = Pending()
    pending.add("ann", a_cause("event", 1))
    pending.add("bob", a_cause("article", 2), urgent=True)
    assert pending.take(1) == [("bob", a_cause("article", 2))]


def test_who_waits_is_counted_with_how_long_the_first_has() -> None:
    pending = Pending()
    pending.add("ann", a_cause("event", 1000))
    pending.add("bob", a_cause("event", 2000))
    pending.add("eve", a_cause("article", 500))
    waiting = pending.put_off(3000)
    assert waiting["event"] == (2, 2.0)
    assert waiting["article"] == (1, 2.5)
    assert waiting["refresh"] == (0, 0.0)
    pending.take(2)
    assert pending.put_off(3000)["event"][0] == 0
