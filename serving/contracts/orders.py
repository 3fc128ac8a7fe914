"""What may be asked of the gateway, and what a venue reports: frozen types, valid once built, with one encoding each.

Integers only: prices in ticks, sizes in lots, money in minor units of the account's currency, time in ns UTC. A value
is checked when it is built, from bytes or in process, so that whoever holds one need not ask again. The encoding is
JSON with the fields in the order of the class; `decode_*` accepts the exact bytes that `encode` gives and nothing else,
so that equal payloads have equal bytes: no unknown or repeated field, no NaN, no float where an integer stands, no
stray space.
"""

from typing import Any, Literal, TypeVar

import msgspec

INT64_MAX = 2**63 - 1
LOTS_MAX = 10**12
PRICE_TICKS_MAX = 10**12
TEXT_MAX = 64

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["day", "ioc", "fok"]


class ContractError(ValueError):
    """A value or an encoding that the contract does not allow; the message names the field, its value and the limit."""


def _integer(field: str, value: object, low: int, high: int = INT64_MAX) -> None:
    if type(value) is not int or not low <= value <= high:  # a bool, a float and a NaN are no integers
        raise ContractError(f"{field} {value!r} is not an integer from {low} to {high}")


def _text(field: str, value: object) -> None:
    if type(value) is not str or not 0 < len(value) <= TEXT_MAX or not value.isascii() or not value.isprintable():
        raise ContractError(f"{field} {value!r} is not printable ASCII of 1 to {TEXT_MAX} characters")


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if type(value) is not str or value not in allowed:
        raise ContractError(f"{field} {value!r} is none of {', '.join(allowed)}")


class _Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="kind"):
    pass


class _Request(_Contract, frozen=True, kw_only=True, gc=False):
    key: str  # the client's own, once a strategy: the same key with the same payload gives the first decision again
    strategy: str
    account: str
    algorithm: str  # who decided (RTS 6, Article 17; MiFIR transaction reports)
    trader: str  # the person responsible
    sent_ns: int

    def _check_request(self) -> None:
        _text("key", self.key)
        _text("strategy", self.strategy)
        _text("account", self.account)
        _text("algorithm", self.algorithm)
        _text("trader", self.trader)
        _integer("sent_ns", self.sent_ns, 0)


class ChildOrder(_Request, frozen=True, kw_only=True, gc=False, tag="new"):
    """A new order for one venue. A limit order names `price_ticks`, a market order leaves it None."""

    venue: str
    symbol: str
    side: Side
    type: OrderType
    price_ticks: int | None
    lots: int
    tif: TimeInForce
    reduce_only: bool

    def __post_init__(self) -> None:
        self._check_request()
        _text("venue", self.venue)
        _text("symbol", self.symbol)
        _one_of("side", self.side, ("buy", "sell"))
        _one_of("type", self.type, ("limit", "market"))
        _one_of("tif", self.tif, ("day", "ioc", "fok"))
        _integer("lots", self.lots, 1, LOTS_MAX)
        if type(self.reduce_only) is not bool:
            raise ContractError(f"reduce_only {self.reduce_only!r} is neither true nor false")
        if self.type == "limit":
            _integer("price_ticks", self.price_ticks, 1, PRICE_TICKS_MAX)
        elif self.price_ticks is not None:
            raise ContractError(f"price_ticks {self.price_ticks!r} on a market order: leave it out (null)")


class Replace(_Request, frozen=True, kw_only=True, gc=False, tag="replace"):
    """Change a working limit order: `lots` is its new total, filled lots included (FIX OrderQty)."""

    order_key: str  # the key of the ChildOrder, whatever replaced it since
    price_ticks: int
    lots: int

    def __post_init__(self) -> None:
        self._check_request()
        _text("order_key", self.order_key)
        _integer("price_ticks", self.price_ticks, 1, PRICE_TICKS_MAX)
        _integer("lots", self.lots, 1, LOTS_MAX)


class Cancel(_Request, frozen=True, kw_only=True, gc=False, tag="cancel"):
    """Withdraw what is left of an order."""

    order_key: str

    def __post_init__(self) -> None:
        self._check_request()
        _text("order_key", self.order_key)


Request = ChildOrder | Replace | Cancel


class _Report(_Contract, frozen=True, kw_only=True, gc=False):
    order_id: int  # the gateway's number of the order
    ts_ns: int

    def __post_init__(self) -> None:
        _integer("order_id", self.order_id, 1)
        _integer("ts_ns", self.ts_ns, 0)
        self._check()

    def _check(self) -> None:
        """What a kind of report holds beside the order."""


class Acked(_Report, frozen=True, kw_only=True, gc=False, tag="acked"):
    """The order rests, or met the market, at the venue."""


class Rejected(_Report, frozen=True, kw_only=True, gc=False, tag="rejected"):
    """The venue refused the order."""

    reason: str


class Filled(_Report, frozen=True, kw_only=True, gc=False, tag="filled"):
    """An execution, partial or full; `exec_id` is the venue's own and never used twice."""

    exec_id: str
    price_ticks: int
    lots: int
    fee: int = 0  # minor units; a rebate is negative

    def _check(self) -> None:
        _text("exec_id", self.exec_id)
        _integer("price_ticks", self.price_ticks, 1, PRICE_TICKS_MAX)
        _integer("lots", self.lots, 1, LOTS_MAX)
        _integer("fee", self.fee, -INT64_MAX)


class Cancelled(_Report, frozen=True, kw_only=True, gc=False, tag="cancelled"):
    """What was left is withdrawn, on request, by its time in force or by the venue (expired, done for day)."""


class Replaced(_Report, frozen=True, kw_only=True, gc=False, tag="replaced"):
    """The order stands at its new price and total size."""

    price_ticks: int
    lots: int

    def _check(self) -> None:
        _integer("price_ticks", self.price_ticks, 1, PRICE_TICKS_MAX)
        _integer("lots", self.lots, 1, LOTS_MAX)


class ReplaceRejected(_Report, frozen=True, kw_only=True, gc=False, tag="replace_rejected"):
    """The order stands as it was."""

    reason: str


class CancelRejected(_Report, frozen=True, kw_only=True, gc=False, tag="cancel_rejected"):
    """Nothing was cancelled: too late, or unknown."""

    reason: str


class Busted(_Report, frozen=True, kw_only=True, gc=False, tag="busted"):
    """The venue takes an execution back."""

    exec_id: str

    def _check(self) -> None:
        _text("exec_id", self.exec_id)


class Corrected(_Report, frozen=True, kw_only=True, gc=False, tag="corrected"):
    """The venue changes an execution: what `exec_id` says now stands."""

    exec_id: str
    price_ticks: int
    lots: int

    def _check(self) -> None:
        _text("exec_id", self.exec_id)
        _integer("price_ticks", self.price_ticks, 1, PRICE_TICKS_MAX)
        _integer("lots", self.lots, 1, LOTS_MAX)


Report = Acked | Rejected | Filled | Cancelled | Replaced | ReplaceRejected | CancelRejected | Busted | Corrected

_T = TypeVar("_T")
_ENCODER = msgspec.json.Encoder()
_REQUESTS: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_REPORTS: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def encode(value: Any) -> bytes:
    """The one encoding of a request, a report or a decision."""
    return _ENCODER.encode(value)


def decode_exactly(decoder: "msgspec.json.Decoder[_T]", raw: bytes) -> _T:
    """Decode what `encode` gave.

    Raises ContractError for anything else, a different spelling of a right value included.
    """
    try:
        value = decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not a message of this contract: {error}") from error
    if _ENCODER.encode(value) != raw:
        raise ContractError("the message is not in its one encoding: fields in order, once, without spaces")
    return value


def decode_request(raw: bytes) -> Request:
    """A ChildOrder, Replace or Cancel from its bytes. Raises ContractError."""
    return decode_exactly(_REQUESTS, raw)


def decode_report(raw: bytes) -> Report:
    """A venue's report from its bytes. Raises ContractError."""
    return decode_exactly(_REPORTS, raw)
