"""`python -m serving.parents`: the EMS, by settings from SHORTFALL_PARENTS_* and the command line."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from feature_repo.errors import InputError, ShortfallError
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
    try:
        settings = CliApp.run(
            ParentsSettings, list(sys.argv[1:] if arguments is None else arguments), cli_exit_on_error=False
        )
        run(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        print(f"error: {where}: {first['msg']}", file=sys.stderr)
        return 2
    except (InputError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError, ShortfallError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
