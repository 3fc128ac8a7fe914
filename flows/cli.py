"""The `shortfall` command. Heavy imports happen inside the commands, so that help answers at once."""

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from feature_repo.errors import ShortfallError
from flows.cli_bench import bench
from flows.cli_data import add_data_commands
from flows.cli_gateway import gateway
from flows.cli_kube import add_kube_commands
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
from flows.cli_serve import add_serve_commands
from flows.cli_simulate import simulate
from flows.cli_train import backtest, train_agent

app = typer.Typer(
    help="Shortfall: from vendor ticks to a promoted execution policy.", no_args_is_help=True, add_completion=False
)
policy = typer.Typer(help="Policies of a source: list, history, promote, rollback.", no_args_is_help=True)
app.add_typer(policy, name="policy")
add_data_commands(app)
app.add_typer(bench, name="bench")
app.command("simulate")(simulate)
app.command("train-agent")(train_agent)
app.command("backtest")(backtest)
add_serve_commands(app)
app.add_typer(gateway, name="gateway")
add_kube_commands(app)


class Stage(StrEnum):
    """Stages that --force can name."""

    ingest = "ingest"
    clean = "clean"
    validate = "validate"
    features = "features"
    materialize = "materialize"
    train_signal = "train_signal"
    train_agent = "train_agent"
    evaluate = "evaluate"
    promote = "promote"
    all = "all"


@app.command()
def nightly(
    source: Source = "synthetic",
    data: Data = None,
    symbols: Symbols = "",
    date_from: DateFrom = None,
    date_to: DateTo = None,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    profile: Annotated[str, typer.Option(help="Training profile: quick, full, or the path of a YAML file")] = "quick",
    test_days: Annotated[
        int | None, typer.Option(help="Last days held out; 1 of up to 5 days, else 2, where absent")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of training and evaluation")] = 0,
    synthetic_days: SyntheticDays = 6,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_strength: SyntheticStrength = None,
    synthetic_seed: SyntheticSeed = 7,
    force: Annotated[
        list[Stage] | None, typer.Option(help="Do this stage again (repeatable; 'all' for every stage)")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run the nightly flow: ingest, clean, validate, features, signals, agent, evaluation, promotion."""
    embed_prefect(verbose)
    from flows.params import STAGES, NightlyParams

    forced = {item.value for item in force or []}
    params = checked(
        NightlyParams,
        source=source,
        data=data,
        symbols=split_names(symbols),
        date_from=date_from,
        date_to=date_to,
        options=option or [],
        rules=rules,
        gates=gates,
        profile=profile,
        test_days=test_days,
        seed=seed,
        synthetic_days=synthetic_days,
        synthetic_hours=synthetic_hours,
        synthetic_strength=synthetic_strength,
        synthetic_seed=synthetic_seed,
        force=[name for name in STAGES if name in forced or "all" in forced],
    )
    report = with_progress(lambda: _run_nightly(params), as_json)
    if as_json:
        print(json.dumps(report))
    else:
        from flows.closing import print_closing

        print_closing(report)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Prefect server and its UI, on loopback")] = 4200,
    schedule: Annotated[bool, typer.Option(help="Switch the nightly schedule on")] = True,
) -> None:
    """Start the Prefect server with its UI, a worker and the deployments; Ctrl-C stops all of them."""
    from flows.up import serve_until_interrupted

    serve_until_interrupted(port, schedule)


@policy.command("list")
def policy_list(source: Source = "synthetic", as_json: AsJson = False) -> None:
    """Versions of this source's policy, and which one is champion or challenger."""
    from flows.champions import open_registry

    rows = [
        {
            "version": item.version,
            "kind": item.kind,
            "aliases": ", ".join(item.aliases),
            "registered": _utc(item.created_ns),
            "sha256": item.sha256[:16],
        }
        for item in open_registry(source).list_versions()
    ]
    _show(rows, f"Policies of {source}", as_json)


@policy.command("history")
def policy_history(source: Source = "synthetic", as_json: AsJson = False) -> None:
    """The journal: every registration, promotion, refusal and rollback with its reason."""
    from flows.champions import open_registry

    registry = open_registry(source)
    rows = [
        {"when": _utc(item["ts_ns"]), "action": item["action"], "version": item["version"], "reason": item["reason"]}
        for item in registry.history()
    ]
    _show(rows, f"History of {source}", as_json)
    if warning := registry.journal_warning():
        typer.echo(f"warning: {warning}", err=True)


@policy.command("promote")
def policy_promote(
    version: Annotated[int, typer.Argument(help="Version to make champion")],
    reason: Annotated[str, typer.Option(help="Why, for the journal")],
    source: Source = "synthetic",
    force: Annotated[
        bool, typer.Option("--force", help="Move although no evidence carries it; the journal says so")
    ] = False,
) -> None:
    """Make a version champion: refused unless its evidence is established, or --force."""
    from flows.champions import open_registry, publish, settle

    decision = open_registry(source).promote(version, reason, force=force)
    publish(source)
    after = {"moved": decision.moved, "reason": decision.reason}
    if decision.moved:
        after = settle(source, version, decision.reason)
    typer.echo(f"version {version} {'is champion now' if after['moved'] else 'not promoted'}: {after['reason']}")
    if not after["moved"] and decision.changes:
        raise typer.Exit(2)


@policy.command("rollback")
def policy_rollback(
    reason: Annotated[str, typer.Option(help="Why, for the journal")], source: Source = "synthetic"
) -> None:
    """Return to the champion before the present one; on a cluster by the deployment that holds the promoter's key."""
    from flows.champions import open_registry, publish
    from flows.settings import settings

    if settings().execution == "deployments":
        from flows.infra import run_flow
        from flows.params import RollbackParams
        from flows.rollback import rollback_flow

        version = run_flow(rollback_flow, RollbackParams(source=source, reason=reason)).summary["version"]
    else:
        version = open_registry(source).rollback(reason)
        publish(source)
    typer.echo(f"version {version} is champion again: {reason}")


def main() -> None:
    """Entry point: runs the command and turns the platform's errors into one message and an exit code."""
    try:
        app()
    except ShortfallError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _run_nightly(params: Any) -> dict[str, Any]:
    from flows.nightly import nightly_flow

    return nightly_flow(params)


def _show(rows: list[dict[str, Any]], title: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    if not rows:
        typer.echo(f"{title}: none yet")
        return
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def _utc(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


if __name__ == "__main__":
    main()
