"""What the core is set up with, what it holds of each parent beside the journal, and what it wants done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.pipeline.kernels import NS
from serving.contracts.orders import Request
from serving.contracts.stacking import ObservationStack
from serving.parents.market import SymbolMarket
from serving.parents.orders import Parent, Plan
from serving.parents.queue import QueueTracker
from serving.parents.records import Record


@dataclass(frozen=True)
class AccountRules:
    """What is sent for an account."""

    strategy: str  # where a parent names none
    fallback_strategy: str  # under which the fallback finishes a parent
    trader: str  # the person responsible, where a parent names none


@dataclass(frozen=True)
class CoreRules:
    """Settings of the core. Times are of the market, ns."""

    venue: str
    accounts: Mapping[str, AccountRules]
    max_lots: int = 1_000_000  # of a parent
    max_horizon_ns: int = 24 * 3600 * NS
    max_parents: int = 200  # not yet done, of all accounts together
    fallback_interval_ns: int = 30 * NS  # a slice of the fallback where no policy gave one
    room_ns: int = 5 * NS  # after the horizon, in which the sweep may be repeated
    again_ns: int = NS  # between two attempts to take
    backoff_ns: int = NS  # after a denial; doubles with each in a row
    backoff_max_ns: int = 30 * NS
    patience_ns: int = (
        90 * NS
    )  # without features or a book before the fallback takes over; a fifth of the horizon at most
    failures: int = 3  # answers in a row that did not come before the fallback takes over
    stale_ns: int = 2 * NS  # an unanswered order older than this is not repeated after a lost line, but cancelled
    max_feed_lag_ns: int = (
        2 * NS
    )  # of the clock: a feed whose messages take longer, or come from ahead, is not acted on
    algorithm: str = "shortfall"  # registered id, as the gateway and the venue see it


class Refusal(ValueError):
    """A parent order, or a change of one, that is not taken; `what` says of which kind."""

    def __init__(self, what: Literal["invalid", "unknown", "conflict", "busy"], message: str) -> None:
        super().__init__(message)
        self.what = what


class ParentRequest(NamedTuple):
    """A parent order as it is asked for; `strategy` and `trader` "" for the account's own, `start_ns` 0 for at once."""

    parent_id: str
    account: str
    symbol: str
    side: int
    lots: int
    horizon_ns: int
    start_ns: int = 0
    strategy: str = ""
    trader: str = ""
    source: Literal["http", "fix"] = "http"
    peer: str = ""


class Ask(NamedTuple):
    """A question for the policy service; answered by `Core.decided` or `Core.forecasted` with its number."""

    ask_id: int
    parent: int
    shadow: bool
    sha256: str
    features: NDArray[np.float32] | None  # (L, F): a forecast is wanted; else a decision on:
    observation: NDArray[np.float32] | None = None  # (stack x D,)
    mask: NDArray[np.float32] | None = None  # (4,)


class Outgoing(NamedTuple):
    """A request for the gateway, by the line of this account."""

    account: str
    request: Request


class Alert(NamedTuple):
    """Something that a person should know."""

    what: str
    message: str
    fields: dict[str, Any]


@dataclass
class Outputs:
    """What is to be done, in this order: journal the records, then send, then ask and tell."""

    records: list[Record] = field(default_factory=list)
    sends: list[Outgoing] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)


class Question(NamedTuple):
    """What an ask was about."""

    ask: Ask
    plan: Plan
    step: int
    moment_ns: int
    seen: NDArray[np.float32] | None  # the present observation alone
    mask: NDArray[np.float32] | None


@dataclass
class Bench:
    """The parent's window without the parent: time-weighted mid, and the even schedule at the opposite best."""

    from_ns: int
    place: int  # number of the last row counted
    at_ns: int
    mid2: int
    area: int = 0  # twice the mid times ns
    slices: int = 0  # counted so far
    touch_cost: int = 0  # ticks times lots
    touch_lots: int = 0
    whole: bool = True  # nothing of the window was missed


@dataclass
class Run:
    """What the core holds of a parent at work and can do without after a restart."""

    market: SymbolMarket
    waiting_ns: int = 0  # since when it waits for its market
    due_ns: int = 0
    due_row: int = -1  # on the event grid: the row that ends the pause
    question: Question | None = None
    shadow: Question | None = None
    missing_ns: int = 0  # since when it could not be decided
    failures: int = 0
    not_before_ns: int = 0
    tried_ns: int = -1  # the last attempt to take
    queue: QueueTracker | None = None
    history: ObservationStack | None = None
    shadow_history: ObservationStack | None = None
    bench: Bench | None = None
    waits_for: str = ""  # why nothing happens

    def hold(self, why: str, parent: Parent) -> bool:
        """Note why the parent waits; whether that is news."""
        news = self.waits_for != why and bool(why) and not parent.is_ended
        self.waits_for = why
        return news
