"""A day in lockstep without a wire: venue, feed, parents' core and policies in one process, and an order port that
allows everything. What the processes do over sockets happens here in one thread, in the one order that lockstep has.
"""

import asyncio
from dataclasses import dataclass, field

from serving.contracts.decisions import Allowed
from serving.contracts.orders import (
    Acked,
    Cancel,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Filled,
    Rejected,
    Replaced,
    ReplaceRejected,
)
from serving.parents.core import Core
from serving.parents.outputs import AccountRules, CoreRules, ParentRequest
from serving.parents.records import Decided
from serving.parents.state import State
from serving.wire.feed import Until
from serving.wire.feed_state import Follower, Publisher
from serving.wire.messages import CancelOrder, NewOrder, ReplaceOrder
from training.market.venue.core import CancelReject, Execution, Shown, Venue
from training.market.venue.depth_world import DepthWorld
from training.market.venue.world import Row

ACCOUNT, STRATEGY, UTC0 = "main", "policy", 1_800_000_000_000_000_000


@dataclass
class LiveDay:
    """What a day gave."""

    core: Core
    decisions: dict[str, list[Decided]] = field(default_factory=dict)  # by parent id

    def parent(self, parent_id):
        return self.core.state.find(ACCOUNT, parent_id)

    def fills(self, parent_id):
        """(ts_ns, price, lots) of a parent, in time order."""
        found = []
        for child in self.parent(parent_id).children.values():
            found += [(e.ts_ns, e.mark.price_ticks, e.mark.lots) for e in child.executions.values()]
        return sorted(found)


class _Port:
    """An order port that allows everything, and the venue behind it."""

    def __init__(self, venue):
        self.venue, self.keys, self.orders, self.requests = venue, {}, {}, 0
        self.last = {}

    def take(self, request):
        """Send a request on; gives the decision."""
        if isinstance(request, ChildOrder):
            number = len(self.keys) + 1
            self.keys[request.key], self.orders[number] = number, request
            self.last[number] = cl = f"{number}"
            message = NewOrder(
                cl, request.account, request.symbol, request.side, request.type, request.price_ticks, request.lots,
                request.tif, strategy=request.strategy, link=request.key.rpartition("/")[0],
            )  # fmt: skip
        else:
            number = self.keys[request.order_key]
            first = self.orders[number]
            self.requests += 1
            orig, cl = self.last[number], f"{number}-{self.requests}"
            if isinstance(request, Cancel):
                message = CancelOrder(cl, orig, first.symbol, first.side, request.strategy)
            else:
                message = ReplaceOrder(
                    cl, orig, first.symbol, first.side, request.price_ticks, request.lots, request.strategy
                )
        self.venue.take("GATEWAY", message)
        return Allowed(key=request.key, order_id=number, algorithm=request.algorithm, trader=request.trader)

    def report(self, told):
        """What the gateway would make of what the venue tells."""
        if isinstance(told, CancelReject):
            number = int(told.orig.partition("-")[0])
            kind = CancelRejected if told.to == "cancel" else ReplaceRejected
            return kind(order_id=number, ts_ns=told.ts_ns, reason=told.reason)
        assert isinstance(told, Execution)
        number = int(told.state.cl_ord_id.partition("-")[0])
        common = {"order_id": number, "ts_ns": told.ts_ns}
        if told.what == "new":
            return Acked(**common)
        if told.what == "trade":
            return Filled(**common, exec_id=told.exec_id, price_ticks=told.last[0], lots=told.last[1])
        if told.what in ("cancelled", "expired"):
            return Cancelled(**common)
        if told.what == "replaced":
            self.last[number] = told.state.cl_ord_id
            return Replaced(**common, price_ticks=told.state.price_ticks, lots=told.state.lots)
        assert told.what == "rejected", told
        return Rejected(**common, reason=told.text or "")


def play_live(day, parents, policies, *, step_s=1.0, fill_model="conservative", latency_ns=None):
    """Work `parents` (ParentRequest) of a MarketDay with `policies` (PolicyClient) in lockstep."""
    return asyncio.run(_play(day, parents, policies, step_s, fill_model, latency_ns))


async def _play(day, parents, policies, step_s, fill_model, latency_ns):
    symbol = day.instrument.symbol
    world = DepthWorld(day, latency_ns, fill_model)
    venue, port = Venue({symbol: world}), None
    port = _Port(venue)
    publisher = Publisher("SYN", "s", {symbol: world}, True)
    follower = Follower([symbol])
    rules = CoreRules("SYN", {ACCOUNT: AccountRules(STRATEGY, "twap", "desk")}, max_parents=10_000)
    core = Core(rules, {symbol: day.instrument}, State(), "test", UTC0)
    found = LiveDay(core)
    core.on_policies(await policies.policies())
    core.line_up(ACCOUNT)
    for request in parents:
        core.submit(request, UTC0)
    follower.connected()

    def hear(raw):
        for event in follower.take(raw):
            if not isinstance(event, Until):
                core.on_feed(event)

    hear(publisher.snapshot(symbol))

    async def settle():
        while True:
            out = core.drain()
            for record in out.records:
                if isinstance(record, Decided):
                    found.decisions.setdefault(core.state.parents[record.number].parent_id, []).append(record)
            if not out.sends and not out.asks:
                return
            for outgoing in out.sends:
                decision = port.take(outgoing.request)
                core.answered(outgoing.account, decision, UTC0)
            for ask in out.asks:
                if ask.features is not None:
                    core.forecasted(ask.ask_id, await policies.forecast(ask.sha256, ask.features), UTC0)
                else:
                    core.decided(ask.ask_id, await policies.decide(ask.sha256, ask.observation, ask.mask), UTC0)
            tell(venue.drain())

    def tell(outputs):
        for output in outputs:
            if not isinstance(output, Shown):
                core.reported(ACCOUNT, port.report(output), UTC0)
            elif isinstance(output.what, Row):
                row = output.what
                raw = publisher.row(symbol, row.ts_ns, row.bids, row.asks, row.trade)
                if raw is not None:
                    hear(raw)
            else:
                raw = publisher.status(symbol, output.what.ts_ns, output.what.status)
                if raw is not None:
                    hear(raw)

    step_ns = int(step_s * 1e9)
    tell(venue.advance(venue.now_ns))
    while True:
        core.advance(venue.now_ns, UTC0)
        await settle()
        if venue.now_ns >= venue.closes_ns or not core.state.working:
            return found
        tell(venue.advance(min(venue.now_ns + step_ns, venue.closes_ns)))


def requests_of(day, parents):
    """PARENT_DTYPE rows of one day as requests, numbered."""
    return [
        ParentRequest(
            f"p{i}", ACCOUNT, day.instrument.symbol, int(row["side"]), int(row["lots"]), int(row["horizon_ns"]),
            int(row["start_ns"]),
        )
        for i, row in enumerate(parents)
    ]  # fmt: skip
