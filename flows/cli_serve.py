"""The commands that serve, on a laptop: venue, parents. On a cluster each process starts by itself."""

import typer

from flows.cli_trade import trade


def venue(context: typer.Context) -> None:
    """Start the paper venue: FIX 4.4 for orders, a websocket feed; settings as of `python -m training.market.venue`."""
    from training.market.venue.__main__ import main

    code = main(context.args)
    if code:
        raise typer.Exit(code)


def decide(context: typer.Context) -> None:
    """Start the decide service: policies and signal models over HTTP; settings as of `python -m serving.decide`."""
    from serving.decide.__main__ import main

    code = main(context.args)
    if code:
        raise typer.Exit(code)


def parents(context: typer.Context) -> None:
    """Start the EMS, which works parent orders: HTTP and FIX 4.4 in; settings as of `python -m serving.parents`.

    `parents journal verify|replay|export FOLDER` reads its journal without writing it.
    """
    if context.args[:1] == ["journal"]:
        from serving.parents.audit import main as audit

        raise typer.Exit(audit(context.args[1:]))
    from serving.parents.__main__ import main

    code = main(context.args)
    if code:
        raise typer.Exit(code)


def add_serve_commands(app: typer.Typer) -> None:
    """Register the commands that serve."""
    loose = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("venue", context_settings=loose)(venue)
    app.command("parents", context_settings=loose)(parents)
    app.command("decide", context_settings=loose)(decide)
    app.command("trade")(trade)
