"""As much of JSON Schema as docs/schemas uses; any other keyword fails the test that meets it."""

from __future__ import annotations

import re
from typing import Any

_SAYS_NOTHING = {"$schema", "$defs", "title", "description", "default"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def complaints(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None, at: str = "$") -> list[str]:
    """Return what is wrong with a decoded JSON value; empty where it is valid."""
    root = schema if root is None else root
    found: list[str] = []

    def also(part: dict[str, Any], inner: Any, where: str = at) -> list[str]:
        return complaints(part, inner, root, where)

    def check(holds: bool, what: str) -> None:
        if not holds:
            found.append(f"{at}: {what}")

    for keyword, wanted in schema.items():
        match keyword:
            case "$ref":
                found += also(root["$defs"][wanted.removeprefix("#/$defs/")], value)
            case "type":
                is_bool = isinstance(value, bool)
                check(isinstance(value, _TYPES[wanted]) and is_bool == (wanted == "boolean"), f"is no {wanted}")
            case "enum":
                check(value in wanted, f"is none of {wanted}")
            case "const":
                check(value == wanted, f"is not {wanted!r}")
            case "anyOf":
                check(any(not also(part, value) for part in wanted), "fits none of anyOf")
            case "allOf":
                found += [complaint for part in wanted for complaint in also(part, value)]
            case "if":
                found += [] if also(wanted, value) else also(schema["then"], value)
            case "then" if "if" in schema:
                pass
            case "properties":
                for name in wanted.keys() & (value.keys() if isinstance(value, dict) else ()):
                    found += also(wanted[name], value[name], f"{at}.{name}")
            case "required":
                for name in wanted if isinstance(value, dict) else ():
                    check(name in value, f"lacks {name}")
            case "additionalProperties":
                for name in value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ():
                    found += also(wanted, value[name], f"{at}.{name}")
            case "items":
                for item in value if isinstance(value, list) else ():
                    found += also(wanted, item, f"{at}[]")
            case "minItems" | "maxItems" if isinstance(value, list):
                check(len(value) >= wanted if keyword == "minItems" else len(value) <= wanted, f"{keyword} {wanted}")
            case "minLength" | "maxLength" if isinstance(value, str):
                check(len(value) >= wanted if keyword == "minLength" else len(value) <= wanted, f"{keyword} {wanted}")
            case "minimum" | "maximum" if isinstance(value, int | float):
                check(value >= wanted if keyword == "minimum" else value <= wanted, f"{keyword} {wanted}")
            case "pattern" if isinstance(value, str):
                check(re.search(wanted, value) is not None, f"does not match {wanted}")
            case "minItems" | "maxItems" | "minLength" | "maxLength" | "minimum" | "maximum" | "pattern":
                pass
            case _:
                assert keyword in _SAYS_NOTHING, f"{at}: a keyword that is not known here: {keyword}"
    return found
