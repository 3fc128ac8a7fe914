"""The `shortfall gateway` commands: look into the risk gateway's journal."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

gateway = typer.Typer(help="The risk gateway: read its journal.", no_args_is_help=True)


class Look(StrEnum):
    """What to do with a journal."""

    VERIFY = "verify"
    REPLAY = "replay"
    EXPORT = "export"


@gateway.callback()
def _group() -> None:
    """The risk gateway: read its journal."""  # with one command alone, typer would hide its name


@gateway.command("journal")
def journal(
    look: Annotated[Look, typer.Argument(help="verify chain and state, replay to the state, or export as JSON lines")],
    folder: Annotated[Path, typer.Argument(help="Folder of the journal", exists=True, file_okay=False)],
) -> None:
    """Verify, replay or export a journal without writing it; exit code 1 where it is not sound."""
    from serving.gateway.audit import main

    raise typer.Exit(main([look.value, str(folder)]))
