"""The newsroom: story lines told in ever new articles, the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import pytest

from contract.errors import SettingsError
from contract.messages import Article, decode, encode
from producers.newsroom import CATEGORIES, Newsroom, rhythm, storylines, write_corpus
from producers.newsroom.grammar import DEVELOPMENTS

NOW = 1_790_000_000_000
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def month() -> list[tuple[Article, int]]:
    """What one newsroom writes in a month, each article with the hidden id of its story line."""
    return Newsroom(1).archive(3000, NOW, hours=720)


def test_there_are_many_story_lines_in_many_categories() -> None:
    lines = storylines()
    assert len(lines) >= 200
    per_category = Counter(line.category for line in lines)
    assert set(per_category) == set(CATEGORIES)
    assert len(per_category) >= 8
    assert min(per_category.values()) >= 15
    assert len({line.subject for line in lines}) == len(lines)
    names = [person.name for line in lines for person in line.people]
    assert len(set(names)) == len(names), "everybody has a name of their own"


def test_the_same_seed_writes_the_same_articles_and_another_seed_others() -> None:
    first, again, other = (Newsroom(seed).archive(60, NOW) for seed in (7, 7, 8))
    assert first == again
    assert not {article.title for article, _ in first} & {article.title for article, _ in other}
    assert not {article.article_id for article, _ in first} & {article.article_id for article, _ in other}


def test_no_headline_comes_twice(month: list[tuple[Article, int]]) -> None:
    assert len({article.title for article, _ in month}) == len(month)
    assert not [article.title for article, _ in month if article.title.endswith(")")], "none needs a number to differ"


def test_every_line_is_told_in_many_ways(month: list[tuple[Article, int]]) -> None:
    told = Counter(line for _, line in month)
    assert len(told) > 0.9 * len(storylines()), "in a month nearly every line is in the news"
    assert told.most_common(1)[0][1] > 5 * 3000 / len(storylines()), "some are in the news far more than others"
    assert sum(len(forms) for _, forms in DEVELOPMENTS.values()) >= 40


def test_articles_read_like_news(month: list[tuple[Article, int]]) -> None:
    for article, line_id in month:
        line = storylines()[line_id]
        assert decode(Article, encode(article)) == article
        assert article.category == line.category
        assert 15 <= len(article.title) <= 200, article.title
        assert article.title[0].isupper() or not article.title[0].isalpha(), article.title
        text = " ".join((article.title, article.abstract, article.body))
        assert "{" not in text, "every slot is filled"
        for part in (article.abstract, article.body):
            assert not part or part[-1] in '."?!', part
            assert "  " not in part
        assert set(article.entities) <= {line.place, *line.orgs, *(person.name for person in line.people)}
        assert all(entity in text for entity in article.entities), "what is named is in the text"
    lengths = Counter(len(article.abstract.split(". ")) if article.abstract else 0 for article, _ in month)
    assert min(lengths[0], lengths[1], lengths[2]) > 100, "some have no abstract, some a short one"
    assert {bool(article.body) for article, _ in month} == {True, False}


def test_the_hidden_story_line_is_in_no_field(month: list[tuple[Article, int]]) -> None:
    lines_of: dict[str, set[int]] = defaultdict(set)
    for article, line in month:
        fields = msgspec.to_builtins(article)
        assert line not in fields.values()
        labels = [article.article_id, article.url, article.source, article.category, article.language]
        for label in (*labels, *article.tags, *article.authors, *article.entities):
            assert str(line) not in label.split("-"), label
        assert article.attributes == {}
        for label in (article.category, article.source, *article.authors, *article.tags):
            lines_of[label].add(line)
    telling = [label for label, lines in lines_of.items() if len(lines) == 1]
    assert len(telling) < 0.25 * len(lines_of), f"too many labels stand on articles of one line only: {telling}"


def test_an_archive_is_in_order_and_follows_the_day() -> None:
    archive = Newsroom(3).archive(4000, NOW, hours=48)
    times = [article.published_at for article, _ in archive]
    assert times == sorted(times)
    assert NOW - 48 * HOUR_MS <= times[0] <= times[-1] <= NOW
    per_hour = Counter(time // HOUR_MS % 24 for time in times)
    assert per_hour[8] > 2 * per_hour[3], "mornings are busier than nights"


def test_the_day_has_a_rhythm_with_a_mean_of_one() -> None:
    day = [rhythm(minute * 60_000) for minute in range(0, 24 * 60, 5)]
    assert sum(day) / len(day) == pytest.approx(1.0, abs=0.05)
    assert max(day) > 3 * min(day)
    assert rhythm(NOW) == pytest.approx(rhythm(NOW + 24 * HOUR_MS))


def test_a_line_just_written_about_is_followed_up() -> None:
    lines = [line for _, line in Newsroom(5).archive(2000, NOW)]
    soon = sum(line in lines[place + 1 : place + 20] for place, line in enumerate(lines[:-20]))
    chance = sum((count / len(lines)) * 19 * count for count in Counter(lines).values()) / len(lines)
    assert soon / (len(lines) - 20) > 1.5 * chance


def test_a_corpus_is_written_as_lines_of_json(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", 50)
    articles = [decode(Article, line) for line in (tmp_path / "corpus.jsonl").read_bytes().splitlines()]
    assert len(articles) == 50
    with pytest.raises(SettingsError, match="cannot write the corpus"):
        write_corpus(tmp_path / "nowhere" / "corpus.jsonl", 5)
