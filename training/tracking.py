"""Where training logs its metrics: an MLflow run, or nothing. No network, and no look at git or the environment.

`MlflowClient` is used directly: the fluent API keeps a global active run and stamps it with the user, the source file
and the git commit, none of which belongs to a training's result.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from feature_repo.errors import InputError


class Tracker(Protocol):
    """What training calls to log metrics."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log `metrics` at `step`; values that are not finite are left out."""


class _Silent:
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log nothing."""


SILENT: Tracker = _Silent()
"""Logs nothing."""


class _MlflowRun:
    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log `metrics` at `step`; values that are not finite are left out."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(name, float(value), now, step) for name, value in metrics.items() if math.isfinite(value)]
        if rows:
            self._client.log_batch(self.run_id, metrics=rows)


@contextlib.contextmanager
def tracking_run(
    tracking_uri: str | None, experiment: str, run_name: str, params: Mapping[str, object] | None = None
) -> Iterator[Tracker]:
    """An MLflow run that ends FINISHED, or FAILED where the block raises; with `tracking_uri` None nothing is logged.

    `params` are logged once, as text. Raises InputError where the tracking store cannot be opened.
    """
    if tracking_uri is None:
        yield SILENT
        return
    client, run_id = _start(tracking_uri, experiment, run_name, params or {})
    try:
        yield _MlflowRun(client, run_id)
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _start(tracking_uri: str, experiment: str, run_name: str, params: Mapping[str, object]) -> tuple[Any, str]:
    from mlflow import MlflowClient
    from mlflow.entities import LifecycleStage, Param
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for noisy in ("alembic", "mlflow.store.db.utils"):  # dozens of migration lines for a new SQLite file
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            experiment_id = _create_experiment(client, experiment)
        else:
            experiment_id = found.experiment_id
            if found.lifecycle_stage == LifecycleStage.DELETED:
                client.restore_experiment(experiment_id)
        run_id = client.create_run(experiment_id, run_name=run_name).info.run_id
        rows = [Param(name, str(value)) for name, value in params.items()]
        for first in range(0, len(rows), 100):  # MLflow takes at most 100 parameters a call
            client.log_batch(run_id, params=rows[first : first + 100])
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot log to MLflow at {tracking_uri}: {reason}; correct the tracking URI") from error
    return client, run_id


def _create_experiment(client: Any, experiment: str) -> str:
    """Create `experiment`, or take the one that another process has created in the meantime."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(experiment))
    except MlflowException:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return str(found.experiment_id)
