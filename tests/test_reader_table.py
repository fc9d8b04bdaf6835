"""The table of the users whose lists are kept: rows come, go and are used again."""

from __future__ import annotations

import numpy as np

from ranking.reader_table import NEVER, OTHER, SINGLY, ReaderTable
from ranking.readers import NO_PAST, Past

DIMS, LENGTH = 3, 2
PAST = Past(read=b"r" * 8, shown=b"s" * 8, shown_counts=b"\x05", follows=("harbour",))


def a_table(capacity: int = 4) -> ReaderTable:
    return ReaderTable(DIMS, LENGTH, capacity)


def put(table: ReaderTable, user_id: str, partition: int, number: float = 1.0) -> int:
    row = table.add(user_id, partition)
    table.put([row], [PAST], np.full((1, 2, DIMS), number, np.float32), np.array([number / 8], np.float32))
    table.ranked_at[row] = 0
    return row


LIKED = np.array([0, 11, 22], np.uint64), np.array([[9.0, 1.0, 0.0]], np.float32)


def note(table: ReaderTable, rows: list[int], entry: float) -> None:
    count = len(rows)
    above = np.full((count, table.listed.shape[1]), entry + 1, np.float32)
    table.note(
        rows,
        np.ones((count, DIMS), np.float32),
        np.full(count, entry, np.float32),
        above,
        *LIKED,
        np.zeros(count, np.uint64),
        77,
    )


def test_a_user_keeps_the_row() -> None:
    table = a_table()
    row = put(table, "ann", 3)
    assert table.add("ann", 3) == row
    assert table.row("ann") == row
    assert table.row("bob") is None
    assert len(table) == 1
    assert (table.ids[row], table.partition[row]) == ("ann", 3)


def test_a_new_user_enters_no_list_and_is_not_overdue() -> None:
    table = a_table()
    row = table.add("ann", 0)
    assert table.entry[row] == np.inf
    assert table.ranked_at[row] == NEVER
    assert table.overdue(NEVER, 10).tolist() == []


def test_readers_are_what_was_put() -> None:
    table = a_table()
    rows = [put(table, "ann", 0, 1.0), put(table, "bob", 0, 2.0)]
    readers = table.readers(rows[::-1])
    assert readers.queries[:, 0, 0].tolist() == [2.0, 1.0]
    assert readers.confidence.tolist() == [0, 0]
    assert readers.spread.tolist() == [0.25, 0.125]
    assert readers.pasts == [PAST] * 2
    assert table.readers([]).queries.shape == (0, 2, DIMS)


def test_a_dropped_row_is_used_again_and_remembers_nothing() -> None:
    table = a_table()
    row = put(table, "ann", 3)
    note(table, [row], 0.5)
    table.relist([row], np.array([[8, 9]], np.uint64))
    assert table.drop("ann")
    assert not table.drop("ann")
    assert table.holding(np.array([8], np.uint64)).tolist() == []
    assert table.overdue(NEVER, 10).tolist() == []
    assert table.add("bob", 1) == row
    assert table.row("ann") is None
    assert (table.ids[row], table.partition[row], table.ranked_at[row]) == ("bob", 1, NEVER)
    assert table.entry[row] == np.inf
    assert (table.entries[row] == -np.inf).all()
    for values in (table.queries, table.trigger, table.seeds):
        assert not values[row].any()
    assert (table.listed[row] == OTHER).all()
    assert table.readers([row]).pasts == [NO_PAST]
    assert np.isnan(table.readers([row]).spread).all()
    assert table.followers(["harbour"]) == set()
    assert not table.likings([11]).any()


def test_dropping_partitions_leaves_the_others() -> None:
    table = a_table()
    for number in range(9):
        put(table, f"user-{number}", number % 3, float(number))
    table.drop_partitions([0, 2])
    assert [user_id for user_id in (f"user-{n}" for n in range(9)) if table.row(user_id) is not None] == [
        "user-1", "user-4", "user-7",
    ]  # fmt: skip
    table.drop_partitions([0, 2])
    assert len(table) == 3


def test_free_rows_belong_to_no_partition() -> None:
    table = a_table()
    put(table, "ann", 0)
    table.drop("ann")
    put(table, "bob", 1)
    table.drop_partitions([0])
    assert table.row("bob") is not None
    table.drop_partitions([1])
    assert len(table) == 0


def test_the_table_grows_and_keeps_everything() -> None:
    table = a_table(capacity=2)
    rows = [put(table, f"user-{number}", number, float(number)) for number in range(5)]
    note(table, rows, 0.25)
    last = put(table, "last", 5)
    assert table.queries[rows, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert table.partition[rows].tolist() == [0, 1, 2, 3, 4]
    assert table.entry[rows].tolist() == [0.25] * 5
    assert table.entries[rows].tolist() == [[1.25, 1.25]] * 5
    assert table.entry[last] == np.inf
    free = table.partition == -1
    assert free.sum() == len(free) - 6
    assert (table.ranked_at[free] == NEVER).all()


def test_relisting_tells_whose_list_is_another() -> None:
    table = a_table()
    rows = [put(table, user_id, 0) for user_id in ("ann", "bob", "eve")]
    assert table.relist(rows, np.array([[1, 2], [0, 0], [3, 0]], np.uint64)).tolist() == [True] * 3
    table.listed[rows[1]] = OTHER
    again = np.array([[1, 2], [0, 0], [0, 3]], np.uint64)
    assert table.relist(rows, again).tolist() == [False, True, True]
    assert table.listed[rows].tolist() == again.tolist()


def test_lists_are_found_by_the_articles_in_them_and_none_by_the_empty_place() -> None:
    table = a_table()
    rows = [put(table, user_id, 0) for user_id in ("ann", "bob")]
    table.relist(rows, np.array([[1, 2], [3, 0]], np.uint64))
    assert table.holding(np.array([2, 0], np.uint64)).tolist() == [rows[0]]
    assert table.holding(np.array([1, 3], np.uint64)).tolist() == rows
    assert table.holding(np.array([], np.uint64)).tolist() == []
    assert table.holding(np.arange(2, SINGLY + 5, dtype=np.uint64)).tolist() == rows


def test_those_who_follow_are_found_until_they_do_no_longer() -> None:
    table = a_table()
    rows = [put(table, user_id, 0) for user_id in ("ann", "bob")]
    assert table.followers(["quay", "harbour"]) == set(rows)
    table.put(rows[:1], [NO_PAST], np.zeros((1, 2, DIMS), np.float32))
    assert table.followers(["quay", "harbour"]) == {rows[1]}


def test_overdue_are_those_who_waited_longest() -> None:
    table = a_table()
    rows = [put(table, f"user-{number}", 0) for number in range(6)]
    table.ranked_at[rows] = [50, 10, 90, 0, 30, 20]
    assert sorted(table.overdue(60, 3).tolist()) == sorted([rows[3], rows[1], rows[5]])
    assert sorted(table.overdue(60, 100).tolist()) == sorted([rows[0], rows[1], rows[3], rows[4], rows[5]])


def test_what_a_category_is_worth_is_kept_by_user_as_the_table_grows() -> None:
    table = a_table(capacity=2)
    rows = [put(table, user_id, 0) for user_id in ("ann", "bob")]
    note(table, rows[1:], 0.5)
    put(table, "eve", 0)
    assert table.likings([11, 22, 0, 33])[:, :3].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
