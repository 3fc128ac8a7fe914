"""One Prefect server and worker for all end-to-end tests, and one finished tiny night."""

import json
import os
from collections.abc import Iterator

import pytest
from night import TINY, Night, Shell, content, free_port


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator["object"]:
    """The platform of `make up`: server, worker and deployments on a free port, over a lake of its own."""
    patch = pytest.MonkeyPatch()
    lake = tmp_path_factory.mktemp("up")
    patch.setenv("SHORTFALL_LAKE", str(lake))
    patch.setenv("SHORTFALL_TIMEZONE", "America/New_York")
    from flows.settings import settings
    from flows.up import platform

    settings.cache_clear()
    with platform(free_port()) as started:
        yield started
    patch.undo()
    settings.cache_clear()


@pytest.fixture(scope="session")
def shell(running) -> Shell:
    return Shell({**os.environ, **running.environment})


@pytest.fixture(scope="session")
def tiny_night(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """An unbroken nightly run on a tiny synthetic market."""
    lake = tmp_path_factory.mktemp("night")
    done = shell.run(lake, *TINY, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    return Night(lake, json.loads(done.stdout), content(lake))
