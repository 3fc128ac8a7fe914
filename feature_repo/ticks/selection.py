"""Which of the symbols and days that a folder holds a request asks for; errors say what is there instead."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TypeVar

from feature_repo.errors import InputError
from feature_repo.ticks.reader import IngestRequest

Item = TypeVar("Item")


def data_folder(request: IngestRequest, hint: str) -> Path:
    """The request's data folder; raises InputError where none is given or it is not a folder."""
    if request.data is None:
        raise InputError(f"source {request.source} reads files: give --data, {hint}")
    if not request.data.is_dir():
        raise InputError(f"{request.data}: no such folder; --data must be {hint}")
    return request.data


def choose_symbols(request: IngestRequest, known: Collection[str], folder: Path) -> list[str]:
    """Symbols asked for, sorted, all of `known` where none is named; case does not matter."""
    if not known:
        raise InputError(f"{folder}: holds no file that source {request.source} reads")
    by_upper = {name.upper(): name for name in known}
    missing = [name for name in request.symbols if name.upper() not in by_upper]
    if missing:
        raise InputError(f"symbol {missing[0]} is not in {folder}; there: {', '.join(sorted(known))}")
    return sorted({by_upper[name.upper()] for name in request.symbols} or known)


def choose_days(request: IngestRequest, days: Mapping[str, Item], what: str) -> dict[str, Item]:
    """Entries of `days` (by ISO date) within the request's range, in time order; raises InputError where none is."""
    for name, value in (("--from", request.date_from), ("--to", request.date_to)):
        _require_date(name, value)
    low, high = request.date_from or "0000-00-00", request.date_to or "9999-99-99"
    chosen = {day: days[day] for day in sorted(days) if low <= day <= high}
    if not chosen:
        raise InputError(
            f"no day of {what} from {request.date_from or 'the first'} to {request.date_to or 'the last'}; "
            f"there: {_list_days(days)}"
        )
    return chosen


def iso_date(digits: str, path: Path) -> str:
    """`YYYYMMDD` in a file's name as an ISO date; raises InputError that names the file."""
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).isoformat()
    except ValueError as error:
        raise InputError(f"{path}: {digits} in the file's name is not a date YYYYMMDD") from error


def _require_date(name: str, value: str | None) -> None:
    if value is None:
        return
    try:
        well_formed = date.fromisoformat(value).isoformat() == value  # days are compared as text: one form only
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InputError(f"{name} {value} is not a date YYYY-MM-DD")


def _list_days(days: Iterable[str]) -> str:
    names = sorted(days)
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]} ({len(names)} days)"
