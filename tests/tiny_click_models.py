"""Writes small click models into the folder named; run by the environment that has torch."""

from __future__ import annotations

import sys
from pathlib import Path

from export.clicks.graph import write_click_model
from export.clicks.run import train_clicks
from tests.click_logs import a_log, oldest_first

out = Path(sys.argv[1])
train_clicks(a_log(), out / "planted", digest="planted")
(out / "oldest").mkdir()
write_click_model(oldest_first(), out / "oldest", learned_to=0, metrics={}, experimental="")
