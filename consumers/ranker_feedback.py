"""The feedback loop in the ranker: once a second the weights of sources and of exploration follow what is clicked."""

from __future__ import annotations

from prometheus_client import Gauge

from consumers.ranker_lists import RankerLists
from contract.settings import Settings
from ranking.candidates import SOURCES
from ranking.feedback import Feedback

EVERY_MS = 1000
WEIGHT = Gauge("stoppress_feedback_weight", "Log-odds that candidates of a source gain by feedback", ["source"])
EXPLORATION = Gauge("stoppress_feedback_exploration_ratio", "What feedback multiplies the share of exploration by")


class FeedbackLoop:
    """Hands to ``lists`` what ``feedback`` says; does nothing where the setting ``feedback`` is off."""

    def __init__(self, settings: Settings, feedback: Feedback, lists: RankerLists) -> None:
        self._length = settings.list_length
        self._on = settings.feedback
        self._feedback = feedback
        self._lists = lists
        self._due_at = 0

    def turn(self, now_ms: int) -> None:
        if not self._on or now_ms < self._due_at:
            return
        self._due_at = now_ms + EVERY_MS
        adapted = self._feedback.look(self._length, now_ms)
        self._lists.adapt(adapted)
        for source, weight in zip(SOURCES, adapted.sources, strict=True):
            WEIGHT.labels(source).set(weight)
        EXPLORATION.set(adapted.exploration)
