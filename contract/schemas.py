"""docs/schemas: JSON Schemas of the messages and an AsyncAPI document of the public topics.

python -m contract.schemas docs/schemas

The schemas are those of the classes, with what :mod:`contract.messages` checks beyond them as far as
JSON Schema can say it. It cannot count bytes, see the record's key, or tell 1.0 from 1.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from contract.messages import (
    ARTICLE_KINDS,
    MAX_ARTICLE_BYTES,
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    MAX_WAITING_EVENT_BYTES,
    Article,
    Event,
    Id,
    List,
)
from contract.settings import load
from contract.topics import Topics, TopicSpec

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MESSAGES = {"article": Article, "event": Event, "list": List}
_ID = msgspec.json.schema(Id)
_TEXT = {"pattern": r"\S"}


def _where(kinds: list[str], needed: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Events of these kinds need this field."""
    return {
        "if": {"properties": {"kind": {"enum": kinds}}, "required": ["kind"]},
        "then": {"properties": {needed: schema}, "required": [needed]},
    }


_BEYOND_THE_CLASSES: dict[str, dict[str, Any]] = {
    "article": {
        "anyOf": [{"properties": {name: _TEXT}, "required": [name]} for name in ("title", "abstract", "body")],
    },
    "event": {
        "properties": {"event_id": {"anyOf": [_ID, {"const": ""}]}},
        "allOf": [
            _where(sorted(ARTICLE_KINDS), "article_id", _ID),
            _where(["dwell"], "dwell_ms", {"type": "integer", "minimum": 0}),
            _where(["impression"], "shown", {"minItems": 1}),
            _where(["follow", "merge", "mute"], "target", _ID),
            _where(["absorb"], "events", {"minItems": 1}),
        ],
    },
    "list": {},
}
_SIZES = {
    "article": f"At most {MAX_ARTICLE_BYTES:,} bytes.",
    "event": f"At most {MAX_EVENT_BYTES:,} bytes, "
    f"and {MAX_WAITING_EVENT_BYTES:,} of {', '.join(sorted(ARTICLE_KINDS))}, which may have to wait.",
    "list": "",
}


def message_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of ``article``, ``event`` or ``list``."""
    message = _MESSAGES[name]
    definitions = msgspec.json.schema(message)["$defs"]
    schema = definitions.pop(message.__name__)
    beyond = _BEYOND_THE_CLASSES[name]
    schema["description"] = f"{schema['description']} {_SIZES[name]}".strip()
    for field, further in beyond.get("properties", {}).items():
        schema["properties"][field] |= further
    schema |= {keyword: value for keyword, value in beyond.items() if keyword != "properties"}
    named = {"$schema": _DRAFT, **schema}
    if definitions:
        named["$defs"] = definitions
    return _plain(named)


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3 document of the topics that others may write or read."""
    settings = load(environ={})
    topics = Topics(settings)
    names = {
        topics.articles: "articles",
        topics.user_events: "user-events",
        topics.recommendations: "recommendations",
        topics.dead_letters: "dead-letters",
    }
    channels = {names[spec.name]: _channel(names[spec.name], spec) for spec in topics.public()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stoppress",
            "version": version("stoppress"),
            "description": "Articles and events in, fresh recommendation lists out. Topic names begin with the setting "
            f"`namespace` ({settings.namespace!r} here). Keys hash by Kafka's murmur2, the Java client's default "
            "(librdkafka: partitioner=murmur2_random). Times are epoch milliseconds, UTC. Unknown fields are ignored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "description": why}
            for name, action, channel, why in (
                ("embed", "receive", "articles", "The articles worker embeds what is published or changed."),
                ("fold", "receive", "user-events", "The users worker folds every event into its user's state, once."),
                ("recommend", "send", "recommendations", "The ranker publishes a list where it changed."),
                ("bury", "send", "dead-letters", "Every worker keeps what it could not use."),
            )
        },
        "components": {"messages": _components()},
    }


def _channel(name: str, spec: TopicSpec) -> dict[str, Any]:
    descriptions = {
        "articles": "What is published, corrected and withdrawn. Anybody may write.",
        "user-events": "What users do. Anybody may write; a user's events lie in the partition of their key.",
        "recommendations": "The newest list of each user, and under `~popular`, `~popular/CATEGORY` and "
        "`~related/ARTICLE` those that are nobody's. Read it read_committed.",
        "dead-letters": "What could not be used, key and value as they came. Read it read_committed.",
    }
    messages = {
        "articles": ("article", "withdrawal"),
        "user-events": ("event",),
        "recommendations": ("list", "noList"),
        "dead-letters": ("deadLetter",),
    }
    of_interest = ("retention.ms", "max.message.bytes", "message.timestamp.type")
    configuration = {"cleanup.policy": spec.config["cleanup.policy"].split(",")} | {
        setting: int(value) if value.isdecimal() else value
        for setting, value in spec.config.items()
        if setting in of_interest
    }
    return {
        "address": spec.name,
        "description": descriptions[name],
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages[name]},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _components() -> dict[str, Any]:
    identifier = _plain(_ID)
    any_key = {"type": "string", "minLength": 1, "description": f"A user's id, at most {MAX_ID_BYTES} bytes, or `~…`."}
    number = {"type": "string", "pattern": "^[0-9]+$"}
    headers = {
        "topic": {"type": "string", "description": "Where it came from."},
        "partition": number,
        "offset": number,
        "worker": {"type": "string", "description": "Who could not use it."},
        "reason": {"type": "string", "description": "A stable code, which `dead-letters requeue` takes."},
        "detail": {"type": "string", "description": "What was wrong, and what to do about it."},
        "cut-from": number | {"description": "Bytes of key and value of a record too large to be kept whole."},
    }
    return {
        "article": _message("An article, published or changed", {"$ref": "./article.json"}, identifier),
        "withdrawal": _message("The article is withdrawn", {"type": "null"}, identifier),
        "event": _message("Something a user did", {"$ref": "./event.json"}, identifier),
        "list": _message("A user's recommendations", {"$ref": "./list.json"}, any_key),
        "noList": _message("The user is forgotten", {"type": "null"}, any_key),
        "deadLetter": {
            "title": "The original value",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "properties": headers,
                "required": [name for name in headers if name != "cut-from"],
            },
            "bindings": {
                "kafka": {
                    "key": {"description": "The original key; none where there was none."},
                    "bindingVersion": "0.5.0",
                }
            },
        },
    }


def _message(title: str, payload: dict[str, Any], key: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
    }


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Docstrings mark code with two backticks, Markdown with one."""
    plain: dict[str, Any] = json.loads(json.dumps(schema).replace("``", "`"))
    return plain


def files() -> dict[str, str]:
    """Return the content of each file by its name."""
    documents = {name: message_schema(name) for name in _MESSAGES} | {"asyncapi": asyncapi()}
    return {f"{name}.json": json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_text(content)
