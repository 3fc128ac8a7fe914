"""Every change of the gateway's state, as a value: what the journal holds and what `State.apply` takes, nothing else.

An event carries all that its effect depends on (the reference price used, the amount reserved), so that replay needs no
clock, no feed and no configuration. `utc_ns` is never below that of the event before (the gateway's high-water mark).
"""

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serving.contracts.decisions import Denied
from serving.contracts.orders import INT64_MAX, LOTS_MAX, PRICE_TICKS_MAX, Report, Request

Scope = Literal["all", "venue", "account", "strategy", "symbol"]
ProposedKind = Literal["limits", "day", "access"]
Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Amount = Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]
Lots = Annotated[int, Meta(ge=-LOTS_MAX, le=LOTS_MAX)]
Ticks = Annotated[int, Meta(ge=1, le=PRICE_TICKS_MAX)]


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="event"):
    utc_ns: Count


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What the gateway must know of a symbol before it lets an order in it through."""

    symbol: str
    tick_value: Annotated[int, Meta(ge=1, le=10**12)]  # minor units a lot and tick
    mark_ticks: Ticks  # the last close: values positions until the feed speaks
    adv_lots: Annotated[int, Meta(ge=1, le=LOTS_MAX)]  # average daily volume
    min_lots: Annotated[int, Meta(ge=1, le=LOTS_MAX)] = 1
    lot_multiple: Annotated[int, Meta(ge=1, le=LOTS_MAX)] = 1  # sizes are multiples of it
    price_multiple: Annotated[int, Meta(ge=1, le=PRICE_TICKS_MAX)] = 1  # prices are multiples of it
    needs_locate: bool = True  # False where selling short needs none, as with futures


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A position at the start of the day, marked at the instrument's last close."""

    account: str
    strategy: str
    symbol: str
    lots: Lots


class Locate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Shares that a lender holds ready for an account to sell short today."""

    account: str
    symbol: str
    lots: Annotated[int, Meta(ge=0, le=LOTS_MAX)]


class Opened(_Event, frozen=True, kw_only=True, gc=False, tag="opened"):
    """A process took the journal: halted, nothing reconciled, no approval pending."""

    epoch: Count


class Accepted(_Event, frozen=True, kw_only=True, gc=False, tag="accepted"):
    """A request passed every control: reserved from here on, sent once this is on disk."""

    request: Request
    order_id: Count
    request_id: Count  # what the venue sees; that of a new order is its order_id
    unit_value: Count  # minor units reserved a lot
    mark_ticks: Count  # the reference then; 0 for a cancel


class Refused(_Event, frozen=True, kw_only=True, gc=False, tag="refused"):
    """A request was denied; kept so that its key answers the same for ever."""

    request: Request
    denied: Denied


class CancelSent(_Event, frozen=True, kw_only=True, gc=False, tag="cancel_sent"):
    """The gateway cancels by itself.

    Kill switch, dead-man timer, disconnect, a reduce-only order that could now flip.
    """

    order_id: Count
    request_id: Count
    reason: str


class Unsent(_Event, frozen=True, kw_only=True, gc=False, tag="unsent"):
    """An accepted request never reached the venue: vetoed at the last line, or unknown to the venue after a restart."""

    order_id: Count
    what: Literal["new", "replace", "cancel"]
    reason: str


class Reported(_Event, frozen=True, kw_only=True, gc=False, tag="reported"):
    """The venue said something about an order."""

    venue: str
    report: Report


class Marked(_Event, frozen=True, kw_only=True, gc=False, tag="marked"):
    """New marks for symbols that are held: profit, loss and exposure follow."""

    marks: tuple[tuple[str, Ticks], ...]


class DayStarted(_Event, frozen=True, kw_only=True, gc=False, tag="day_started"):
    """The day's book as the operator states it. Counters begin at zero; kills, limits and postures stay."""

    date: str  # ISO, UTC; must be later than the day before
    opens_ns: Count
    closes_ns: Count
    instruments: tuple[Instrument, ...]
    holdings: tuple[Holding, ...] = ()
    locates: tuple[Locate, ...] = ()
    restricted: tuple[str, ...] = ()


class DayTightened(_Event, frozen=True, kw_only=True, gc=False, tag="day_tightened"):
    """A person lets less through for the rest of the day."""

    by: str
    restricted: tuple[str, ...] = ()  # more of them
    locates: tuple[Locate, ...] = ()  # fewer lots than before
    adv_lots: tuple[tuple[str, Annotated[int, Meta(ge=1, le=LOTS_MAX)]], ...] = ()  # by symbol, less than before
    needs_locate: tuple[str, ...] = ()


class DayEnded(_Event, frozen=True, kw_only=True, gc=False, tag="day_ended"):
    """No order is open any more; the order table and the day's keys are dropped."""

    date: str


class LimitsSet(_Event, frozen=True, kw_only=True, gc=False, tag="limits_set"):
    """These limits hold from here on."""

    document: str  # canonical JSON
    why: str
    change: str = ""  # the hash that was approved


class Proposed(_Event, frozen=True, kw_only=True, gc=False, tag="proposed"):
    """Looser limits, a day's book, or more people and clients wait for two people."""

    change: str
    document: str
    by: str
    expires_ns: Count
    kind: ProposedKind = "limits"  # before there were others it was not written


class Approved(_Event, frozen=True, kw_only=True, gc=False, tag="approved"):
    """A person approves one exact change."""

    change: str
    by: str


class Withdrawn(_Event, frozen=True, kw_only=True, gc=False, tag="withdrawn"):
    """A proposal expired, was overtaken by another change, or lost a person who had approved it."""

    change: str
    why: str


class AccessSet(_Event, frozen=True, kw_only=True, gc=False, tag="access_set"):
    """These people may command and these clients send orders from here on: what the two files said, or less."""

    access: str  # sha256 over who may do what
    why: str
    change: str = ""  # the hash that was approved


class PostureSet(_Event, frozen=True, kw_only=True, gc=False, tag="posture_set"):
    """A risk model shrinks a scope's limits to `factor_bps` of themselves for a while."""

    scope: Scope
    name: str
    factor_bps: Annotated[int, Meta(ge=0, le=10_000)]
    expires_ns: Count
    lasts_ns: Count
    by: str


class PostureEnded(_Event, frozen=True, kw_only=True, gc=False, tag="posture_ended"):
    """A posture expired."""

    scope: Scope
    name: str


class Killed(_Event, frozen=True, kw_only=True, gc=False, tag="killed"):
    """Nothing new leaves for this scope until a person re-arms it."""

    scope: Scope
    name: str
    by: str
    reason: str


class LiquidationOrdered(_Event, frozen=True, kw_only=True, gc=False, tag="liquidation_ordered"):
    """One of the two people who let reduce-only orders through a kill."""

    scope: Scope
    name: str
    by: str
    expires_ns: Count


class LiquidationEnded(_Event, frozen=True, kw_only=True, gc=False, tag="liquidation_ended"):
    """Reduce-only orders are blocked again."""

    scope: Scope
    name: str


class Rearmed(_Event, frozen=True, kw_only=True, gc=False, tag="rearmed"):
    """A person lifts a kill, the book being reconciled."""

    scope: Scope
    name: str
    by: str


class Halted(_Event, frozen=True, kw_only=True, gc=False, tag="halted"):
    """The whole gateway refuses new orders: something failed, or a person said so."""

    reason: str


class Reconciled(_Event, frozen=True, kw_only=True, gc=False, tag="reconciled"):
    """The book was compared with the venue's and with the drop copy; no break was left where `breaks` is empty."""

    breaks: tuple[str, ...]


class Armed(_Event, frozen=True, kw_only=True, gc=False, tag="armed"):
    """A person lets new orders through."""

    by: str


class Enabled(_Event, frozen=True, kw_only=True, gc=False, tag="enabled"):
    """A person resets what tripped in a scope: repeated executions, rejects, a venue's false fills."""

    scope: Scope
    name: str
    by: str


class Snapshot(_Event, frozen=True, kw_only=True, gc=False, tag="snapshot"):
    """The whole state, first record of a new file; `state_hash` is what the file before ended with."""

    state: msgspec.Raw
    state_hash: str


Event = (
    Opened
    | Accepted
    | Refused
    | CancelSent
    | Unsent
    | Reported
    | Marked
    | DayStarted
    | DayTightened
    | DayEnded
    | LimitsSet
    | Proposed
    | Approved
    | Withdrawn
    | AccessSet
    | PostureSet
    | PostureEnded
    | Killed
    | LiquidationOrdered
    | LiquidationEnded
    | Rearmed
    | Halted
    | Reconciled
    | Armed
    | Enabled
    | Snapshot
)

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


encode_event: Callable[[Event], bytes] = _ENCODER.encode
"""JSON of an event; the same event gives the same bytes. The encoder's own method: a call less for each order."""


def decode_event(raw: bytes) -> Event:
    """An event from its bytes. Raises ValueError (msgspec.ValidationError, ContractError) naming what is wrong."""
    return _DECODER.decode(raw)
