"""Writes click models that go by age, ``older`` and ``newer``, into the folder named; run where there is torch."""

from __future__ import annotations

import sys
from pathlib import Path

from export.clicks.graph import write_click_model
from tests.click_logs import NEWER_LIKED, OLDER_LIKED, by_age

for name, line in (("older", OLDER_LIKED), ("newer", NEWER_LIKED)):
    folder = Path(sys.argv[1]) / name
    folder.mkdir(parents=True)
    write_click_model(by_age(*line), folder, learned_to=0, metrics={}, experimental="")
