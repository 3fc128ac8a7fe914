"""Connects to the cluster that this process is in or is pointed at, and tries again what may pass."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from feature_repo.errors import InputError, ShortfallError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

PASSING = (429, 500, 502, 503, 504)
"""Answers of an API server that is busy, restarting or behind a balancer that moves."""

Answer = TypeVar("Answer")


class KubeError(ShortfallError):
    """The API server refused, or did not answer."""


def connect(context: str | None = None) -> "ApiClient":
    """A client of the API server: by the pod's own account in a pod, else by the kubeconfig (its `context`).

    Raises InputError where there is neither, or no such context.
    """
    try:
        from kubernetes import config
    except ImportError as error:
        raise InputError("the package kubernetes is not installed: pip install 'shortfall[k8s]'") from error
    from kubernetes.client import ApiClient

    if context is None:
        try:
            config.load_incluster_config()
            return ApiClient()
        except config.ConfigException:
            pass
    try:
        return config.new_client_from_config(os.environ.get("KUBECONFIG"), context)
    except config.ConfigException as error:
        raise InputError(
            f"no cluster: {error}; set KUBECONFIG or `kubectl config use-context`, or run where a pod's account is"
        ) from error


def persistently(what: str, call: Callable[[], Answer], *, tries: int = 5, pause_s: float = 1.0) -> Answer:
    """The answer of a call, tried again where the server is busy or away; `what` names it in errors.

    Raises KubeError with the server's own reason; its `__cause__` is the ApiException, where there was an answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    for turn in range(1, tries + 1):
        try:
            return call()
        except ApiException as error:
            if error.status not in PASSING or turn == tries:
                raise KubeError(f"{what}: {error.status} {reason_of(error)}") from error
        except (HTTPError, OSError) as error:
            if turn == tries:
                raise KubeError(f"{what}: the API server does not answer ({error})") from error
        time.sleep(pause_s * turn)
    raise AssertionError("unreachable")


def status_of(error: KubeError) -> int | None:
    """HTTP status behind an error; None where there was no answer."""
    return getattr(error.__cause__, "status", None)


def absent_is_none(what: str, call: Callable[[], Answer]) -> Answer | None:
    """As `persistently`; None where the server says that there is no such object."""
    try:
        return persistently(what, call)
    except KubeError as error:
        if status_of(error) == 404:
            return None
        raise


def reason_of(error: Any) -> str:
    """What the server said, in one line."""
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)
