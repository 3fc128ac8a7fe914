"""The `shortfall bench` commands: figures that anyone can measure again on the own machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_options import AsJson, Verbose, embed_prefect, split_names, with_progress

bench = typer.Typer(
    help="Measure this machine: pipeline, features, simulator, training, gateway; compare baselines.",
    no_args_is_help=True,
)


@bench.command("pipeline")
def pipeline(
    data: Annotated[Path, typer.Option(help="Lean folder, the one that holds equity/usa/tick")],
    symbols: Annotated[str, typer.Option(help="Symbols, separated by commas")] = "AIG,BAC",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each measurement; the median counts")] = 2,
    as_json: AsJson = False,
) -> None:
    """Rows per second of ingest, clean and features on 1 and 2 cores, the same rules in Polars, and peak memory."""
    from flows.bench.pipeline import run

    _print(run(data, tuple(split_names(symbols)), repeats), "Pipeline", as_json)


@bench.command("features")
def features(
    data: Annotated[Path | None, typer.Option(help="Lean folder; the synthetic market alone where absent")] = None,
    as_json: AsJson = False,
) -> None:
    """Microseconds an event, one at a time, and events per second in batch, of the whole feature set on one core."""
    from flows.bench.features import run

    _print(run(data), "Features", as_json)


@bench.command("simulator")
def simulator(
    data: Annotated[
        Path | None, typer.Option(help="Folder with databento/; the synthetic market alone where absent")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Messages per second with and without own orders, environment steps and reactive events, on one core."""
    from flows.bench.simulator import run

    _print(run(data), "Simulator", as_json)


@bench.command("training")
def training(as_json: AsJson = False) -> None:
    """Environment steps per second of PPO and DQN on one core, PPO beside RLlib's stock runner, and ONNX latency."""
    from flows.bench.training import run

    _print(run(), "Training", as_json)


@bench.command("linear")
def linear(as_json: AsJson = False) -> None:
    """How near agents come to the closed-form optimum of the linear-impact world, five seeds each: three minutes."""
    from flows.bench.linear import run

    _print(run(), "Linear-impact world", as_json)


@bench.command("gateway")
def gateway(as_json: AsJson = False) -> None:
    """Microseconds a decision with every control on; what the disk, the order port, FIX and a kill add to it."""
    from flows.bench.gateway.rows import run

    _print(run(), "Gateway", as_json)


@bench.command("baselines")
def baselines(
    data: Annotated[Path, typer.Option(help="Folder that holds shfe/ (rb) or lean/ (AIG and BAC), or both")],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Cost of the passive baselines on real days, by two simulators, beside the figures of an independent check."""
    embed_prefect(verbose)
    from flows.bench.reference import run

    _print(with_progress(lambda: run(data), as_json), "Baselines beside an independent check", as_json)


def _print(found: dict[str, Any], title: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    from flows.bench.machine import print_result

    print_result(found, title)
    for note in found.get("notes", ()):
        print(note)
