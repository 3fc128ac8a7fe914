"""The `shortfall venue` command: the paper venue on a laptop. On a cluster it starts by itself."""

import typer


def venue(context: typer.Context) -> None:
    """Start the paper venue: FIX 4.4 for orders, a websocket feed; settings as of `python -m training.market.venue`."""
    from training.market.venue.__main__ import main

    code = main(context.args)
    if code:
        raise typer.Exit(code)


def add_serve_commands(app: typer.Typer) -> None:
    """Register the commands that serve."""
    loose = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("venue", context_settings=loose)(venue)
