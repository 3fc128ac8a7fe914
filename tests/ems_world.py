"""The EMS's core between a venue in process, a gateway that only numbers, and policies that a test writes."""

import numpy as np

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import (
    Acked,
    Cancel,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Filled,
    Rejected,
    Replace,
    Replaced,
    ReplaceRejected,
)
from serving.decide.protocol import DecideError, Policies, Policy, PolicyDecision
from serving.parents.core import Core
from serving.parents.outputs import AccountRules, CoreRules, ParentRequest
from serving.parents.state import State
from serving.wire.feed import Opening
from serving.wire.feed_state import Follower, Publisher
from serving.wire.messages import CancelOrder, NewOrder, ReplaceOrder
from training.market.venue.core import CancelReject, Execution, Shown, Venue
from training.market.venue.world import Row

NS = 1_000_000_000
SHA = "a" * 64
ACCOUNT, STRATEGY, FALLBACK = "main", "agent", "twap_fallback"


def rules(**more):
    accounts = {ACCOUNT: AccountRules(STRATEGY, FALLBACK, "ada")}
    return CoreRules(venue="TEST", accounts=accounts, **more)


def policy(sha256=SHA, version=1, action_set="discrete", stack=1, signal_window=0, feature_names=(), horizons_s=(),
           **execution):  # fmt: skip
    made_for = {"decision_interval_s": 30, "decisions_per_slice": 1, "ahead_slices": 1, **execution}
    return Policy(version, sha256, "static", action_set, stack, made_for, feature_names, signal_window, horizons_s)


def request(parent_id="p1", lots=200, side=1, horizon_ns=600 * NS, symbol="T", **more):
    return ParentRequest(parent_id, ACCOUNT, symbol, side, lots, horizon_ns, **more)


class Numbering:
    """A gateway that allows what `deny` does not deny, keeps first answers, and repeats an order's reports."""

    def __init__(self, venue):
        self.venue = venue
        self.first = {}  # key: (request, decision)
        self.orders = {}  # order id: ChildOrder
        self.ids = {}  # order key: order id
        self.reports = {}  # order id: reports so far
        self.next_id = 1
        self.deny = lambda request: None
        self.sent = []  # what went to the venue, in order

    def take(self, request):
        """Reports of a repeated order, and the decision."""
        known = self.first.get(request.key)
        if known is not None:
            same = known[0] == request
            if not same:
                return [], Denied(control="idempotency", message="another payload", key=request.key)
            order_id = self.ids.get(request.key)
            return list(self.reports.get(order_id, ())), known[1]
        denied = self.deny(request)
        if denied is None and not isinstance(request, ChildOrder) and request.order_key not in self.ids:
            denied = Denied(control="order", message=f"no order with key {request.order_key} of this strategy")
        if denied is not None:
            decision = Denied(
                control=denied.control, message=denied.message, value=denied.value, limit=denied.limit, key=request.key
            )
        else:
            number, self.next_id = self.next_id, self.next_id + 1
            order_id = number if isinstance(request, ChildOrder) else self.ids[request.order_key]
            if isinstance(request, ChildOrder):
                self.ids[request.key], self.orders[order_id], self.reports[order_id] = order_id, request, []
            decision = Allowed(key=request.key, order_id=order_id, algorithm="a", trader="t")
            self.sent.append(request)
            if self.venue is not None:
                self.venue.take("G", self._message(request, order_id, number))
        self.first[request.key] = (request, decision)
        return [], decision

    def _message(self, request, order_id, number):
        first = self.orders[order_id]
        own = str(order_id) if order_id == number else f"{order_id}-{number}"
        if isinstance(request, ChildOrder):
            return NewOrder(
                own, request.account, request.symbol, request.side, request.type, request.price_ticks, request.lots,
                request.tif, strategy=request.strategy, link=request.key.partition("/")[0],
            )  # fmt: skip
        if isinstance(request, Replace):
            return ReplaceOrder(
                own, str(order_id), first.symbol, first.side, request.price_ticks, request.lots, request.strategy
            )
        assert isinstance(request, Cancel)
        return CancelOrder(own, str(order_id), first.symbol, first.side, request.strategy)

    def report_of(self, told):
        """The report of what the venue tells."""
        if isinstance(told, CancelReject):
            head = {"order_id": int(told.orig.partition("-")[0]), "ts_ns": told.ts_ns, "reason": told.reason}
            report = CancelRejected(**head) if told.to == "cancel" else ReplaceRejected(**head)
        else:
            head = {"order_id": int(told.state.cl_ord_id.partition("-")[0]), "ts_ns": told.ts_ns}
            if told.what == "trade":
                report = Filled(**head, exec_id=told.exec_id, price_ticks=told.last[0], lots=told.last[1])
            elif told.what == "rejected":
                report = Rejected(**head, reason=told.text or "none")
            elif told.what == "replaced":
                report = Replaced(**head, price_ticks=told.state.price_ticks, lots=told.state.lots)
            else:
                report = {"new": Acked, "cancelled": Cancelled, "expired": Cancelled}[told.what](**head)
        self.reports[report.order_id].append(report)
        return report


class Ems:
    """A core in lockstep with a venue in process. `decide(observation, mask)` gives the champion's action."""

    def __init__(self, world, instrument, decide, champion=None, challenger=None, shadow=None, core_rules=None,
                 start_ns=None, forecast=None):  # fmt: skip
        self.venue = Venue({instrument.symbol: world}, start_ns=start_ns)
        self.gateway = Numbering(self.venue)
        self.symbol, self.instrument = instrument.symbol, instrument
        self.publisher = Publisher("TEST", "s1", [self.symbol], True)
        self.follower = Follower([self.symbol])
        self.follower.connected()
        self.decide, self.shadow, self.forecast = decide, shadow, forecast
        self.policies = Policies(champion, challenger, tuple(item for item in (champion, challenger) if item))
        self.rules = core_rules or rules()
        self.records, self.alerts, self.asks = [], [], []
        self.line_is_up = True
        self.core = self.new_core(State())
        self._feed(self.publisher.opening)

    def new_core(self, state):
        core = Core(self.rules, {self.symbol: self.instrument}, state, "b1", 1)
        core.on_policies(self.policies if self.policies.champion else None)
        core.line_up(ACCOUNT)
        return core

    def _feed(self, message):
        from serving.contracts.orders import encode

        for event in self.follower.take(encode(message) if isinstance(message, Opening) else message):
            self.core.on_feed(event)
        wanted = self.follower.asks()
        if wanted is not None:
            for event in self.follower.take(self.publisher.snapshot(self.symbol)):
                self.core.on_feed(event)

    def advance(self, until_ns):
        """Let the venue play up to a moment, tell the core, and carry out what it wants."""
        reports = []
        for output in self.venue.advance(until_ns):
            if isinstance(output, Shown):
                what = output.what
                raw = (
                    self.publisher.row(self.symbol, what.ts_ns, what.bids, what.asks, what.trade)
                    if isinstance(what, Row)
                    else self.publisher.status(self.symbol, what.ts_ns, what.status)
                )
                if raw is not None:
                    self._feed(raw)
            elif isinstance(output, Execution | CancelReject):
                reports.append(self.gateway.report_of(output))
        for report in reports:
            if self.line_is_up:
                self.core.reported(ACCOUNT, report, until_ns)
        self.core.advance(until_ns, until_ns)
        self.settle()

    def settle(self):
        """Do what the core wants until it wants nothing."""
        while True:
            out = self.core.drain()
            self.records += out.records
            self.alerts += out.alerts
            if not out.sends and not out.asks:
                return
            for outgoing in out.sends:
                if not self.line_is_up:
                    continue
                reports, decision = self.gateway.take(outgoing.request)
                for report in reports:
                    self.core.reported(ACCOUNT, report, self.core.now_ns)
                self.core.answered(ACCOUNT, decision, self.core.now_ns)
            for ask in out.asks:
                self.asks.append(ask)
                self._answer(ask)

    def _answer(self, ask):
        now = self.core.now_ns
        if ask.features is not None:
            self.core.forecasted(ask.ask_id, self.forecast(ask.features), now)
            return
        decide = self.shadow if ask.shadow else self.decide
        try:
            action = decide(ask.observation, ask.mask)
        except DecideError as error:
            self.core.decided(ask.ask_id, error, now)
            return
        version = 2 if ask.shadow else 1
        self.core.decided(ask.ask_id, PolicyDecision(ask.sha256, version, action, ()), now)

    def run(self, until_ns, step_ns=NS):
        """Steps of the market up to a moment."""
        while self.venue.now_ns < until_ns:
            self.advance(min(self.venue.now_ns + step_ns, until_ns))


def seeded(seed, continuous=False):
    """Actions that are random but equal for equal observations: possible ones of the discrete set, any of the other."""

    def decide(observation, mask):
        digest = int(np.frombuffer(np.ascontiguousarray(observation).tobytes(), np.uint32).sum(dtype=np.uint64))
        rng = np.random.default_rng([seed, digest % 2**31])
        if continuous:
            return tuple(float(value) for value in rng.uniform(-1, 1, 2).astype(np.float32))
        return int(np.argmax(rng.random(4) * (np.asarray(mask) > 0.5)))

    return decide
