"""What the settings say that a ranking goes by, the trained click model included."""

from __future__ import annotations

from pathlib import Path

from contract.settings import Settings
from encoders.onnx_clicks import OnnxClicks
from ranking.features import Weights
from ranking.ranking import Formula
from ranking.reranker import FEATURES, VERSION
from ranking.rules import Rules


def formula_of(settings: Settings) -> Formula:
    """Read the click model, where there is one to be used.

    Raises :class:`contract.errors.ClickModelUnusable` where it cannot be.
    """
    model = OnnxClicks.load(Path(settings.ranker_model), FEATURES, VERSION) if settings.ranker_model else None
    return Formula(Weights(boost=settings.boost), Rules.of(settings), model=model)
