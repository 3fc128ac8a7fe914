"""A parent order and its child orders as the EMS knows them: integers in ticks, lots and ns."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import msgspec

from serving.contracts.orders import ChildOrder, Replace
from serving.contracts.tca import CostSums, FillMark

Source = Literal["http", "fix"]
How = Literal["filled", "cancelled", "expired", "rejected"]
Kind = Literal["rest", "cross"]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a parent is worked: the version that it began with, and the pace that this version was made for."""

    version: int = 0  # of the registry; 0 without a policy
    sha256: str = ""  # of the bundle; empty: the fallback from the beginning
    continuous: bool = False
    stack: int = 1
    interval_ns: int = 0  # a slice of the even schedule
    slices: int = 1
    per_slice: int = 1  # decisions a slice
    every_events: int = 0  # decide after so many book rows instead; 0: by the clock
    ahead: int = 1  # slices that may be asked for ahead of the schedule
    wait_keeps: bool = False  # waiting leaves what rests as it stands instead of cancelling it
    fill_model: str = "conservative"  # how the queue ahead of a resting order is estimated
    signal_window: int = 0  # rows that the signal model sees; 0: no forecasts
    feature_names: tuple[str, ...] = ()  # of the signal model
    horizons_s: tuple[int, ...] = ()

    @property
    def pause_ns(self) -> int:
        """Between two decisions by the clock."""
        return self.interval_ns // self.per_slice


class Phase(IntEnum):
    """Where a parent stands; it only ever goes on."""

    WAITING = 1  # for its start, or for a market
    WORKING = 2
    FINISHING = 3  # the horizon is over: what is left is swept
    CANCELLING = 4  # nothing is sent but cancels
    ENDED = 5


class Stage(IntEnum):
    """Where a child order stands."""

    UNANSWERED = 1  # sent, the gateway has not decided
    ALLOWED = 2  # on its way to the venue
    WORKING = 3  # the venue has it
    DONE = 4


@dataclass(slots=True)
class Execution:
    """A fill as it stands now, and the market that it met."""

    mark: FillMark
    ts_ns: int


@dataclass(slots=True)
class Child:
    """A child order. Until it is done, all that may still fill counts: `exposed`."""

    key: str
    parent: int
    request: ChildOrder
    kind: Kind
    sent_ns: int  # of the market
    stage: Stage = Stage.UNANSWERED
    order_id: int = 0
    price_ticks: int = 0
    lots: int = 0
    filled: int = 0
    replace: Replace | None = None  # unanswered by gateway or venue
    replace_crosses: bool = False
    cancel_key: str = ""  # of a cancel that is not answered
    stood_ns: int = 0  # when it met the market, at its present price and size
    crossing: bool = False  # its last replace was to take: what rests of it is unwanted
    executions: dict[str, Execution] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)  # reports but fills, by their encoding: how often
    reason: str = ""  # why it is done, where it was not filled

    @property
    def is_open(self) -> bool:
        """It may still fill."""
        return self.stage < Stage.DONE

    @property
    def is_settled(self) -> bool:
        """It rests at the venue and nothing about it is unanswered."""
        return self.stage is Stage.WORKING and self.replace is None and not self.cancel_key

    @property
    def exposed(self) -> int:
        """Lots that may still fill, in the worst case."""
        if self.stage is Stage.DONE:
            return 0
        total = self.lots if self.replace is None else max(self.lots, self.replace.lots)
        return max(0, total - self.filled)


@dataclass(slots=True)
class Denial:
    """The gateway's last denial, as it was told."""

    control: str
    message: str
    value: int | None
    limit: int | None
    market_ns: int


@dataclass(slots=True)
class Parent:
    """A parent order."""

    number: int
    ref: str  # the first part of its children's keys
    parent_id: str
    account: str
    strategy: str
    symbol: str
    venue: str
    side: int
    lots: int
    horizon_ns: int
    start_ns: int
    source: Source
    peer: str
    trader: str
    taken_ns: int  # UTC
    asked_lots: int  # as it was first asked for
    first_id: str  # the id that it was first asked for under
    phase: Phase = Phase.WAITING
    plan: Plan = field(default_factory=Plan)
    challenger: Plan | None = None
    began_ns: int = 0
    finished_ns: int = 0
    done_ns: int = 0  # when it ended, UTC
    arrival_mid2: int = 0
    in_time: int | None = None  # lots filled before the horizon's sweep
    fallback: str = ""  # why the policy no longer decides
    sums: CostSums = field(default_factory=lambda: CostSums(1, 0))
    children: dict[str, Child] = field(default_factory=dict)
    requests: int = 0  # sent so far: the next key's number
    step: int = 0  # decisions so far
    seen: list[str] = field(default_factory=list)  # the last observations, as recorded
    shadow_seen: list[str] = field(default_factory=list)  # the challenger's last
    last_decision: dict[str, Any] = field(default_factory=dict)
    denied: Denial | None = None
    denials: int = 0  # in a row
    reason: str = ""  # why it is being cancelled, or how it ended
    how: How | None = None
    tca: dict[str, Any] = field(default_factory=dict)

    @property
    def end_ns(self) -> int:
        """The horizon's end; 0 before the parent began."""
        return self.began_ns + self.horizon_ns if self.began_ns else 0

    @property
    def filled(self) -> int:
        """Lots filled, busts taken off."""
        return self.sums.filled

    @property
    def left(self) -> int:
        """Lots not filled."""
        return max(0, self.lots - self.sums.filled)

    @property
    def open_children(self) -> list[Child]:
        """Orders that may still fill, oldest first."""
        return [child for child in self.children.values() if child.stage is not Stage.DONE]

    @property
    def exposed(self) -> int:
        """Lots that open orders may still fill."""
        return sum(child.exposed for child in self.children.values())

    @property
    def free(self) -> int:
        """Lots that may be sent whatever becomes of the open orders."""
        return max(0, self.lots - self.sums.filled - self.exposed)

    @property
    def resting(self) -> Child | None:
        """The order that shall rest; there is one at most."""
        return next((c for c in self.children.values() if c.kind == "rest" and c.stage is not Stage.DONE), None)

    @property
    def is_ended(self) -> bool:
        """Nothing happens to it any more, but a late fill."""
        return self.phase is Phase.ENDED
