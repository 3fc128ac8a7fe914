"""Environment of Prefect and of the libraries that flows use, for a laptop: local, quiet, nothing sent out."""

from pathlib import Path

PREFECT_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a cold start on a loaded two-core machine took 40 s
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "2",  # a night of ten deployments waits that long for the worker each time
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "OMP_NUM_THREADS": "1",
}
"""Set where the user's environment does not say otherwise."""


def prefect_home() -> Path:
    """Folder of the embedded Prefect database: in the lake, so that one lake keeps its own run history."""
    from flows.settings import settings

    return settings().lake.absolute() / ".prefect"
