"""Pins the champion that an agent is judged against; where the promoter's key is, to sign bundle 0 if need be."""

from prefect import flow
from prefect.runtime import flow_run

from flows.champions import pinned_champion, publish
from flows.ids import lake, resolve
from flows.lake import StageResult
from flows.params import OpponentParams


@flow(name="opponent")
def opponent_flow(params: OpponentParams = OpponentParams()) -> StageResult:  # noqa: B008
    """The champion of the moment when this agent was first asked about; its `version` is in the summary."""
    agent, _ = resolve("train_agent", params.agent)
    version = pinned_champion(params.source, agent)
    publish(params.source)
    result = StageResult("opponent", agent, False, 0.0, {"version": version})
    if flow_run.id:
        lake().note_run(flow_run.id, result)
    return result
