"""`python -m serving.decide`: policy inference, by settings from SHORTFALL_DECIDE_* and the command line."""

import asyncio
from collections.abc import Sequence

from feature_repo.errors import InputError, ShortfallError
from serving.decide.settings import DecideSettings
from serving.observe.entry import run_process
from serving.observe.logs import configure


def run(settings: DecideSettings) -> None:
    """Run until a signal comes. Raises InputError without the promoter's key, OSError where a port cannot be had."""
    import uvloop

    from serving.decide.service import DecideService

    async def serve() -> None:
        await DecideService(settings).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a signal, 2 for bad settings, 1 for what failed; one line says what."""
    configure("decide")
    return run_process(
        DecideSettings, arguments, run, (InputError,), (OSError, RuntimeError, ShortfallError, ValueError)
    )


if __name__ == "__main__":
    raise SystemExit(main())
