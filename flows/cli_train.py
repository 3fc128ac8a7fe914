"""The commands `train-agent` and `backtest`: agents of any source, each with the stages that come before it."""

import json
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

Profile = Annotated[str, typer.Option(help="Profile: quick, full, or the path of a YAML file")]
Seed = Annotated[int, typer.Option(help="Seed of training and evaluation")]


def train_agent(
    source: Source = "synthetic",
    data: Data = None,
    symbols: Symbols = "",
    date_from: DateFrom = None,
    date_to: DateTo = None,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    profile: Profile = "quick",
    test_days: Annotated[
        int | None, typer.Option(help="Last days that nothing is trained on; 1 of up to 5 days, else 2, where absent")
    ] = None,
    seed: Seed = 0,
    synthetic_days: SyntheticDays = 6,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_strength: SyntheticStrength = None,
    synthetic_seed: SyntheticSeed = 7,
    search: Annotated[
        int, typer.Option(min=0, help="Try so many settings with Ray Tune first and print the best; 0: train as set")
    ] = 0,
    ablate: Annotated[
        str, typer.Option(help="'signals': train without forecasts too and print what they are worth on held-out days")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Train again although the agent is there")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Prepare the data, train signals and an execution agent; what is done already is not done again."""
    embed_prefect(verbose)
    from flows.params import NightlyParams

    params = checked(
        NightlyParams,
        source=source, data=data, symbols=split_names(symbols), date_from=date_from, date_to=date_to,
        options=option or [], rules=rules, gates=gates, profile=profile, test_days=test_days, seed=seed,
        synthetic_days=synthetic_days, synthetic_hours=synthetic_hours, synthetic_strength=synthetic_strength,
        synthetic_seed=synthetic_seed, force=["train_agent"] if force else [],
    )  # fmt: skip

    if ablate not in ("", "signals"):
        raise InputError(f"--ablate {ablate}: only signals can be left out; give --ablate signals")
    if ablate and search:
        raise InputError(f"--ablate {ablate} with --search {search}: search first, then ablate with the settings found")

    def work() -> dict[str, Any]:
        from flows.ablate import ablate_flow
        from flows.backtest import train_flow
        from flows.search import search_flow

        if ablate:
            return ablate_flow(params)
        return search_flow(params, search) if search else train_flow(params)

    report = with_progress(work, as_json)
    if as_json:
        print(json.dumps(report))
        return
    if search:
        _table("Trials, best first", report["trials"])
    else:
        shown = {name.replace("_", " "): value for name, value in report["agent"].items()}
        _table("Training", [{"figure": name, "value": value} for name, value in shown.items()])
        for row in report["times"]["seeds"]:
            typer.echo(f"Seed {row['seed']}: {_crossing(row, report['times']['twap_passive_bps'])}")
        if ablate:
            _print_ablation(report["ablation"])
        typer.echo(f"Bundle: {report['bundle']}")


def _print_ablation(found: dict[str, Any]) -> None:
    """What signals are worth, over all instruments and for each."""
    keys = ("with_bps", "without_bps", "diff_bps", "ci_low", "ci_high", "n", "clusters", "n_seeds", "verdict")
    parts = {"all": found["all"], **found["by_instrument"]}
    _table(
        f"With and without signals on {', '.join(found['test_days'])}, bps (below zero, signals save)",
        [{"instrument": name, **{key: row[key] for key in keys}} for name, row in parts.items()],
    )


def _crossing(row: dict[str, Any], passive_bps: float) -> str:
    """When this seed's validation cost was below TWAP passive's, in words."""
    if row["below_at_env_steps"] is None:
        return f"validation cost never below TWAP passive's {passive_bps:.3f} bps"
    steps, spent = row["below_at_env_steps"], "times unknown, it went on from a checkpoint"
    if row["below_after_wall_s"] is not None:
        spent = f"{row['below_after_wall_s']:g} s on the clock, {row['below_after_cpu_s']:g} s of processor time"
    return f"validation cost below TWAP passive's {passive_bps:.3f} bps after {steps:,} environment steps ({spent})"


def backtest(
    bundle: Annotated[str, typer.Option(help="Folder of the policy bundle")],
    source: Source = "synthetic",
    data: Data = None,
    symbols: Symbols = "",
    date_from: DateFrom = None,
    date_to: DateTo = None,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    profile: Profile = "quick",
    test_days: Annotated[
        int | None, typer.Option(help="Last days to judge on; every day after those the bundle knows, where absent")
    ] = None,
    seed: Seed = 0,
    synthetic_days: SyntheticDays = 6,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_strength: SyntheticStrength = None,
    synthetic_seed: SyntheticSeed = 7,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Judge a bundle on days that it never saw, against every baseline; the baselines are tuned on the days before."""
    embed_prefect(verbose)
    from flows.backtest import BacktestParams

    params = checked(
        BacktestParams,
        bundle=bundle, source=source, data=data, symbols=split_names(symbols), date_from=date_from, date_to=date_to,
        options=option or [], rules=rules, gates=gates, profile=profile, test_days=test_days, seed=seed,
        synthetic_days=synthetic_days, synthetic_hours=synthetic_hours, synthetic_strength=synthetic_strength,
        synthetic_seed=synthetic_seed,
    )  # fmt: skip

    def work() -> dict[str, Any]:
        from flows.backtest import backtest_flow

        return backtest_flow(params)

    report = with_progress(work, as_json)
    if as_json:
        print(json.dumps(report))
        return
    ranked = sorted(report["evaluation"].items(), key=lambda item: item[1]["mean_is_bps"])
    _table(
        f"Implementation shortfall on {', '.join(report['test_days'])}, bps (lower is better)",
        [{"policy": name, **row} for name, row in ranked],
    )
    for sentence in report["findings"]:
        typer.echo(f"  {sentence}")
    typer.echo(f"Report: {report['report']}")


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from flows.accounts import wide_console

    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*("" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    wide_console().print(table)
