"""Whatever articles and users are like: a list that keeps the rules, or an empty one that says why; never an end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.article_view import vector_of
from contract.errors import UnreadableState
from contract.messages import LAST_TIME, POPULAR
from contract.records import ArticleMeta, ArticleRecord, encode_article
from tests.ranker_world import DIMS, EAST, HOUR, NORTH, NOW, NOWHERE, Row, World, clicked, ids

NAMES = [f"article-{number}" for number in range(6)]
TIMES = (0, 1, NOW - HOUR, NOW, NOW + 1, LAST_TIME)
articles = st.fixed_dictionaries(
    {
        "vector": st.sampled_from((NORTH, EAST, NOWHERE, (0.5, 0.5, 0.5, 0.5))),
        "published_at": st.sampled_from((NOW - HOUR, *TIMES)),
        "expires_at": st.sampled_from((0, 0, *TIMES)),
        "category": st.sampled_from(("", "sport", "x" * 256)),
        "source": st.sampled_from(("", "desk")),
        "language": st.sampled_from(("", "-", "en", "EN_gb", "fr")),
        "entities": st.sampled_from(([], [""], ["sport"])),
        "placement": st.sampled_from(("auto", "auto", "pinned", "boosted", "held")),
    }
)
users = st.fixed_dictionaries(
    {
        "interest": st.sampled_from((NORTH, EAST, NOWHERE)),
        "read": st.lists(st.sampled_from([*NAMES, "long gone"]), unique=True),
        "recents": st.lists(st.sampled_from([*NAMES, "long gone"])),
        "shown": st.dictionaries(st.sampled_from(NAMES), st.sampled_from((1, 255))),
        "follows": st.sampled_from(((), ("sport",))),
        "mutes": st.sampled_from(((), ("sport", "desk"), ("",))),
        "region": st.sampled_from(("", "HERE", "NOWHERE")),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    published=st.lists(articles, max_size=len(NAMES)),
    readers=st.lists(users, min_size=1, max_size=3),
    values=st.sampled_from(({}, {"category_share": 0.3, "exploration": 0.5}, {"duplicate_cosine": 0.9, "holdout": 1})),
)
def test_every_list_is_valid_or_empty_with_its_reason(
    published: list[dict[str, Any]], readers: list[dict[str, Any]], values: dict[str, object]
) -> None:
    world = World((0, 1), list_length=4, language_reads=1, category_lists=2, related_length=2, **values)
    for name in NAMES:
        world.counted(
            name, 9, 2, regions={"HERE": (np.nan, 1), "THERE": (-5, 1e300), "NOWHERE": (np.inf, -1), "": (1, 1)}
        )
    world.take_articles(*(world.article(name, **one) for name, one in zip(NAMES, published, strict=False)))
    for number, reader in enumerate(readers):
        world.user(f"user-{number}", cause=clicked(), **reader)
    found = {p.user_id: p.result for p in world.rank()}
    listed = {
        name for name, one in zip(NAMES, published, strict=False)
        if NOW - 30 * 24 * HOUR < one["published_at"] <= NOW
        and (one["expires_at"] == 0 or one["expires_at"] > NOW) and one["placement"] != "held"
    }  # fmt: skip
    assert {f"user-{number}" for number in range(len(readers))} <= found.keys()
    for user_id, shown in found.items():
        assert shown is not None
        assert len(set(ids(shown))) == len(shown.items) <= 4
        assert set(ids(shown)) <= listed
        assert shown.empty == ("" if shown.items else "nothing_left" if listed else "no_articles")
        assert all(np.isfinite(item.score) for item in shown.items)
        if user_id.startswith("user-"):
            assert set(readers[int(user_id[-1])]["read"]).isdisjoint(ids(shown))
    assert (POPULAR in found) == bool(listed)


@pytest.mark.parametrize(
    "vector", [[1, 0, np.nan, 0], [np.inf, 0, 0, 0], [1, 0, 0], []], ids=["no number", "infinite", "short", "none"]
)
def test_a_vector_that_cannot_be_used_is_refused(vector: list[float]) -> None:
    value = encode_article(ArticleRecord(np.array(vector, np.float32), NOW, 0, NOW, ArticleMeta()))
    with pytest.raises(UnreadableState, match=r"finite|numbers"):
        vector_of(Row("a", value), DIMS)
