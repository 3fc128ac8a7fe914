"""The `shortfall gateway` commands: run the risk gateway, stop it by hand, look into its journal."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

gateway = typer.Typer(help="The risk gateway: run it, stop it by hand, read its journal.", no_args_is_help=True)
_LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class Look(StrEnum):
    """What to do with a journal."""

    VERIFY = "verify"
    REPLAY = "replay"
    EXPORT = "export"


@gateway.command("run", context_settings=_LOOSE)
def run(context: typer.Context) -> None:
    """Start the gateway: orders by framed TCP, FIX 4.4 out; settings as of `python -m serving.gateway`."""
    from serving.gateway.__main__ import main

    raise typer.Exit(main(["run", *context.args]))


@gateway.command("kill", context_settings=_LOOSE)
def kill(context: typer.Context) -> None:
    """Stop everything, or one scope, through the local socket: works with HTTP down."""
    from serving.gateway.__main__ import main

    raise typer.Exit(main(["kill", *context.args]))


@gateway.command("journal")
def journal(
    look: Annotated[Look, typer.Argument(help="verify chain and state, replay to the state, or export as JSON lines")],
    folder: Annotated[Path, typer.Argument(help="Folder of the journal", exists=True, file_okay=False)],
) -> None:
    """Verify, replay or export a journal without writing it; exit code 1 where it is not sound."""
    from serving.gateway.audit import main

    raise typer.Exit(main([look.value, str(folder)]))
