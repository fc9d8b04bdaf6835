"""docs/schemas says what the classes say, and what they say is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from contract.messages import Article, Event, List, encode
from contract.schemas import asyncapi, files, message_schema
from contract.settings import load
from contract.topics import Topics
from tests.contract_strategies import articles, events, lists
from tests.json_schema import complaints
from tests.test_contract_messages import ABSORB, ARTICLE, BAD_ARTICLES, BAD_EVENTS, CLICK, FOLLOW, IMPRESSION, as_bytes

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
SCHEMAS = {name: message_schema(name) for name in ("article", "event", "list")}
# What JSON Schema cannot see: bytes that are not JSON or not UTF-8, the key, and how many bytes there are.
BEYOND_SCHEMAS = {"null_value", "not_json", "invalid_utf8", "key_mismatch", "too_large"}


def test_the_files_are_what_the_classes_say() -> None:
    wanted = "run `python -m contract.schemas docs/schemas`"
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == files(), wanted


@given(articles())
def test_every_article_is_valid(article: Article) -> None:
    assert complaints(SCHEMAS["article"], json.loads(encode(article))) == []


@given(events())
def test_every_event_is_valid(event: Event) -> None:
    assert complaints(SCHEMAS["event"], json.loads(encode(event))) == []


@given(lists)
def test_every_list_is_valid(published: List) -> None:
    assert complaints(SCHEMAS["list"], json.loads(encode(published))) == []


def test_unknown_fields_are_valid() -> None:
    assert complaints(SCHEMAS["event"], IMPRESSION | {"colour": ["red"]}) == []
    assert complaints(SCHEMAS["article"], ARTICLE | {"colour": ["red"]}) == []


def decoded(bad: dict[str, tuple[str, bytes | None, object, str]], *unseen: str) -> dict[str, object]:
    """The bad values of which a schema sees everything that is bad about them."""
    return {
        name: json.loads(as_bytes(value) or b"")
        for name, (reason, _, value, _) in bad.items()
        if reason not in BEYOND_SCHEMAS and name not in unseen
    }


EVENTS = decoded(
    BAD_EVENTS,
    "a user too long in bytes",
    "a time of 5,000 digits",
    "a number out of range",
    "deep nesting",
    "a merge into oneself",
    "an absorb of an impression",
    "an absorb of an absorb",
    "an absorb of a bad click",
)
ARTICLES = decoded(BAD_ARTICLES, "a withdrawal of no id")


@pytest.mark.parametrize("name", EVENTS)
def test_a_bad_event_is_not_valid(name: str) -> None:
    assert complaints(SCHEMAS["event"], EVENTS[name]) != []


@pytest.mark.parametrize("name", ARTICLES)
def test_a_bad_article_is_not_valid(name: str) -> None:
    assert complaints(SCHEMAS["article"], ARTICLES[name]) != []


def test_a_good_event_is_not_called_bad_for_another_kind_s_sake() -> None:
    assert complaints(SCHEMAS["event"], CLICK | {"shown": []}) == []
    for good in (FOLLOW, ABSORB, {"user_id": "u", "kind": "forget", "at": 1}):
        assert complaints(SCHEMAS["event"], good) == []


def test_the_document_tells_the_public_topics_as_they_are_created() -> None:
    told = {channel["address"]: channel["bindings"]["kafka"] for channel in asyncapi()["channels"].values()}
    topics = Topics(load(environ={}))
    assert told.keys() == {topics.articles, topics.user_events, topics.recommendations, topics.dead_letters}
    for spec in topics.public():
        kafka = told[spec.name]
        assert (kafka["topic"], kafka["partitions"]) == (spec.name, spec.partitions)
        assert ",".join(kafka["topicConfiguration"]["cleanup.policy"]) == spec.config["cleanup.policy"]
        for name, value in kafka["topicConfiguration"].items():
            assert name == "cleanup.policy" or str(value) == spec.config[name]


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = asyncapi()
    references = list(references_in(document))
    assert "./event.json" in references
    for reference in references:
        found: Any = document if reference.startswith("#/") else None
        for step in reference.removeprefix("#/").split("/") if found else ():
            found = found[step]
        assert found or (FOLDER / reference).is_file()


def references_in(part: Any) -> list[str]:
    if isinstance(part, list):
        return [reference for inner in part for reference in references_in(inner)]
    if isinstance(part, dict):
        return [part["$ref"]] if "$ref" in part else references_in(list(part.values()))
    return []
