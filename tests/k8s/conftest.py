"""A fake API server for each test, and a client of it."""

from collections.abc import Iterator
from functools import cache

import kubernetes_validate.utils
import pytest
from fake_api import FakeApi, fake_api

# it parses 3 MB of definitions for each object that it looks at; they do not change
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


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
