"""Readers by name: those of the platform, and those that an installed package adds by entry point."""

from importlib import import_module
from importlib.metadata import entry_points

from feature_repo.errors import InputError
from feature_repo.ticks.reader import Reader

ENTRY_POINT_GROUP = "shortfall.readers"
_OWN = {
    "synthetic": ("feature_repo.ticks.synthetic", "SyntheticReader"),
    "lean": ("feature_repo.ticks.lean", "LeanReader"),
    "lean-forex": ("feature_repo.ticks.lean_forex", "LeanForexReader"),
    "shfe": ("feature_repo.ticks.shfe", "ShfeReader"),
    "lobster": ("feature_repo.ticks.lobster", "LobsterReader"),
    "binance": ("feature_repo.ticks.binance", "BinanceReader"),
    "bitstamp": ("feature_repo.ticks.bitstamp", "BitstampReader"),
    "databento": ("feature_repo.ticks.databento", "DatabentoReader"),
    "itch": ("feature_repo.ticks.itch", "ItchReader"),
    "mapped": ("feature_repo.ticks.mapped", "MappedReader"),
}


def reader_names() -> list[str]:
    """Names of all readers, sorted."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def get_reader(name: str) -> Reader:
    """The reader of this name; the platform's own come first. Raises InputError that lists the readers there are."""
    if name in _OWN:
        module, reader = _OWN[name]
        return getattr(import_module(module), reader)()
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return point.load()()
    raise InputError(f"source {name!r} is unknown; readers: {', '.join(reader_names())}")
