"""A fake API server for each test, and a client of it."""

from collections.abc import Iterator

import pytest
from fake_api import FakeApi, fake_api


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


@pytest.fixture
def client(api: FakeApi) -> Iterator[object]:
    """A client of the `kubernetes` package."""
    from kubernetes import config

    with config.new_client_from_config_dict(api.kubeconfig()) as made:
        yield made
