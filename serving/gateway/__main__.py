"""`python -m serving.gateway`: the gateway's process, by settings from SHORTFALL_GATEWAY_* and the command line.

`run` is what happens without a word; `kill [--folder F] [--scope all] [--name N] [--reason R]` stops a scope through
the local socket, with HTTP down; `journal verify|replay|export FOLDER` reads a journal.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.gateway.config import ConfigError
from serving.gateway.disk import LockedError
from serving.gateway.journal import JournalError
from serving.gateway.limits import SCOPES, LimitsError
from serving.gateway.records import CorruptError
from serving.gateway.settings import GatewaySettings
from serving.observe.entry import run_process
from serving.observe.logs import configure


def run(settings: GatewaySettings) -> None:
    """Run until a signal comes. Raises what `GatewayService` does."""
    import uvloop

    from serving.gateway.process import GatewayProcess

    async def serve() -> None:
        await GatewayProcess(settings).run()

    uvloop.run(serve())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after an orderly stop, 2 for bad settings, 1 for what failed; one line says what."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["kill"]:
        return _kill(words[1:])
    if words[:1] == ["journal"]:
        from serving.gateway.audit import main as audit

        return audit(words[1:])
    configure("gateway")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    failed = (LockedError, CorruptError, JournalError, OSError, RuntimeError, ValueError)
    own = words[1:] if words[:1] == ["run"] else words
    return run_process(GatewaySettings, own, run, (ConfigError, LimitsError), failed)


def _kill(words: list[str]) -> int:
    from serving.gateway.killing import kill_locally

    parser = argparse.ArgumentParser("gateway kill", description="Stop a scope of the gateway on this machine.")
    parser.add_argument("--folder", type=Path, default=None, help="State folder; SHORTFALL_GATEWAY_FOLDER else")
    parser.add_argument("--scope", choices=SCOPES, default="all")
    parser.add_argument("--name", default="", help="Which venue, account, strategy or symbol")
    parser.add_argument("--reason", default="by hand")
    given = parser.parse_args(words)
    try:
        folder = given.folder or GatewaySettings().folder
        said = kill_locally(folder, given.scope, given.name, given.reason)
    except (OSError, ValueError) as error:
        print(f"error: no gateway answers: {error}", file=sys.stderr)
        return 1
    print(said["message"] + (f", {said['open_orders']} orders open" if said.get("open_orders") else ""))
    return 0 if said["ok"] else 2


if __name__ == "__main__":
    raise SystemExit(main())
