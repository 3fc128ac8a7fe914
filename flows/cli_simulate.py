"""The `shortfall simulate` command: a world of the market simulator on a source's data, and its report."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from feature_repo.errors import InputError
from flows.cli_options import (
    AsJson,
    Data,
    DateFrom,
    DateTo,
    Gates,
    Options,
    Rules,
    Source,
    Symbols,
    SyntheticDays,
    SyntheticHours,
    SyntheticSeed,
    SyntheticStrength,
    Verbose,
    checked,
    embed_prefect,
    split_names,
    with_progress,
)


class World(StrEnum):
    """Worlds of the simulator."""

    replay = "replay"
    impact = "impact"
    reactive = "reactive"


def simulate(
    world: Annotated[World, typer.Option(help="replay: facts, fill models; impact: calibration; reactive: fit, facts")],
    source: Source = "synthetic",
    data: Data = None,
    report: Annotated[Path | None, typer.Option(help="Where to leave a copy of the HTML report")] = None,
    symbols: Symbols = "",
    date_from: DateFrom = None,
    date_to: DateTo = None,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    seed: Annotated[int, typer.Option(help="Seed of intervals and simulated markets")] = 0,
    synthetic_days: SyntheticDays = 6,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_strength: SyntheticStrength = None,
    synthetic_seed: SyntheticSeed = 7,
    force: Annotated[
        bool, typer.Option("--force", help="Examine the world again although its report is there")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Examine a world of the market simulator on a source's days: stylized facts, calibration, fill models, limits.

    The data are prepared first (ingest to features); what is done already is not done again.
    """
    if report is not None:
        _require_place(report)
    embed_prefect(verbose)
    from flows.params import SimulationParams

    params = checked(
        SimulationParams,
        world=world.value,
        source=source,
        data=data,
        symbols=split_names(symbols),
        date_from=date_from,
        date_to=date_to,
        options=option or [],
        rules=rules,
        gates=gates,
        seed=seed,
        synthetic_days=synthetic_days,
        synthetic_hours=synthetic_hours,
        synthetic_strength=synthetic_strength,
        synthetic_seed=synthetic_seed,
        force=["simulate"] if force else [],
    )

    def work() -> dict[str, Any]:
        from flows.simulate import simulation_flow

        return simulation_flow(params)

    found = with_progress(work, as_json)
    if report is not None:
        _copy(Path(found["report"]), report)
        found["report"] = str(report)
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)


def _require_place(report: Path) -> None:
    """Refuse a place that cannot hold the report now, not after the work."""
    if report.is_dir():
        raise InputError(f"report {report} is a folder; name a file, e.g. {report / 'simulation.html'}")
    if not report.absolute().parent.is_dir():
        raise InputError(f"report {report}: the folder {report.absolute().parent} is not there; make it first")


def _copy(made: Path, target: Path) -> None:
    """Copy whole or not at all."""
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.write_bytes(made.read_bytes())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"report {target}: cannot be written ({error}); it stands in {made}") from error


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    from flows.accounts import wide_console
    from flows.simulate import closing_rows

    console = wide_console()
    rows = closing_rows(found)
    mark = ", SYNTHETIC data" if found["synthetic"] else ""
    table = Table(title=f"World {found['world']}{mark}: value [95% interval]")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()), style="bold" if row.get("verdict") == "differ" else None)
    console.print(table)
    for name, item in found["instruments"].items():
        verdicts = [row["verdict"] for row in item.get("comparison", ())]
        if verdicts:
            agree, differ = verdicts.count("agree"), verdicts.count("differ")
            console.print(f"{name}: of {len(verdicts)} figures {agree} agree, {differ} differ", highlight=False)
    if all(stage["skipped"] for stage in found["stages"]):
        console.print("Everything was already done; nothing was done again (--force examines the world again).")
    console.print(f"Report: {found['report']}", highlight=False, soft_wrap=True)
