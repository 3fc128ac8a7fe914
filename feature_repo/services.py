"""Feast feature services: versioned sets of features that a model was trained with and is served with.

This is the module that `feast apply` reads, so it names every definition of the repository.
"""

from feast import FeatureService

from feature_repo.entities import instrument
from feature_repo.features import forecasts, microstructure
from feature_repo.pipeline.kernels import SIGNAL_V1
from feature_repo.sources import forecasts_push, forecasts_source, microstructure_push, microstructure_source

_V1 = [*SIGNAL_V1, "book_valid"]  # names: a projected view at module level would be a second view to `feast apply`

signal_v1 = FeatureService(
    name="signal_v1",
    features=[microstructure[_V1]],
    description="Inputs of the first signal models: SIGNAL_V1",
)
execution_v1 = FeatureService(
    name="execution_v1", features=[microstructure[_V1], forecasts], description="Market inputs of the execution agent"
)
signal_v2 = FeatureService(name="signal_v2", features=[microstructure], description="Every microstructure feature")

__all__ = [
    "execution_v1",
    "forecasts",
    "forecasts_push",
    "forecasts_source",
    "instrument",
    "microstructure",
    "microstructure_push",
    "microstructure_source",
    "signal_v1",
    "signal_v2",
]
