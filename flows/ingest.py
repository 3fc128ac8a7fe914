"""The ingest stage: vendor files to bronze."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow

from feature_repo.parts import file_sha256
from feature_repo.progress import Progress
from feature_repo.ticks.reader import IngestRequest, PartitionPlan
from flows import artifacts
from flows.ids import parts, stage_id
from flows.lake import StageResult
from flows.params import IngestParams
from flows.stage import run_stage, stage_task


def ingest_request(params: IngestParams) -> IngestRequest:
    """What the reader is asked for."""
    options: dict[str, Any] = {}
    for item in params.options:
        name, _, value = item.partition("=")
        options[name.strip()] = _plain(value.strip())
    if params.source == "synthetic":
        options |= {"days": params.synthetic_days, "hours": params.synthetic_hours, "seed": params.synthetic_seed}
        if params.synthetic_strength is not None:
            options["strength"] = params.synthetic_strength
    return IngestRequest(
        source=params.source,
        data=Path(params.data).expanduser() if params.data else None,
        symbols=tuple(params.symbols),
        date_from=params.date_from.isoformat() if params.date_from else None,
        date_to=params.date_to.isoformat() if params.date_to else None,
        options=options,
    )


def _plain(text: str) -> int | float | str:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def ingest_id(params: IngestParams) -> str:
    """Id of the bronze that these parameters give: it changes with the content of any input file."""
    from feature_repo.ticks.registry import get_reader

    request = ingest_request(params)
    plans = get_reader(request.source).plan(request)
    chains = [item for plan in plans for item in _with_previous(plan)]
    digests = [file_sha256(path) for path in sorted({path for plan in chains for path in plan.inputs})]
    partitions = [[str(plan.partition), dict(plan.options)] for plan in plans]  # a reader may add options of its own
    own = IngestParams(**params.model_dump(include=set(IngestParams.model_fields) - {"force"}))
    # Where the files lie does not matter, what they hold does.
    return stage_id("ingest", own.model_copy(update={"data": None}), inputs=digests, partitions=partitions)


def _with_previous(plan: PartitionPlan) -> Iterator[PartitionPlan]:
    """The plan, and the days whose standing book it may open with."""
    item: PartitionPlan | None = plan
    while item is not None:
        yield item
        item = item.previous


def planned_dates(params: IngestParams) -> list[str]:
    """Session dates (ISO) that these parameters will read, found without reading a tick."""
    from feature_repo.ticks.registry import get_reader

    request = ingest_request(params)
    return [plan.partition.date for plan in get_reader(request.source).plan(request)]


@stage_task(name="ingest ticks")
def ingest_ticks(params: IngestParams) -> StageResult:
    """Read the vendor's files into bronze."""
    from feature_repo.ticks.ingest import ingest

    request = ingest_request(params)

    def work(out: Path, progress: Progress) -> dict[str, Any]:
        return ingest(request, out, progress, parts("ingest", params.force))

    return run_stage("ingest", ingest_id(params), work, force=params.force)


@flow(name="ingest")
def ingest_flow(params: IngestParams = IngestParams()) -> StageResult:  # noqa: B008  (the model is frozen in practice)
    """Vendor ticks to bronze; returns what was published."""
    result = ingest_ticks(params)
    artifacts.table("ingested", result.summary["partitions"], "Rows read by symbol and day")
    artifacts.lineage(result, {})
    return result
