"""Fixtures that every test may use: the real data where it lies, and one Spark session a run."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
logging.getLogger("py4j").setLevel(logging.WARNING)  # it logs from threads that outlive the streams pytest captures

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real market data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SHORTFALL_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data at {folder}: set SHORTFALL_TEST_DATA to the folder with lean/ and shfe/")
    return folder


@pytest.fixture(scope="session")
def spark() -> Iterator["object"]:
    """The one Spark session of the test run."""
    from feature_repo.pipeline.spark import spark_session

    session = spark_session(cores=2, driver_memory="1g")
    yield session
    session.stop()
