"""The models that are judged, one contract for all (:mod:`evaluation.models.contract`)."""
