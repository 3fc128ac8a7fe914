"""A state machine over the gateway: whatever happens in whatever order, every sum is the sum of its parts.

After each step the running sums are held against sums taken anew from orders and executions, and the journal is
replayed: the state that it leads to is the present one to the bit.
"""

import numpy as np
import pytest
from gateway_world import ANN, SYMBOL, TICK_VALUE, World, limits_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Corrected
from serving.gateway import audit
from serving.gateway.kill import enable, kill, rearm
from serving.gateway.order_table import ANY_PRICE
from serving.gateway.recovery import arm, reconcile

LIMIT_LOTS = 300
LIMITS = limits_of(
    max_position_lots=LIMIT_LOTS, max_order_lots=150, max_open_orders=12, max_gross_value=700 * 10_000 * TICK_VALUE
)
SCOPES = st.sampled_from([("all", ""), ("venue", "SIM"), ("account", "A1"), ("strategy", "S2"), ("symbol", SYMBOL)])


class Machine(RuleBasedStateMachine):
    orders = Bundle("orders")
    executions = Bundle("executions")

    def __init__(self):
        super().__init__()
        self.world = World(LIMITS)
        self.reports = []  # everything that the venue said and the gateway has not heard
        self.cut_off = False

    @property
    def state(self):
        return self.world.state

    @rule(
        target=orders,
        side=st.sampled_from(["buy", "sell"]),
        lots=st.integers(1, 160),
        price=st.sampled_from([0, 9_700, 9_900, 9_990, 10_000, 10_010, 10_100, 10_300]),
        who=st.sampled_from([("A1", "S1"), ("A1", "S2"), ("A2", "S3")]),
        symbol=st.sampled_from([SYMBOL, "MSFT"]),
        reduce_only=st.booleans(),
    )
    def send(self, side, lots, price, who, symbol, reduce_only):
        order = self.world.order(
            side, lots, price, account=who[0], strategy=who[1], symbol=symbol, reduce_only=reduce_only
        )
        decision = self.world.submit(order)
        assert self.world.submit(order) == decision
        return (order, decision.order_id) if type(decision) is Allowed else multiple()

    @rule(order=orders, lots=st.integers(1, 160), price=st.sampled_from([9_800, 9_950, 10_050, 10_200]))
    def replace(self, order, lots, price):
        request, _ = order
        self.world.submit(
            self.world.replace(request.key, price, lots, account=request.account, strategy=request.strategy)
        )

    @rule(order=orders)
    def cancel(self, order):
        request, _ = order
        self.world.submit(self.world.cancel(request.key, account=request.account, strategy=request.strategy))

    def venue_order(self, order_id):
        order = self.world.venue.orders.get(order_id)
        return order if order is not None and order.is_open else None

    @rule(order=orders)
    def acknowledge(self, order):
        if self.venue_order(order[1]):
            self.reports.append(self.world.venue.ack(order[1]))

    @rule(target=executions, order=orders, part=st.floats(0.01, 1.0))
    def fill(self, order, part):
        known = self.venue_order(order[1])
        if known is None or known.lots <= known.filled:
            return multiple()
        report = self.world.venue.fill(order[1], max(1, int((known.lots - known.filled) * part)))
        self.reports.append(report)
        return (order[1], report.exec_id, report.lots)

    @rule(execution=consumes(executions), correct=st.booleans())
    def bust_or_correct(self, execution, correct):
        order_id, exec_id, lots = execution
        venue = self.world.venue
        if correct and lots > 1:
            old = venue.orders[order_id].fills[exec_id]
            report = Corrected(order_id=order_id, ts_ns=0, exec_id=exec_id, price_ticks=old.price_ticks, lots=lots - 1)
            venue.orders[order_id].fills[exec_id] = type(old)(
                order_id=order_id, ts_ns=0, exec_id=exec_id, price_ticks=old.price_ticks, lots=lots - 1
            )
            venue.orders[order_id].filled -= 1
            self.reports.append(report)
        else:
            self.reports.append(venue.bust(order_id, exec_id))

    @rule(order=orders, answer=st.sampled_from(["reject", "cancelled", "cancel_rejected"]))
    def end(self, order, answer):
        known = self.venue_order(order[1])
        if known and (answer != "reject" or not known.filled):
            self.reports.append(getattr(self.world.venue, answer)(order[1]))

    @rule(order=orders, follow=st.booleans())
    def answer_replace(self, order, follow):
        known = self.world.venue.orders.get(order[1])
        if known is None or known.asked is None:
            return
        follow = follow and known.is_open and known.asked[1] > known.filled
        self.reports.append((self.world.venue.replaced if follow else self.world.venue.replace_rejected)(order[1]))

    @rule(count=st.integers(1, 6), twice=st.booleans())
    def deliver(self, count, twice):
        for report in self.reports[:count]:
            self.world.report(report)
            if twice and not isinstance(report, Corrected):
                self.world.report(report)
        del self.reports[:count]

    @rule(move=st.integers(-60, 60), seconds=st.sampled_from([0.01, 0.4, 1.1]))
    def time_and_prices(self, move, seconds):
        self.world.clock.pass_(seconds)
        self.world.see(9_990 + move, 10_010 + move)
        self.world.watch.tick(self.world.clock())
        self.world.gateway.commit(self.world.clock())

    @rule(scope=SCOPES, sure=st.integers(0, 3))
    def kill(self, scope, sure):
        if sure:
            return
        kill(self.world.watch, *scope, ANN, "test", self.world.clock())

    @rule(scope=SCOPES)
    def rearm(self, scope):
        node = self.state.node(*scope)
        if node.killed and not node.open_orders and self.state.reconciled:
            rearm(self.world.gateway, *scope, ANN, self.world.clock())

    @rule()
    def enable(self):
        for scope, name in (("venue", "SIM"), ("strategy", "S1"), ("strategy", "S2"), ("strategy", "S3")):
            enable(self.world.gateway, scope, name, ANN, self.world.clock())

    @rule(seed=st.one_of(st.none(), st.integers(0, 2**32 - 1)), stays_down=st.integers(0, 3))
    def crash(self, seed, stays_down):
        self.world.gateway.decide(self.world.order(), self.world.clock())  # never acknowledged
        self.world.disk.crash(None if seed is None else np.random.default_rng(seed))
        self.world.restart()
        if not stays_down:
            return
        self.recover()

    @rule()
    def recover(self):
        self.world.see()
        self.deliver(10**9, False)
        world = self.world
        breaks = reconcile(
            world.gateway, world.venue.status, world.venue.open_ids(), world.venue.drop_copy(), world.clock()
        )
        assert breaks == ()
        if world.state.halted:
            arm(world.gateway, ANN, world.clock())
            world.clock.pass_(2)
            world.see()

    @precondition(lambda self: not self.reports)
    @rule()
    def order_ids_are_sent_once(self):
        numbers = [message.order_id for message in self.world.venue.news()]
        assert len(set(numbers)) == len(numbers)

    @invariant()
    def sums_are_the_sums_of_their_parts(self):
        state = self.state
        for node in state.nodes.values():
            orders = [o for o in state.orders.values() if o.is_open and node in o.nodes]
            legs = [leg for leg in state.legs.values() if node in leg.nodes]
            assert node.open_orders == len(orders)
            assert node.open_lots == sum(o.open_lots for o in orders)
            assert node.open_value == sum(o.open_value for o in orders)
            if node.scope != "venue":
                assert node.gross == sum(leg.gross for leg in legs)
                assert node.long_value == sum(leg.long_value for leg in legs)
                assert node.short_value == sum(leg.short_value for leg in legs)
                assert node.realised == sum(leg.realised for leg in legs)
                assert node.unrealised == sum(leg.unrealised for leg in legs)
                assert node.peak >= node.profit
        assert set(state.open_orders) == {o.id for o in state.orders.values() if o.is_open}

    @invariant()
    def legs_follow_from_orders_and_executions(self):
        state = self.state
        for (account, strategy, symbol), leg in state.legs.items():
            mine = [o for o in state.orders.values() if o.leg is leg]
            signs = {o.id: o.sign for o in mine}
            standing = [x for x in state.executions.values() if x.standing and x.order_id in signs]
            unit = leg.book.mark * TICK_VALUE
            assert leg.position == sum(signs[x.order_id] * x.lots for x in standing)
            assert leg.buys == sum(o.open_lots for o in mine if o.sign > 0)
            assert leg.sells == sum(o.open_lots for o in mine if o.sign < 0)
            assert leg.reducing_sells == sum(o.open_lots for o in mine if o.sign < 0 and o.request.reduce_only)
            assert leg.gross == max((leg.position + leg.buys) * unit, -(leg.position - leg.sells) * unit)
            cash = -sum(signs[x.order_id] * x.lots * x.price_ticks for x in standing) * TICK_VALUE
            assert leg.realised + leg.unrealised == cash + leg.position * unit
            del account, strategy, symbol
        for order in state.orders.values():
            standing = [x for x in state.executions.values() if x.standing and x.order_id == order.id]
            assert order.filled == sum(x.lots for x in standing)
            assert order.open_lots >= (max(0, order.lots - order.filled) if order.is_open else 0)

    @invariant()
    def own_book_holds_every_open_price_once(self):
        for (venue, symbol), own in self.state.own.items():
            wanted = {1: [], -1: []}
            for order in self.state.open_orders.values():
                if (order.request.venue, order.request.symbol) == (venue, symbol):
                    wanted[order.sign].append(order.price_ticks or order.sign * ANY_PRICE)
                    if order.new_lots:
                        wanted[order.sign].append(order.new_price)
            assert {p: n for p, n in own.bids.items()} == {p: wanted[1].count(p) for p in wanted[1]}
            assert {p: n for p, n in own.asks.items()} == {p: wanted[-1].count(p) for p in wanted[-1]}
            if wanted[1]:
                assert own.best_bid == max(wanted[1])
            if wanted[-1]:
                assert own.best_ask == min(wanted[-1])

    @invariant()
    def nothing_is_broken(self):
        assert not self.world.gateway.broken

    @invariant()
    def replay_is_identical_to_the_bit(self):
        self.world.gateway.commit(self.world.clock())
        assert audit.replay(self.world.disk)[0].encoded() == self.state.encoded()


SETTINGS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestGateway = Machine.TestCase
TestGateway.settings = SETTINGS


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
class TestGatewayAtLength(Machine.TestCase):
    """Ten times the runs, twice as long each, and new ones each time; a failure prints how it is repeated."""

    settings = settings(SETTINGS, max_examples=400, stateful_step_count=80, derandomize=False, print_blob=True)
