"""docs/settings.md, generated from :class:`contract.settings.Settings`.

python -m contract.settings_page docs/settings.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from contract.settings import PREFIX, Settings

_HEAD = """# Settings

Each can be given in a TOML file (`--config FILE` or `STOPPRESS_CONFIG`), as a variable of the environment, or as
`--set name=value`; the later of these wins. An unknown name or a wrong value ends the start with exit code 2 and
one line.

| setting | variable | default | |
|---|---|---|---|
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default.as_posix() if isinstance(field.default, Path) else field.default
        shown = "" if default in (None, "", {}, []) else f"`{default}`"
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        allowed = [*_bounds(field.metadata), *(["one of " + ", ".join(map(str, choices))] if choices else [])]
        description = "; ".join([field.description or "", *allowed])
        rows.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {shown} | {description} |\n")
    return _HEAD + "".join(rows)


def _bounds(metadata: list[Any]) -> list[str]:
    bounds = []
    for limit in metadata:
        for sign, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most")):
            value = getattr(limit, sign, None)
            if value is not None:
                bounds.append(f"{words} {value}")
    return bounds


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(settings_page())
