"""Decimal text of FIX to integers and back: prices to ticks, quantities to lots, times to ns. No floats."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from serving.contracts.orders import LOTS_MAX, PRICE_TICKS_MAX

_DECIMAL = re.compile(r"(\d{1,18})(?:\.(\d{1,18}))?", re.ASCII)
_TIME = re.compile(r"(\d{8})-(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?", re.ASCII)
_SECOND_NS = 1_000_000_000


class FixNumberError(ValueError):
    """Text that is no number of the wanted kind, or lies between two ticks or lots; it names text and step."""


@dataclass(frozen=True)
class Scale:
    """How a symbol's prices and quantities are written: a tick is `tick` / 10^`decimals` of currency."""

    tick: int
    decimals: int
    lot: int = 1  # units a lot

    def __post_init__(self) -> None:
        if self.tick < 1 or not 0 <= self.decimals <= 18 or self.lot < 1:
            raise FixNumberError(f"tick {self.tick} / 10^{self.decimals} and lot {self.lot} must be positive")

    @classmethod
    def of(cls, tick_size: str, lot_size: str = "1") -> "Scale":
        """From decimal text, as "0.01" and "10"; of a float, `repr` is that text."""
        try:
            tick, lot = Decimal(tick_size), Decimal(lot_size)
            exponent = int(tick.normalize().as_tuple().exponent)
            whole_lot = int(lot)
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise FixNumberError(f"tick size {tick_size!r} or lot size {lot_size!r} is no number") from error
        if lot != whole_lot:
            raise FixNumberError(f"lot size {lot_size!r} is not whole")
        decimals = max(0, -exponent)
        return cls(int(tick.scaleb(decimals)), decimals, whole_lot)

    def ticks(self, text: str) -> int:
        """Price text to ticks. Raises FixNumberError for one between two ticks, none, or beyond the contract."""
        ticks, rest = divmod(_scaled(text, self.decimals, "price"), self.tick)
        if rest:
            raise FixNumberError(f"price {text} is no multiple of the tick {self.price(1)}")
        if not 1 <= ticks <= PRICE_TICKS_MAX:
            raise FixNumberError(f"price {text} is {ticks} ticks, not 1 to {PRICE_TICKS_MAX}")
        return ticks

    def price(self, ticks: int) -> str:
        """Ticks to price text."""
        digits = str(ticks * self.tick).rjust(self.decimals + 1, "0")
        return f"{digits[: -self.decimals]}.{digits[-self.decimals :]}" if self.decimals else digits

    def lots(self, text: str) -> int:
        """Quantity text to lots, 0 included. Raises FixNumberError for a part of a lot."""
        lots, rest = divmod(_scaled(text, 0, "quantity"), self.lot)
        if rest:
            raise FixNumberError(f"quantity {text} is no multiple of the lot {self.lot}")
        if lots > LOTS_MAX:
            raise FixNumberError(f"quantity {text} is {lots} lots, more than {LOTS_MAX}")
        return lots

    def quantity(self, lots: int) -> str:
        """Lots to quantity text."""
        return str(lots * self.lot)


def minor_units(text: str, decimals: int = 2) -> int:
    """An amount, perhaps negative, to minor units of its currency."""
    return -_scaled(text[1:], decimals, "amount") if text.startswith("-") else _scaled(text, decimals, "amount")


def amount(minor: int, decimals: int = 2) -> str:
    """Minor units to text."""
    return ("-" if minor < 0 else "") + Scale(1, decimals).price(abs(minor))


def utc_text(ts_ns: int) -> str:
    """UTC timestamp with nine decimals."""
    seconds, ns = divmod(ts_ns, _SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H:%M:%S}.{ns:09d}"


def utc_ns(text: str) -> int:
    """UTC timestamp text to ns. Raises FixNumberError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise FixNumberError(f"time {text!r} is not YYYYMMDD-HH:MM:SS with up to nine decimals")
    try:
        moment = datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC)
        moment = moment.replace(
            hour=int(match[2]), minute=int(match[3]), second=59 if match[4] == "60" else int(match[4])
        )
    except ValueError as error:
        raise FixNumberError(f"time {text!r} is none: {error}") from error
    return int(moment.timestamp()) * _SECOND_NS + int((match[5] or "0").ljust(9, "0"))


def _scaled(text: str, decimals: int, what: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise FixNumberError(f"{what} {text!r} is no decimal number")
    fraction = match[2] or ""
    if fraction[decimals:].strip("0"):
        raise FixNumberError(f"{what} {text} has more than {decimals} decimals")
    return int(match[1] + fraction[:decimals].ljust(decimals, "0"))
