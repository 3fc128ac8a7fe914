"""Feast sources: the Parquet files of a materialize stage, relative to the store unless the environment says so."""

import os

from feast import FileSource

FEATURES_PATH = "SHORTFALL_FEATURES_PATH"
FORECASTS_PATH = "SHORTFALL_FORECASTS_PATH"

microstructure_source = FileSource(
    name="microstructure",
    path=os.environ.get(FEATURES_PATH, "microstructure.parquet"),
    timestamp_field="event_timestamp",
)

forecasts_source = FileSource(
    name="forecasts",
    path=os.environ.get(FORECASTS_PATH, "forecasts.parquet"),
    timestamp_field="event_timestamp",
)
