"""The `shortfall trade` command: a day worked by the champion behind the gateway, shown as it goes."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import (
    AsJson,
    Data,
    Gates,
    Options,
    Rules,
    Source,
    Symbols,
    SyntheticHours,
    SyntheticSeed,
    SyntheticStrength,
    Verbose,
    checked,
    embed_prefect,
    split_names,
    with_progress,
)

if TYPE_CHECKING:
    from flows.trade import Progress

LINE_S = 5.0
_TABLE_ROWS = 60


class Pace(StrEnum):
    """How the day passes."""

    lockstep = "lockstep"
    real = "real"


def trade(
    source: Source = "synthetic",
    data: Data = None,
    symbols: Symbols = "",
    date: Annotated[
        str | None, typer.Option(help="Session to trade, YYYY-MM-DD; one that the champion never saw where absent")
    ] = None,
    parents: Annotated[int | None, typer.Option(help="Parents to work; the whole day's where absent")] = None,
    together: Annotated[int, typer.Option(help="Parents of a symbol that work at once, all of one side")] = 2,
    pace: Annotated[Pace, typer.Option(help="lockstep: as fast as all follow; real: by the clock")] = Pace.lockstep,
    speed: Annotated[float, typer.Option(help="Pace real: seconds of the day for one of the clock")] = 60.0,
    option: Options = None,
    rules: Rules = None,
    gates: Gates = None,
    synthetic_hours: SyntheticHours = 6.5,
    synthetic_strength: SyntheticStrength = None,
    synthetic_seed: SyntheticSeed = 7,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Trade a day: venue, decide, gateway and parents on loopback work its parent orders; ends with a TCA report.

    The policy is the source's champion, bundle 0 where there is none yet. The data are prepared first (ingest to
    features); what is done already is not done again. Ctrl-C stops all processes in order.
    """
    embed_prefect(verbose)
    from flows.trade_day import TradeParams, prepare

    params = checked(
        TradeParams,
        source=source,
        data=data,
        symbols=split_names(symbols),
        date=date,
        parents=parents,
        together=together,
        pace=pace.value,
        speed=speed,
        options=option or [],
        rules=rules,
        gates=gates,
        synthetic_hours=synthetic_hours,
        synthetic_strength=synthetic_strength,
        synthetic_seed=synthetic_seed,
    )
    from flows.trade import trade_day

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        day = with_progress(lambda: {"day": prepare(params)}, as_json)["day"]
        with _shown(as_json) as show:
            found = trade_day(day, params, show, lambda text: print(text, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print("stopped: every process has ended", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)
    if found["killed"] or any(found["processes"].values()) or found["parents"]["not_done"]:
        raise typer.Exit(1)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: in order."""
    raise KeyboardInterrupt


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[["Progress"], None]]:
    """A bar and the figures so far on a terminal; a line now and then elsewhere."""
    if as_json or not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("trading", total=None, said="")

        def show(progress: "Progress") -> None:
            bar.update(task, completed=progress.done, total=progress.parents, said=_said(progress))

        yield show


def _lines() -> Callable[["Progress"], None]:
    last = [-LINE_S]

    def show(progress: "Progress") -> None:
        if time.monotonic() - last[0] >= LINE_S or progress.done >= progress.parents:
            last[0] = time.monotonic()
            print(f"trade: {_said(progress)}", file=sys.stderr, flush=True)

    return show


def _said(progress: "Progress") -> str:
    clock = datetime.fromtimestamp(progress.now_ns / 1e9, UTC).strftime("%H:%M:%S") if progress.now_ns else "--:--:--"
    cost = "" if progress.mean_is_bps is None else f", mean IS {progress.mean_is_bps:+.2f} bps"
    return (
        f"{clock} UTC, {progress.done}/{progress.parents} parents done, {progress.working} at work, "
        f"{progress.fills:,} fills, {progress.denials} denials{cost}"
    )


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    from flows.accounts import wide_console
    from flows.trade_report import sentences

    console = wide_console()
    mark = "SYNTHETIC data, " if found["synthetic"] else ""
    table = Table(title=f"{mark}{', '.join(found['symbols'])} on {found['date']}: parents live against the backtest")
    for name in found["head"]:
        table.add_column(name, justify="left" if name == "parent" else "right", no_wrap=name == "parent")
    rows = found["table"]
    for row in rows[:_TABLE_ROWS]:
        table.add_row(*row)
    console.print(table)
    if len(rows) > _TABLE_ROWS:
        console.print(f"{len(rows) - _TABLE_ROWS} more parents stand in the report.")
    for line in sentences(found):
        console.print(line, highlight=False, soft_wrap=True)
    used = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["cpu_s"].items())
    console.print(
        f"{found['market_seconds']:,.0f} s of the day in {found['seconds']:.0f} s; CPU: {used}", highlight=False
    )
    ended = ", ".join(f"{name} {code}" for name, code in found["processes"].items())
    console.print(f"Processes ended: {ended}", highlight=False)
    console.print(f"Report: {found['report']}", highlight=False, soft_wrap=True)
