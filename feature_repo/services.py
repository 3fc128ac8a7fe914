"""Feast feature services: versioned sets of features that a model was trained with and is served with.

This is the module that `feast apply` reads, so it names every definition of the repository.
"""

from feast import FeatureService

from feature_repo.entities import instrument
from feature_repo.features import forecasts, microstructure
from feature_repo.sources import forecasts_source, microstructure_source

signal_v1 = FeatureService(name="signal_v1", features=[microstructure], description="Inputs of the signal model")
execution_v1 = FeatureService(
    name="execution_v1", features=[microstructure, forecasts], description="Market inputs of the execution agent"
)

__all__ = [
    "execution_v1",
    "forecasts",
    "forecasts_source",
    "instrument",
    "microstructure",
    "microstructure_source",
    "signal_v1",
]
