"""Options that several commands share, and what every command does around its work."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from feature_repo.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

SOURCES = "synthetic, lean, lean-forex, shfe, lobster, binance, bitstamp, databento, itch, mapped, or a plug-in's"
Source = Annotated[str, typer.Option(help=f"Data source: {SOURCES}")]
Data = Annotated[str | None, typer.Option(help="Folder of the vendor's files")]
Symbols = Annotated[str, typer.Option(help="Symbols, separated by commas; all that the folder holds where absent")]
DateFrom = Annotated[str | None, typer.Option("--from", help="First session date, YYYY-MM-DD")]
DateTo = Annotated[str | None, typer.Option("--to", help="Last session date, YYYY-MM-DD")]
Rules = Annotated[str | None, typer.Option(help="YAML file of cleaning rules by venue; empty: the platform's own")]
Gates = Annotated[str | None, typer.Option(help="YAML file of gate limits by venue; empty: the platform's own")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the reader, name=value (repeatable), e.g. date=2012-06-21"),
]
SyntheticDays = Annotated[int, typer.Option(help="Synthetic market: session days")]
SyntheticHours = Annotated[float, typer.Option(help="Synthetic market: hours of each session")]
SyntheticStrength = Annotated[float | None, typer.Option(help="Synthetic market: planted predictability, 0 to 1")]
SyntheticSeed = Annotated[int, typer.Option(help="Synthetic market: seed")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs instead of tables")]
Verbose = Annotated[bool, typer.Option(help="Show Prefect's own log")]

Params = TypeVar("Params", bound="BaseModel")


def split_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def checked(model: type[Params], **values: Any) -> Params:
    """The flow's parameters; raises InputError that names the first option that is wrong."""
    from pydantic import ValidationError

    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "options"
        raise InputError(f"{name}: {first['msg']} (given: {first['input']!r})") from error


def with_progress(work: Callable[[], dict[str, Any]], as_json: bool) -> dict[str, Any]:
    """Run `work` with bars on a terminal, with lines in a log or for a program."""
    from flows.progress import BarReporter, LineReporter, use_reporter

    if as_json or not sys.stderr.isatty():
        use_reporter(LineReporter())
        return work()
    with BarReporter() as bars:
        use_reporter(bars)
        return work()


def embed_prefect(verbose: bool) -> None:
    """Settings of the embedded Prefect; whatever the user's environment says goes first."""
    from flows.embedded import PREFECT_DEFAULTS, prefect_home

    home = os.environ.setdefault("PREFECT_HOME", str(prefect_home()))
    os.makedirs(home, exist_ok=True)
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
