"""Where stages run: as subflows in this process, or each as its own deployment; and this process's Spark session."""

from typing import Any

from prefect.flows import Flow
from pydantic import BaseModel

from feature_repo.errors import GateFailedError, ShortfallError
from flows.ids import lake
from flows.lake import StageResult
from flows.settings import settings

POLL_S = 2.0
"""Seconds between two looks at a stage that runs as a deployment."""

FOLLOWER = {"cpu": "1", "memory": "4Gi", "gpu": "0", "shared_memory": "64Mi"}
"""Job variables of a pod that follows a RayJob: the training, and its GPU, are elsewhere."""

_spark: Any = None


def spark() -> Any:
    """The one Spark session of this process, started on first use."""
    global _spark
    if _spark is None:
        from feature_repo.pipeline.spark import spark_session

        config, conf = settings(), None
        if config.spark_master is not None and config.spark_master.startswith("k8s://"):
            from flows.kube.spark import kubernetes_conf

            conf = kubernetes_conf(config)
        _spark = spark_session(config.cores, config.driver_memory, config.spark_master, conf)
    return _spark


def stop_spark() -> None:
    """Stop this process's Spark session, giving its memory back before training starts."""
    global _spark
    if _spark is not None:
        _spark.stop()
        _spark = None


def run_flow(
    flow: Flow[..., StageResult], params: BaseModel, job_variables: dict[str, Any] | None = None
) -> StageResult:
    """Run a stage's flow where the settings say and give its result.

    As a deployment the flow runs in its own image and process; its result is read from the lake, where the stage
    left it under the run's id. `job_variables` go before the deployment's own: a pod of another size.
    Raises ShortfallError (GateFailedError for a gate) when that run does not complete.
    """
    if settings().execution == "local":
        return flow(params)
    from prefect.deployments import run_deployment

    run: Any = run_deployment(
        f"{flow.name}/{flow.name}",
        parameters={"params": params.model_dump(mode="json")},
        poll_interval=POLL_S,
        job_variables=job_variables,
    )
    state = run.state
    if state is None or not state.is_completed():
        message = f"stage {flow.name}: deployment run {run.name} ended {state.name if state else 'without a state'}"
        if state is not None and state.message:
            message += f": {state.message}"
        raise (GateFailedError if GateFailedError.__name__ in message else ShortfallError)(message)
    return lake().result_of_run(str(run.id))
