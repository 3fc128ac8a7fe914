"""What people see of the gateway, kept in memory: counts of decisions, latencies, the last denials and events.

Fed with events once they are durable, in the deciding thread; read in any thread. Rings are bounded, counts only grow.
"""

import time
from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from serving.contracts.orders import ChildOrder
from serving.gateway import events as e
from serving.gateway.state import State

DENIALS_KEPT = 10_000
EVENTS_KEPT = 20_000
BUCKETS_US = (
    50,
    100,
    200,
    300,
    500,
    750,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    1_000_000,
)
_SHOWN: dict[type, str] = {
    e.Accepted: "decision", e.Refused: "denial", e.CancelSent: "cancel", e.Unsent: "unsent", e.Reported: "report",
    e.DayStarted: "day", e.DayTightened: "day", e.DayEnded: "day", e.LimitsSet: "limits", e.Proposed: "proposal",
    e.Approved: "proposal", e.Withdrawn: "proposal", e.AccessSet: "access", e.PostureSet: "posture",
    e.PostureEnded: "posture", e.Killed: "kill", e.Rearmed: "kill", e.LiquidationOrdered: "kill",
    e.LiquidationEnded: "kill", e.Halted: "standing", e.Armed: "standing", e.Reconciled: "standing",
    e.Enabled: "standing", e.Opened: "standing",
}  # fmt: skip
"""Marks and snapshots are too many, or too large, to be shown."""


class Histogram:
    """Counts by bucket; `add` is a bisection, so that the deciding thread hardly feels it."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_US) + 1)
        self.sum_us = 0.0

    def add(self, value_us: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(BUCKETS_US, value_us)] += times
        self.sum_us += value_us * times

    def buckets(self) -> list[tuple[str, int]]:
        """Cumulative counts by upper bound in seconds, as Prometheus wants them."""
        found, total = [], 0
        for bound, count in zip((*BUCKETS_US, None), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound is None else repr(bound / 1e6), total))
        return found


class Shown(NamedTuple):
    """One entry of a ring. `n` counts on, so that a reader knows what he missed."""

    n: int
    utc_ns: int
    kind: str
    body: dict[str, Any]


class Observing:
    """A listener of the service."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.allowed = {"new": 0, "replace": 0, "cancel": 0}
        self.denied: dict[str, int] = {}  # by control
        self.reports: dict[str, int] = {}  # by kind
        self.answer = Histogram()  # from a request's arrival until it is durable, sent and answered
        self.denials: deque[Shown] = deque(maxlen=DENIALS_KEPT)
        self.events: deque[Shown] = deque(maxlen=EVENTS_KEPT)
        self.groups = self.decisions = 0
        self._n = 0

    def hear(self, event: e.Event) -> None:
        """Count an event and keep what people want to see of it."""
        kind = _SHOWN.get(type(event))
        if kind is None:
            return
        if type(event) is e.Accepted:
            what = "new" if type(event.request) is ChildOrder else type(event.request).__name__.lower()
            self.allowed[what] += 1
            return  # an order is shown with what became of it, not twice
        if type(event) is e.Reported:
            name = type(event.report).__name__.lower()
            self.reports[name] = self.reports.get(name, 0) + 1
        elif type(event) is e.Refused:
            control = event.denied.control
            self.denied[control] = self.denied.get(control, 0) + 1
        self._n += 1
        shown = Shown(self._n, event.utc_ns, kind, _body(event, self._state))
        self.events.append(shown)
        if kind == "denial":
            self.denials.append(shown)

    def took(self, requests: int, ns: int) -> None:
        """A group of requests was answered `ns` after its first one came."""
        self.groups += 1
        self.decisions += requests
        self.answer.add(ns / 1000, requests)

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Show something that is no event of the journal: an alert."""
        self._n += 1
        self.events.append(Shown(self._n, time.time_ns(), kind, body))

    @property
    def last(self) -> int:
        """The number of the last entry."""
        return self._n


def _body(event: e.Event, state: State) -> dict[str, Any]:
    if type(event) is e.Refused:
        request, denied = event.request, event.denied
        return {
            "control": denied.control, "message": denied.message, "value": denied.value, "limit": denied.limit,
            "key": request.key, "account": request.account, "strategy": request.strategy,
            "symbol": getattr(request, "symbol", ""), "algorithm": request.algorithm, "trader": request.trader,
        }  # fmt: skip
    if type(event) is e.Reported:
        report = event.report
        order = state.orders.get(report.order_id)
        body = {"what": type(report).__name__.lower(), "venue": event.venue, "order_id": report.order_id}
        for name in ("price_ticks", "lots", "exec_id", "reason"):
            if (value := getattr(report, name, None)) is not None:
                body[name] = value
        if order is not None:
            request = order.request
            body |= {"account": request.account, "strategy": request.strategy, "symbol": request.symbol,
                     "side": request.side}  # fmt: skip
        return body
    names = [name for name in event.__struct_fields__ if name not in ("utc_ns", "document", "instruments", "kind")]
    body = {"what": type(event).__name__.lower(), **{name: getattr(event, name) for name in names}}
    if type(event) is e.Proposed:
        body["of"] = event.kind  # an entry's own kind is "proposal"
    return {name: value for name, value in body.items() if isinstance(value, str | int | bool | tuple | None)}
