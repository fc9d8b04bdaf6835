"""docs/settings.md says what the settings are."""

from __future__ import annotations

from pathlib import Path

from contract.settings import Settings
from contract.settings_page import settings_page

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_settings_say() -> None:
    wanted = "run `python -m contract.settings_page docs/settings.md`"
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page(), wanted


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
