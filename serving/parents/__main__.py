"""`python -m serving.parents`: the EMS, by settings from SHORTFALL_PARENTS_* and the command line."""

import asyncio
import logging
from collections.abc import Sequence

from feature_repo.errors import InputError, ShortfallError
from serving.observe.entry import run_process
from serving.observe.logs import configure
from serving.parents.settings import ParentsSettings


def run(settings: ParentsSettings) -> None:
    """Run until a signal comes. Raises what `ParentsService` does."""
    import uvloop

    from serving.parents.service import ParentsService

    async def serve() -> None:
        await ParentsService(settings).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a signal, 2 for bad settings, 1 for what failed; one line says what."""
    configure("parents")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return run_process(
        ParentsSettings, arguments, run, (InputError,), (OSError, RuntimeError, ShortfallError, ValueError)
    )


if __name__ == "__main__":
    raise SystemExit(main())
