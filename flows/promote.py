"""The promote stage: register the agent and decide, on the evidence alone, whether it replaces the champion."""

import json
from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.progress import Progress
from flows import artifacts
from flows.champions import decide
from flows.ids import resolve, stage_id
from flows.lake import StageResult
from flows.params import PromoteParams
from flows.stage import run_stage, stage_task


@stage_task(name="promote policy")
def promote_policy(params: PromoteParams) -> StageResult:
    """Register, decide, journal."""
    agent, agent_folder = resolve("train_agent", params.agent)
    evaluation, evaluation_folder = resolve("evaluate", params.evaluation)
    id_ = stage_id("promote", params.model_copy(update={"agent": agent, "evaluation": evaluation}))

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        evidence = json.loads((evaluation_folder / "evaluation.json").read_text())
        decision = decide(params.source, agent_folder / "bundle", evaluation, evidence)
        (out / "decision.json").write_text(json.dumps(decision, indent=1, sort_keys=True))
        progress(1, 1, "decision")
        return decision

    return run_stage("promote", id_, work, force=params.force)


@flow(name="promote")
def promote_flow(params: PromoteParams = PromoteParams()) -> StageResult:  # noqa: B008
    """Agent to challenger, and to champion where the comparison is established; returns what was published."""
    result = promote_policy(params)
    decision = result.summary
    artifacts.markdown(
        "champion",
        f"Champion of {params.source}: **{decision['name']} v{decision['version']}** "
        f"({'moved' if decision['moved'] else 'kept'}). {decision['reason']}",
        "Champion after this run",
    )
    artifacts.lineage(result, {"agent": params.agent, "evaluation": params.evaluation})
    return result
