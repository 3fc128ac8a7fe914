"""What is written to the journal of parents: every event that a parent's state depends on, and its one encoding.

`serving.parents.state.State.apply` is the only way that durable state changes, live and in replay. Market data,
features and queues are not here: after a restart they are learned again from the feed.
"""

from typing import Any

import msgspec

from serving.contracts.decisions import Decision
from serving.contracts.orders import Report, Request
from serving.parents.orders import How, Kind, Parent, Plan, Source


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", gc=False):
    utc_ns: int


class Opened(_Record, frozen=True, kw_only=True, gc=False, tag="opened"):
    """A process took the journal; `birth` names the journal in every key, and never changes."""

    birth: str


class Session(_Record, frozen=True, kw_only=True, gc=False, tag="session"):
    """The feed is of this session; counts of messages begin anew with another one."""

    session: str


class Taken(_Record, frozen=True, kw_only=True, gc=False, tag="taken"):
    """A parent order was accepted."""

    number: int
    parent_id: str
    account: str
    strategy: str
    symbol: str
    venue: str
    side: int  # 1 buys, -1 sells
    lots: int
    horizon_ns: int
    start_ns: int  # 0: at once
    source: Source
    peer: str = ""  # who asked
    trader: str


class Began(_Record, frozen=True, kw_only=True, gc=False, tag="began"):
    """The parent arrived: its decision price stands."""

    number: int
    market_ns: int
    mid2: int
    plan: Plan
    challenger: Plan | None = None


class Decided(_Record, frozen=True, kw_only=True, gc=False, tag="decided"):
    """The policy decided; `held` says why nothing was sent of it, or is empty."""

    number: int
    step: int
    market_ns: int
    seen: str  # the observation, base64 of little-endian float32
    mask: tuple[int, ...]
    action: tuple[float, ...]
    order: tuple[int, int, int]  # what it asks for: resting price and lots, lots to take
    held: str = ""


class Shadowed(_Record, frozen=True, kw_only=True, gc=False, tag="shadowed"):
    """The challenger decided on the same state; nothing of it is ever sent."""

    number: int
    step: int
    market_ns: int
    version: int
    sha256: str
    action: tuple[float, ...] = ()
    order: tuple[int, int, int] = (0, 0, 0)
    seen: str = ""  # as in Decided; its history is its own
    error: str = ""


class FellBack(_Record, frozen=True, kw_only=True, gc=False, tag="fell_back"):
    """The policy failed: from here on the fallback finishes the parent."""

    number: int
    market_ns: int
    reason: str


class Changed(_Record, frozen=True, kw_only=True, gc=False, tag="changed"):
    """The parent has another total size."""

    number: int
    lots: int
    parent_id: str = ""  # the id that it goes by from here on (FIX replace), "" for the same


class Cancelling(_Record, frozen=True, kw_only=True, gc=False, tag="cancelling"):
    """The parent shall end: what is open is cancelled, nothing is sent any more."""

    number: int
    reason: str


class Finishing(_Record, frozen=True, kw_only=True, gc=False, tag="finishing"):
    """The horizon is over: what is left is swept. `filled` were done before."""

    number: int
    market_ns: int
    filled: int


class Ended(_Record, frozen=True, kw_only=True, gc=False, tag="ended"):
    """The parent is done; nothing of it is open. `tca` is its cost analysis."""

    number: int
    market_ns: int
    how: How
    reason: str = ""
    tca: dict[str, Any] = {}


class Restated(_Record, frozen=True, kw_only=True, gc=False, tag="restated"):
    """What the venue said of a parent's orders after its end changed its cost."""

    number: int
    market_ns: int
    tca: dict[str, Any]


class Sent(_Record, frozen=True, kw_only=True, gc=False, tag="sent"):
    """A request goes to the gateway; it is journalled before it leaves, and repeated as these very bytes."""

    number: int
    market_ns: int
    request: Request
    of: Kind = "rest"
    crossing: bool = False  # a replace that takes: what then rests of it is cancelled


class Answered(_Record, frozen=True, kw_only=True, gc=False, tag="answered"):
    """The gateway answered a request; `now_ns` of the market, from which a denial holds its parent back."""

    decision: Decision
    market_ns: int


class Lost(_Record, frozen=True, kw_only=True, gc=False, tag="lost"):
    """An order that was sent never arrived at the gateway, as the answer to a cancel said; it is not sent again."""

    key: str
    cancel_key: str


class Heard(_Record, frozen=True, kw_only=True, gc=False, tag="heard"):
    """What the venue said of an order, with the market of that moment where it is a fill."""

    account: str
    report: Report
    mid2: int = 0
    best_ticks: int = 0
    passive: bool = False


class Snapshot(_Record, frozen=True, kw_only=True, tag="snapshot"):
    """The state with which a file of the journal begins; parents that ended before the last roll are forgotten."""

    birth: str
    session: str
    taken: int  # parents so far
    parents: list[Parent]
    ids: list[tuple[str, str, int]]  # account, parent id, number: each that a parent goes or went by
    unanswered: list[Request]
    sent: dict[str, int]
    heard: dict[str, int]
    shadows: list[Shadowed]


Record = (
    Snapshot | Opened | Session | Taken | Began | Decided | Shadowed | FellBack | Changed | Cancelling | Finishing
    | Ended | Restated | Sent | Answered | Lost | Heard
)  # fmt: skip
_ENCODER = msgspec.json.Encoder()
_DECODER: "msgspec.json.Decoder[Record]" = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """The encoding that is journalled."""
    return _ENCODER.encode(record)


def decode_record(raw: bytes) -> Record:
    """A record from its encoding. Raises ValueError (msgspec's) where it is none, or holds what cannot be."""
    return _DECODER.decode(raw)
