"""What the settings say that a ranking goes by, the trained click model included."""

from __future__ import annotations

from consumers.click_models import serving_of
from contract.settings import Settings
from ranking.features import Weights
from ranking.ranking import Formula
from ranking.rules import Rules


def formula_of(settings: Settings) -> Formula:
    """Read the click model, where there is one to be used; raises as :func:`consumers.click_models.serving_of`."""
    return Formula(Weights(boost=settings.boost), Rules.of(settings), model=serving_of(settings).model)
