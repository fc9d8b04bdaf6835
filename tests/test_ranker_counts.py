"""What the ranker takes over from the counts of the users worker."""

from __future__ import annotations

import numpy as np
import pytest

from consumers.ranker_counts import HOLDOUT, POPULAR_LIST, RELATED_LIST, GroupCounts, take_co_reads, take_stats, wilson
from contract.records import SOURCE_PREFIX, ArticleStats, CoReads, encode_plain
from encoders.articles import hash64
from ranking.co_reading import CoReading
from ranking.popularity import Popularity
from ranking.regions import RegionalCounts
from tests.ranker_world import HOUR, NOW, Row
from tests.ranking_world import window


def test_articles_and_sources_are_told_apart_and_what_cannot_be_read_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    popularity, groups = Popularity(2, 6 * HOUR), GroupCounts(2, 6 * HOUR)
    take_stats(
        popularity, RegionalCounts(6 * HOUR), groups,
        [
            Row("a", encode_plain(ArticleStats(NOW, 10, 2))),
            Row("a", b"damaged"),
            Row("b", b"damaged"),
            Row(SOURCE_PREFIX + "similar", encode_plain(ArticleStats(NOW, 400, 40))),
            Row(SOURCE_PREFIX + "popular", encode_plain(ArticleStats(NOW, 600, 60))),
            Row(SOURCE_PREFIX + HOLDOUT, encode_plain(ArticleStats(NOW, 100, 4))),
            Row(SOURCE_PREFIX + POPULAR_LIST, encode_plain(ArticleStats(NOW, 0, 0))),
            Row(SOURCE_PREFIX + "newsletter", encode_plain(ArticleStats(NOW, 50, 40))),
            Row(SOURCE_PREFIX + RELATED_LIST, encode_plain(ArticleStats(NOW, 50, 10))),
        ],
    )  # fmt: skip
    assert popularity.counts(["a", "b"], NOW).tolist() == [[10, 0], [2, 0]]
    assert [record.message for record in caplog.records] == ["unreadable_counts"] * 2
    rates = groups.rates(NOW)
    assert rates.keys() == {"personal", HOLDOUT, RELATED_LIST, "other"}
    assert rates["other"][0] == pytest.approx(0.8), "what a client calls its own is no list of ours"
    assert rates[RELATED_LIST][0] == pytest.approx(0.2)
    assert rates["personal"] == pytest.approx(wilson(1000, 100))
    assert rates[HOLDOUT][0] == pytest.approx(0.04)


def test_an_interval_holds_the_rate_and_narrows() -> None:
    assert wilson(100, 4) == pytest.approx((0.04, 0.0157, 0.0984), abs=1e-3)
    for shown in (1.0, 50.0, 1e6):
        for clicked in (0.0, shown / 3, shown, 2 * shown):
            rate, low, high = wilson(shown, clicked)
            assert 0 <= low <= rate <= high <= 1
    assert wilson(1e6, 4e4)[2] - wilson(1e6, 4e4)[1] < 0.001


def test_co_reads_of_all_partitions_are_added_up_and_decay(caplog: pytest.LogCaptureFixture) -> None:
    co_reads = CoReading(HOUR)
    record = CoReads(NOW, window([7, 8]), weights(6.0, 2.0))
    take_co_reads(co_reads, [Row("a", encode_plain(record), 0), Row("a", encode_plain(record), 1), Row("a", b"?", 1)])
    articles, shares = co_reads.after(hash64("a"), NOW)
    assert (articles.tolist(), shares.tolist()) == ([7, 8], pytest.approx([12 / 18, 4 / 18]))
    _, later = co_reads.after(hash64("a"), NOW + HOUR)
    assert later.tolist() == pytest.approx([6 / 10, 2 / 10])
    take_co_reads(co_reads, [Row("a", None, 0), Row("a", None, 1)])
    assert co_reads.after(hash64("a"), NOW)[0].tolist() == []
    assert len(co_reads) == 0
    assert [record.message for record in caplog.records] == ["unreadable_counts"]


def weights(*values: float) -> bytes:
    return np.array(values).tobytes()
