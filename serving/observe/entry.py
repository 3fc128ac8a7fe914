"""How every process that serves begins and ends: settings from environment and command line, one line on failure."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsError

S = TypeVar("S", bound=BaseSettings)
Errors = tuple[type[Exception], ...]


def run_process(
    settings: type[S], arguments: Sequence[str] | None, run: Callable[[S], None], refused: Errors, failed: Errors
) -> int:
    """Read the settings and run; exit code 0 after an orderly end, 2 for bad settings, 1 for what failed.

    `arguments` are the words behind the program's name, the process's own where None. `refused` are the errors of `run`
    that mean bad settings, `failed` those that end it with one line; `refused` goes first, others are raised.
    """
    bad: Errors = (SettingsError, *refused)
    try:
        run(CliApp.run(settings, list(sys.argv[1:] if arguments is None else arguments), cli_exit_on_error=False))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        print(f"error: {where}: {first['msg']}", file=sys.stderr)
        return 2
    except bad as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
