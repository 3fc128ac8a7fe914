"""Feast feature views: microstructure features from the book, and the signal model's out-of-fold forecasts."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Float32, Int32, String

from feature_repo.entities import instrument
from feature_repo.pipeline.kernels import FEATURE_UNITS
from feature_repo.sources import forecasts_push, microstructure_push

TIME_TO_LIVE = timedelta(seconds=5)
"""Features come every second: one older than this is missing, not current."""

FORECAST_HORIZONS_S = (10, 30, 60)

microstructure = FeatureView(
    name="microstructure",
    entities=[instrument],
    ttl=TIME_TO_LIVE,
    schema=[
        *(Field(name=name, dtype=Float32, description=unit) for name, unit in FEATURE_UNITS.items()),
        Field(name="book_valid", dtype=Int32, description="1: both sides of the book are there and do not cross"),
    ],
    source=microstructure_push,
    online=True,
)

forecasts = FeatureView(
    name="forecasts",
    entities=[instrument],
    ttl=TIME_TO_LIVE,
    schema=[
        *(
            Field(name=f"forecast_{horizon}s_bps", dtype=Float32, description="expected move of the mid, bps")
            for horizon in FORECAST_HORIZONS_S
        ),
        Field(
            name="forecast_missing", dtype=Int32, description="1: no older model, or no whole window; forecasts are 0"
        ),
        Field(name="model_version", dtype=String, description="first digits of the model's sha256"),
    ],
    source=forecasts_push,
    online=True,
)
