"""The commands of the data stages: ingest, clean, validate, features, each with what comes before it, and backfill."""

import json
from typing import Annotated, Any

import typer

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

_HELP = {
    "ingest": "Read a vendor's ticks into bronze: one event schema, a manifest of every input and row.",
    "clean": "Ingest, then clean with Spark: every row is kept, or quarantined under the rule that caught it.",
    "validate": "Ingest and clean, then hold silver to its gate (Great Expectations); exit 3 where it fails.",
    "features": "Ingest, clean and validate, then build books and features.",
}


def add_data_commands(app: typer.Typer) -> None:
    """Give `app` the commands."""
    for stage, text in _HELP.items():
        app.command(stage, help=text + " What is done already is not done again.")(_stage_command(stage))
    app.command("backfill")(backfill)


def _stage_command(stage: str) -> Any:
    def command(
        source: Source = "synthetic",
        data: Data = None,
        symbols: Symbols = "",
        date_from: DateFrom = None,
        date_to: DateTo = None,
        option: Options = None,
        rules: Rules = None,
        gates: Gates = None,
        synthetic_days: SyntheticDays = 6,
        synthetic_hours: SyntheticHours = 6.5,
        synthetic_strength: SyntheticStrength = None,
        synthetic_seed: SyntheticSeed = 7,
        force: Annotated[bool, typer.Option("--force", help=f"Do {stage} again although its output is there")] = False,
        as_json: AsJson = False,
        verbose: Verbose = False,
    ) -> None:
        embed_prefect(verbose)
        from flows.params import DataParams

        params = checked(
            DataParams,
            source=source,
            data=data,
            symbols=split_names(symbols),
            date_from=date_from,
            date_to=date_to,
            options=option or [],
            rules=rules,
            gates=gates,
            synthetic_days=synthetic_days,
            synthetic_hours=synthetic_hours,
            synthetic_strength=synthetic_strength,
            synthetic_seed=synthetic_seed,
            until=stage,
            force=[stage] if force else [],
        )

        def work() -> dict[str, Any]:
            from flows.data import data_flow

            return data_flow(params)

        _print(with_progress(work, as_json), as_json)

    return command


def backfill(
    source: Source = "synthetic",
    data: Data = None,
    symbols: Symbols = "",
    date_from: DateFrom = None,
    date_to: DateTo = None,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    synthetic_days: SyntheticDays = 6,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_seed: SyntheticSeed = 7,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build features for every day of a range, a day at a time; one that was stopped goes on where it stood."""
    embed_prefect(verbose)
    from flows.params import BackfillParams

    params = checked(
        BackfillParams,
        source=source,
        data=data,
        symbols=split_names(symbols),
        date_from=date_from,
        date_to=date_to,
        options=option or [],
        rules=rules,
        gates=gates,
        synthetic_days=synthetic_days,
        synthetic_hours=synthetic_hours,
        synthetic_seed=synthetic_seed,
    )

    def work() -> dict[str, Any]:
        from flows.data import backfill_flow

        return backfill_flow(params)

    _print(with_progress(work, as_json), as_json)


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    from flows.accounts import print_accounting, wide_console

    console = wide_console()
    print_accounting(report["rows"], console)
    gate = report.get("gate")
    if gate is not None:
        console.print(
            f"Gate passed: {gate['expectations']} expectations; Data Docs: {gate['data_docs']}", soft_wrap=True
        )
        for item in gate["excluded"]:
            name = f"{item['venue']}:{item['symbol']} {item['date']}"
            console.print(f"  set aside: {name}, {item['rows']:,} rows ({item['expectation']})", highlight=False)
    if "features" in report:
        built = report["features"]
        console.print(f"Features: {built['rows']:,} rows of {len(built['names'])} features", highlight=False)
    if all(stage["skipped"] for stage in report["stages"]):
        console.print("Everything was already done; nothing was done again (--force redoes the stage).")
    console.print(f"Folder: {report['folder']}", highlight=False, soft_wrap=True)
