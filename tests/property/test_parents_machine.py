"""The EMS's core against a gateway, a venue and a feed that do anything: it never sends more than a parent lacks."""

from collections import Counter

import numpy as np
import pytest
from ems_world import ACCOUNT, FALLBACK, NS, STRATEGY, policy, request, rules
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from market_fixtures import instrument, open_ns

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import (
    Acked,
    Busted,
    Cancel,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Filled,
    Rejected,
    Replace,
    Replaced,
    ReplaceRejected,
    encode,
)
from serving.decide.protocol import DecideError, Policies, PolicyDecision
from serving.parents.core import Core
from serving.parents.orders import Phase
from serving.parents.outputs import Refusal
from serving.parents.records import Sent, decode_record, encode_record
from serving.parents.state import State
from serving.wire.feed import VERSION, Opening
from serving.wire.feed_state import Follower, Gap, Publisher

START = open_ns()
LOTS = st.integers(1, 60)
LIKELY = {
    "time": 30, "policy": 30, "gateway": 25, "venue": 20, "acks": 20, "reports": 12, "parent": 4, "back": 6,
    "break": 1.5, "kill": 0.2, "gap": 0.05, "status": 0.3, "changes": 1.5, "cancelled": 0.3, "roll": 0.3,
}  # fmt: skip
"""How often each thing happens in a long run, in parts of their sum."""


class Order:
    """An order as the venue has it."""

    def __init__(self, order_id, order):
        self.id, self.order = order_id, order
        self.price, self.lots, self.filled, self.open, self.acked = order.price_ticks or 0, order.lots, 0, True, False
        self.pending = []  # replaces and cancels on their way
        self.told = []  # reports, in order
        self.executions = []


class ParentsMachine(RuleBasedStateMachine):
    """Everything that may happen around the core, in any order."""

    @initialize()
    def begin(self):
        self.state, self.records = State(), []  # of this file of the journal
        self.core = self._core(self.state)
        self.publisher = Publisher("TEST", "s1", ["T"], False)
        self.follower = Follower(["T"])
        self.follower.connected()
        self._raw(encode(Opening(version=VERSION, venue="TEST", session="s1", lockstep=False, symbols=("T",))))
        self.now = START - NS
        self.level = 1000
        self._feed(self.publisher.status("T", self.now, "open"))
        self._row()
        self.now = START
        self.line, self.first, self.orders, self.by_key = True, {}, {}, {}
        self.queue, self.asks, self.heard = [], [], []  # requests under way, open asks, reports not yet heard
        self.numbers, self.executions, self.parents = 0, 0, 0
        self.bytes, self.how, self.kinds = {}, set(), Counter()
        self.core.line_up(ACCOUNT)
        self._settle()

    # The market -----------------------------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 40), move=st.integers(-1, 1))
    def time_passes(self, seconds, move):
        for _ in range(seconds):
            self.now += NS
            self._row()
            move, self.level = 0, self.level + move
            self.core.advance(self.now, self.now)
            self._settle()

    @rule()
    def feed_breaks_and_comes_again(self):
        self.core.on_feed(Gap("T", "lost"))
        self.follower.books.clear()
        self.follower.connected()
        self._asked()

    @rule(status=st.sampled_from(["open", "halted", "open", "open"]))
    def status(self, status):
        self._feed(self.publisher.status("T", self.now, status))

    # Clients --------------------------------------------------------------------------------------------------------

    @rule(lots=LOTS, side=st.sampled_from([1, -1]), horizon=st.integers(5, 200), ahead=st.integers(0, 20))
    def parent_comes(self, lots, side, horizon, ahead):
        if len(self.state.working) < 3:
            self.parents += 1
            start = self.now + ahead * NS if ahead else 0
            self.core.submit(request(f"p{self.parents}", lots, side, horizon * NS, start_ns=start), self.now)
            self._settle()

    @rule(lots=LOTS, which=st.integers(0, 2))
    def parent_changes(self, lots, which):
        self._on_parent(which, lambda parent: self.core.replace(parent, lots, self.now))

    @rule(which=st.integers(0, 2))
    def parent_is_cancelled(self, which):
        self._on_parent(which, lambda parent: self.core.cancel(parent, "by the test", self.now))

    # Policies -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.asks)
    @rule(action=st.integers(-1, 4), fails=st.sampled_from([None, None, None, None, "late", "unknown"]))
    def policy_answers(self, action, fails):
        ask = self.asks.pop(0)
        if fails:
            self.core.decided(ask.ask_id, DecideError(fails, "x"), self.now)
        else:
            if 0 <= action < 4 and not ask.mask[action]:
                action = next(item for item in (1, 3, 0) if ask.mask[item])
            self.core.decided(ask.ask_id, PolicyDecision(ask.sha256, 1, action, ()), self.now)
        self._settle()

    # The gateway ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.queue)
    @rule(count=st.integers(1, 5), deny=st.integers(0, 9))
    def gateway_decides(self, count, deny):
        for _ in range(min(count, len(self.queue))):
            self._decide(self.queue.pop(0), deny < 2)
        self._settle()

    @rule(arrives=st.integers(0, 4))
    def line_breaks(self, arrives):
        """Some of what was under way arrived, but its answers are lost; the rest never arrives."""
        self.core.line_down(ACCOUNT, "cut")
        self.line = False
        for item in self.queue[:arrives]:
            self._decide(item, False)
        self.queue.clear()
        self._settle()

    @rule()
    def line_comes_back(self):
        if not self.line:
            for order in self.orders.values():  # the gateway repeats the day's reports before anything else
                for report in order.told:
                    self.core.reported(ACCOUNT, report, self.now)
            self.heard.clear()
            self.line = True
            self.core.line_up(ACCOUNT)
            self._settle()

    @rule()
    def process_is_killed_and_starts_again(self):
        state = State()
        for record in self.records:
            state.apply(decode_record(encode_record(record)))
        self.line = False
        self.queue.clear()
        self.asks.clear()
        self.state = state
        self.core = self._core(state)
        self.follower.books.clear()
        self._raw(encode(Opening(version=VERSION, venue="TEST", session="s1", lockstep=False, symbols=("T",))))
        self.follower.connected()
        self._asked()
        self.line_comes_back()

    @rule()
    def journal_rolls(self):
        snapshot = self.state.snapshot(self.now)
        self.records = [decode_record(encode_record(snapshot))]
        self.how |= {parent.how for parent in self.state.parents.values() if parent.is_ended}
        self.state.apply(snapshot)

    # The venue ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(order.open for order in self.orders.values()))
    @rule(pick=st.integers(0, 50), what=st.integers(0, 6), lots=LOTS, tell=st.integers(0, 3))
    def venue_acts(self, pick, what, lots, tell):
        order = [item for item in self.orders.values() if item.open][pick % sum(o.open for o in self.orders.values())]
        head = {"order_id": order.id, "ts_ns": self.now}
        if what == 0 and not order.acked:
            order.acked = True
            self._report(order, Acked(**head))
        elif what == 1 and not order.acked and not order.filled:
            self._close(order, Rejected(**head, reason="no"))
        elif what == 2 and order.pending:
            self._answer(order, order.pending.pop(0), head, lots)
        elif what == 3 and order.order.tif == "ioc":
            self._close(order, Cancelled(**head))
        elif what == 4 and order.executions:
            exec_id, size = order.executions.pop()
            order.filled -= size
            self._report(order, Busted(**head, exec_id=exec_id))
        elif what >= 5:
            size = min(lots, order.lots - order.filled)
            if size > 0:
                self._fill(order, size)
        for _ in range(tell):
            self._hear()
        self._settle()

    @rule()
    def reports_arrive(self):
        while self.heard:
            self._hear()
        self._settle()

    @invariant()
    def nothing_exceeds_its_parent(self):
        if not hasattr(self, "orders"):
            return
        for parent in self.state.parents.values():
            assert parent.filled + parent.exposed <= parent.lots
            real = [order for order in self.orders.values() if order.order.key.startswith(f"{parent.ref}/")]
            worst = sum(order.filled + max(0, self._worst(order)) for order in real)
            assert worst <= parent.lots, f"{worst} of {parent.lots} may be filled at the venue"
            assert all(order.order.side == ("buy" if parent.side > 0 else "sell") for order in real)

    def teardown(self):
        """Let everything be answered: every parent comes to its end, and the EMS knows what the venue knows."""
        if not hasattr(self, "orders"):
            return
        self._feed(self.publisher.status("T", self.now, "open"))
        self.line_comes_back()
        for _ in range(1000):
            if not self.state.working:
                break
            self._serve_all()
            self.now += NS
            self._row()
            self.core.advance(self.now, self.now)
            self._settle()
        self._serve_all()
        for parent in self.state.parents.values():
            assert parent.is_ended and not parent.open_children
            real = [order for order in self.orders.values() if order.order.key.startswith(f"{parent.ref}/")]
            assert not any(order.open for order in real)
            assert parent.filled == sum(order.filled for order in real)
            self.how.add(parent.how)
        again = State()
        for record in self.records:
            again.apply(decode_record(encode_record(record)))
        assert {n: (p.filled, p.phase, p.how) for n, p in again.parents.items()} == {
            n: (p.filled, p.phase, p.how) for n, p in self.state.parents.items()
        }

    @classmethod
    def drive(cls, seed, events):
        """A long run with the likely things likely; the machine at its end, torn down."""
        rng = np.random.default_rng(seed)
        machine = cls()
        machine.begin()
        kinds = list(LIKELY)
        weights = np.array([LIKELY[kind] for kind in kinds])
        for _ in range(events):
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
            machine.happens(kind, rng)
            machine.nothing_exceeds_its_parent()
        machine.teardown()
        return machine

    def happens(self, kind, rng):
        """One thing, drawn."""

        def some(low, high):
            return int(rng.integers(low, high + 1))

        if kind == "time":
            self.time_passes(some(1, 4), some(-1, 1))
        elif kind == "parent":
            self.parent_comes(some(20, 200), 1 - 2 * some(0, 1), some(100, 900), some(0, 10))
        elif kind == "changes":
            self.parent_changes(some(20, 200), some(0, 2))
        elif kind == "cancelled":
            self.parent_is_cancelled(some(0, 2))
        elif kind == "policy" and self.asks:
            fails = None if some(0, 40) else ("late", "unknown")[some(0, 1)]
            self.policy_answers(some(0, 3) if some(0, 60) else -1, fails)
        elif kind == "gateway" and self.queue:
            self.gateway_decides(some(1, 5), some(0, 20))
        elif kind == "venue" and any(order.open for order in self.orders.values()):
            self.venue_acts(some(0, 50), some(0, 6), some(1, 4), some(0, 3))
        elif kind == "acks":
            for order in [item for item in self.orders.values() if item.open and not item.acked]:
                order.acked = True
                self._report(order, Acked(order_id=order.id, ts_ns=self.now))
            self.reports_arrive()
        elif kind == "reports":
            self.reports_arrive()
        elif kind == "break" and self.line:
            self.line_breaks(some(0, 4))
        elif kind == "back":
            self.line_comes_back()
        elif kind == "kill":
            self.process_is_killed_and_starts_again()
        elif kind == "roll":
            self.journal_rolls()
        elif kind == "gap":
            self.feed_breaks_and_comes_again()
        elif kind == "status":
            self.status("halted" if some(0, 3) == 0 else "open")

    # Parts ----------------------------------------------------------------------------------------------------------

    def _core(self, state):
        core = Core(rules(patience_ns=60 * NS), {"T": instrument()}, state, "b", 1)
        core.on_policies(Policies(policy(decision_interval_s=100, decisions_per_slice=50, ahead_slices=30), None, ()))
        return core

    def _raw(self, raw):
        for event in self.follower.take(raw):
            self.core.on_feed(event)
        self._asked()

    def _asked(self):
        if self.follower.asks() is not None:
            for event in self.follower.take(self.publisher.snapshot("T")):
                self.core.on_feed(event)

    def _feed(self, raw):
        if raw is not None:
            self._raw(raw)

    def _row(self):
        bids = {self.level - k: 20 + (self.now // NS + k) % 7 for k in range(3)}
        asks = {self.level + 1 + k: 25 - (self.now // NS + k) % 5 for k in range(3)}
        self._feed(self.publisher.row("T", self.now, bids, asks))

    def _on_parent(self, which, call):
        working = self.state.working
        if working:
            try:
                call(working[which % len(working)])
            except Refusal:
                return
            self._settle()

    def _settle(self):
        while True:
            out = self.core.drain()
            for record in out.records:
                self.records.append(record)
                if isinstance(record, Sent):
                    parent = self.state.parents[record.number]
                    assert record.request.key not in self.bytes
                    self.kinds[type(record.request).__name__] += 1
                    self.bytes[record.request.key] = encode(record.request)
                    if not isinstance(record.request, Cancel):
                        assert parent.phase is not Phase.CANCELLING
                        assert record.market_ns <= parent.end_ns + 5 * NS
                        strategy = FALLBACK if parent.fallback else STRATEGY
                        assert record.request.strategy == strategy
            fresh = {record.request.key for record in out.records if isinstance(record, Sent)}
            for outgoing in out.sends:
                item = outgoing.request
                assert encode(item) == self.bytes[item.key]
                if isinstance(item, ChildOrder) and item.key not in fresh and item.key not in self.first:
                    child = self.state.children[item.key]  # sent again, and perhaps taken only now
                    parent = self.state.parents[child.parent]
                    assert parent.phase is Phase.WORKING and self.core.now_ns - child.sent_ns <= 2 * NS
                if self.line:
                    self.queue.append(outgoing.request)
            self.asks += out.asks
            if not (out.records or out.sends or out.asks or out.alerts):
                return

    def _decide(self, item, deny):
        known = self.first.get(item.key)
        if known is None:
            known = self.first[item.key] = self._first(item, deny)
        if self.line:
            self.core.answered(ACCOUNT, known, self.now)

    def _first(self, item, deny):
        head = {"key": item.key, "algorithm": "a", "trader": "t"}
        self._meets_none_of_our_own(item)
        if isinstance(item, ChildOrder):
            if deny:
                return Denied(control="order_lots", message="no", **head)
            self.numbers += 1
            order = self.orders[self.numbers] = self.by_key[item.key] = Order(self.numbers, item)
            return Allowed(order_id=order.id, **head)
        order = self.by_key.get(item.order_key)
        if order is None:
            return Denied(control="order", message=f"no order with key {item.order_key} of this strategy", **head)
        if not order.open:
            return Denied(control="order", message=f"order {item.order_key} is done", **head)
        if deny or (isinstance(item, Replace) and any(isinstance(other, Replace) for other in order.pending)):
            return Denied(control="message_rate", message="slower", **head)
        order.pending.append(item)
        return Allowed(order_id=order.id, **head)

    def _meets_none_of_our_own(self, item):
        """The gateway's `self_match` is the last line: the EMS sends nothing that it would deny."""
        order = self.by_key.get(getattr(item, "order_key", item.key))
        first = item if isinstance(item, ChildOrder) else None if order is None else order.order
        if first is None or isinstance(item, Cancel):
            return
        sign = 1 if first.side == "buy" else -1
        for other in self.orders.values():
            if other.open and other.order.side != first.side:
                prices = [other.price, *(change.price_ticks for change in other.pending if isinstance(change, Replace))]
                assert item.price_ticks and all(price and sign * (price - item.price_ticks) > 0 for price in prices), (
                    item, other.order, prices
                )  # fmt: skip

    def _worst(self, order):
        """Lots that the venue may still fill of an order, what is under way to it included."""
        if not order.open:
            return 0
        totals = [order.lots, *(item.lots for item in order.pending if isinstance(item, Replace))]
        return max(totals) - order.filled

    def _answer(self, order, item, head, lots):
        if isinstance(item, Cancel):
            if lots % 4:
                self._close(order, Cancelled(**head))
            else:
                self._report(order, CancelRejected(**head, reason="late"))
        elif lots % 4 and item.lots > order.filled:
            order.price, order.lots = item.price_ticks, item.lots
            self._report(order, Replaced(**head, price_ticks=item.price_ticks, lots=item.lots))
        else:
            order.open = order.filled < order.lots
            self._report(order, ReplaceRejected(**head, reason="no"))

    def _fill(self, order, size):
        self.executions += 1
        order.acked, order.filled = True, order.filled + size
        order.executions.append((f"x{self.executions}", size))
        report = Filled(
            order_id=order.id, ts_ns=self.now, exec_id=f"x{self.executions}", price_ticks=self.level, lots=size
        )
        if order.filled >= order.lots and not any(isinstance(item, Replace) for item in order.pending):
            order.open = False
            order.executions.clear()  # no bust of what is done: that it may trade again is the venue's alone
        self._report(order, report)

    def _close(self, order, report):
        order.open = False
        order.executions.clear()
        self._report(order, report)

    def _report(self, order, report):
        order.told.append(report)
        if self.line:
            self.heard.append(report)

    def _hear(self):
        if self.heard and self.line:
            self.core.reported(ACCOUNT, self.heard.pop(0), self.now)
        elif self.heard:
            self.heard.pop(0)

    def _serve_all(self):
        """Answer whatever is asked, fill what takes, confirm what is cancelled."""
        for _ in range(20):
            while self.queue:
                self._decide(self.queue.pop(0), False)
            while self.asks:
                ask = self.asks.pop(0)
                self.core.decided(ask.ask_id, PolicyDecision(ask.sha256, 1, 0, ()), self.now)
            for order in [item for item in self.orders.values() if item.open]:
                head = {"order_id": order.id, "ts_ns": self.now}
                if not order.acked:
                    order.acked = True
                    self._report(order, Acked(**head))
                while order.pending and order.open:
                    self._answer(order, order.pending.pop(0), head, 1)
                if order.open and (order.order.tif == "ioc" or order.price >= self.level + 1):
                    size = order.lots - order.filled
                    if size > 0:
                        self._fill(order, size)
                    else:
                        self._close(order, Cancelled(**head))
            while self.heard:
                self._hear()
            self._settle()
            if not self.queue and not self.asks:
                return


ParentsMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
TestParents = ParentsMachine.TestCase


def test_long_runs_stay_within_every_parent():
    kinds, filled, how = Counter(), 0, set()
    for seed in range(16):
        machine = ParentsMachine.drive(seed, 1500)  # its invariants are asserted in it
        kinds.update(machine.kinds)
        filled += sum(order.filled for order in machine.orders.values())
        how |= machine.how
    assert min(kinds[kind] for kind in ("ChildOrder", "Replace", "Cancel")) > 30 and filled > 2000
    assert how == {"filled", "expired", "cancelled"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 250))
def test_many_long_runs_stay_within_every_parent(seed):
    ParentsMachine.drive(seed, 4000)


def test_orders_that_meet_our_own_are_seen(monkeypatch):
    for place in ("deciding", "sending"):
        monkeypatch.setattr(f"serving.parents.{place}.keep_apart", lambda state, parent, plan, opposite: (plan, False))
    with pytest.raises(AssertionError, match="ChildOrder"):
        for seed in range(4):
            ParentsMachine.drive(seed, 1500)
