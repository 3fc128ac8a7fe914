"""Returns to the champion before the present one; where the promoter's key is."""

from prefect import flow
from prefect.runtime import flow_run

from flows import artifacts
from flows.champions import open_registry, publish
from flows.ids import lake
from flows.lake import StageResult
from flows.params import RollbackParams


@flow(name="rollback")
def rollback_flow(params: RollbackParams) -> StageResult:
    """The champion before the present one stands again; its `version` is in the summary."""
    version = open_registry(params.source).rollback(params.reason)
    publish(params.source)
    text = f"Champion of {params.source}: **v{version}** again. {params.reason}"
    artifacts.markdown("champion", text, "Champion after this rollback")
    result = StageResult("rollback", params.source, False, 0.0, {"version": version})
    if flow_run.id:
        lake().note_run(flow_run.id, result)
    return result
