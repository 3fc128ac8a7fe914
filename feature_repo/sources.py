"""Feast sources: the Parquet folders of a materialize stage, relative to the store unless the environment says so.

Each is behind a push source, by which live rows reach the online store without a materialization.
"""

import os

from feast import FileSource, PushSource

FEATURES_PATH = "SHORTFALL_FEATURES_PATH"
FORECASTS_PATH = "SHORTFALL_FORECASTS_PATH"

microstructure_source = FileSource(
    name="microstructure",
    path=os.environ.get(FEATURES_PATH, "microstructure"),
    timestamp_field="event_timestamp",
)
microstructure_push = PushSource(name="microstructure_push", batch_source=microstructure_source)

forecasts_source = FileSource(
    name="forecasts",
    path=os.environ.get(FORECASTS_PATH, "forecasts"),
    timestamp_field="event_timestamp",
)
forecasts_push = PushSource(name="forecasts_push", batch_source=forecasts_source)
