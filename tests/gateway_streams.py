"""Adversarial orders over eight streams, a venue that misbehaves, and the log of it all for the oracle: from one seed.

Each step draws what happens from arrays of random numbers: a stream sends an order (fat-fingered, crossing,
reduce-only, repeated, of another's account), replaces or cancels one; the venue acknowledges, fills in part, busts,
rejects, reports late and twice; quotes walk, symbols halt, limits are lowered and loosened by two people, scopes are
killed and re-armed.
"""

from collections import deque

import numpy as np
from gateway_world import ANN, BOB, CLOSES_NS, DAY, OPENS_NS, WIDE

from serving.contracts.decisions import Allowed
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
)
from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.day import end_day, start_day
from serving.gateway.events import Instrument, Locate
from serving.gateway.kill import enable, kill, rearm
from serving.gateway.limits import Limits
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.recovery import OrderStatus, arm, open_gateway, reconcile
from serving.gateway.transport import CancelMessage, NewMessage
from serving.gateway.watch import Watch

STREAMS, VENUES = 8, ("SIM", "DARK")
STRATEGIES = [f"S{number}" for number in range(STREAMS)]
ACCOUNTS = [f"A{number // 2}" for number in range(STREAMS)]
SYMBOLS = [f"X{number}" for number in range(10)]
BLOCK = 4_096
DAY_ORDERS = 100_000


class SinkDisk:
    """A disk that keeps nothing, or, where asked, the last file."""

    def __init__(self, keep=False):
        self.files, self.keep = {}, keep

    def lock(self):
        pass

    def unlock(self):
        pass

    def names(self):
        return sorted(self.files)

    def read(self, name):
        return bytes(self.files[name])

    def put(self, name, content):
        self.files[name] = bytearray(content)

    def append_to(self, name):
        return _SinkFile(self.files[name] if self.keep else None)

    def free_bytes(self):
        return 2**40


class _SinkFile:
    def __init__(self, content):
        self.content = content

    def write(self, content):
        if self.content is not None:
            self.content += content

    def sync(self):
        pass

    def close(self):
        pass


def limits_document(scale):
    """Limits tight enough that about half of the orders are denied."""
    of_all = {
        **WIDE,
        "max_order_lots": 1_000 * scale,
        "max_order_value": 14_000_000 * scale,
        "max_position_lots": 6_000 * scale,
        "max_gross_value": 2_000_000_000 * scale,
        "max_open_orders": 60,
        "max_messages_per_second": 430,
        "max_loss": 40_000_000 * scale,
        "collar_bps": 300,
        "drift_collar_bps": 9_000,
        "max_venue_rejects": 10**6,
        "max_request_age_ns": 9 * 10**18,
        "max_heartbeat_age_ns": 10**15,
        "dead_man_ns": 10**15,
        "max_reference_age_ns": 10**15,
        "max_clock_age_ns": 10**15,
        "max_unacknowledged_ns": 10**15,
        "participation_floor_lots": 100_000,
        "max_participation_bps": 3_000,
        "max_cancels_per_second": 100_000,
    }
    return {
        "version": 1,
        "venues": list(VENUES),
        "accounts": {f"A{number}": [f"S{2 * number}", f"S{2 * number + 1}"] for number in range(4)},
        "limits": {
            "all": of_all,
            "account": {
                "A0": {"max_position_lots": 3_000 * scale, "max_open_orders": 20, "max_loss": 15_000_000 * scale},
                "A1": {"max_gross_value": 500_000_000 * scale},
            },
            "strategy": {
                "S0": {"max_order_lots": 400 * scale, "max_messages_per_second": 55},
                "S3": {"max_position_lots": 1_500 * scale, "max_open_orders": 9},
                "S6": {"max_day_lots": 60_000},
                "S5": {"max_gross_value": 200_000_000 * scale, "max_loss": 4_000_000 * scale},
            },
            "symbol": {"X1": {"max_position_lots": 2_500 * scale, "max_order_value": 20_000_000 * scale}},
        },
    }


class Streams:
    """One run. `read` takes each entry of the log as it is written."""

    def __init__(self, seed, read, disk=None):
        self.rng, self.read = np.random.default_rng(seed), read
        self.mono_ns, self.utc_ns = 1_000 * SECOND_NS, OPENS_NS + 60 * SECOND_NS
        self.requests = self.denied = self.days = self.execs = 0
        self.late = deque()  # reports on their way to the gateway
        self.at_venue, self.resting = {}, []
        self.mids = [10_000 + 700 * number for number in range(len(SYMBOLS))]
        self.halted, self.sent, self.last = None, deque(maxlen=64), None
        self.problem = None
        self.scale = 1
        self.gateway = open_gateway(disk or SinkDisk(), self, self.now())
        self.watch = Watch(self.gateway)
        self.set_limits(1)
        self.start()

    def now(self):
        return Now(self.mono_ns, self.utc_ns)

    def start(self):
        self.days += 1
        day = str(np.datetime64(DAY) + self.days)
        opens = OPENS_NS + (self.days - 1) * 24 * 3600 * SECOND_NS
        self.mono_ns += max(0, opens + SECOND_NS - self.utc_ns)
        self.utc_ns = max(self.utc_ns, opens + SECOND_NS)
        ticks = {symbol: 1 + place % 3 for place, symbol in enumerate(SYMBOLS)}
        instruments = tuple(
            Instrument(symbol=symbol, tick_value=ticks[symbol], mark_ticks=mid, adv_lots=10**9)
            for symbol, mid in zip(SYMBOLS, self.mids, strict=True)
        )
        locates = {(f"A{number}", symbol): 4_000 for number in range(4) for symbol in SYMBOLS}
        start_day(
            self.gateway, day, opens, opens + CLOSES_NS - OPENS_NS, instruments, self.now(),
            locates=tuple(Locate(account=a, symbol=s, lots=lots) for (a, s), lots in locates.items()),
        )  # fmt: skip
        self.read(("day", ticks, locates))
        self.at_venue.clear()
        self.resting.clear()
        self.late.clear()
        self.sent.clear()
        for place in range(len(SYMBOLS)):
            self.quote(place, 0)
            self.status(place, "open")
        for strategy in STRATEGIES:
            self.watch.connected(strategy, self.now())
        self.watch.clock_offset(0, self.now())
        self.rearm_all()
        self.pass_(2 * SECOND_NS)

    def pass_(self, ns):
        self.mono_ns += ns
        self.utc_ns += ns
        self.read(("time", self.mono_ns))

    def set_limits(self, scale):
        self.deliver(10**9)
        document = limits_document(scale)
        change = propose_limits(self.gateway, Limits.parse(document), ANN, self.now())
        if change.change:
            approve_limits(self.gateway, change.change, ANN, self.now())
            if change.tightened:  # the tighter part holds already
                self.read(("limits", document["limits"]))
            assert approve_limits(self.gateway, change.change, BOB, self.now())
        self.read(("limits", document["limits"]))
        self.scale = scale

    def quote(self, place, move):
        self.commit()  # an order is held against the world that it was decided in: what waits must leave first
        mid = self.mids[place] = max(2_000, self.mids[place] + move)
        for venue in VENUES:
            self.watch.heard(venue, self.utc_ns, self.now())
            self.watch.quote(venue, SYMBOLS[place], mid - 3, mid + 3, self.now())
        self.read(("quote", SYMBOLS[place], mid - 3, mid + 3))

    def status(self, place, status):
        for venue in VENUES:
            self.watch.status(venue, SYMBOLS[place], status)
        self.read(("status", SYMBOLS[place], status))

    # the venue

    def send(self, message):
        try:
            self.receive(message)
        except BaseException as error:  # the gateway would halt, and go on: a test must not
            self.problem = self.problem or error
            raise

    def commit(self):
        self.gateway.commit(self.now())
        if self.problem is not None:
            raise self.problem

    def receive(self, message):
        if type(message) is NewMessage:
            order = message.order
            sign, price = (1 if order.side == "buy" else -1), order.price_ticks or 0
            self.read(
                ("new", message.order_id, order.venue, order.account, order.strategy, order.symbol, sign, price,
                 order.lots, order.reduce_only)
            )  # fmt: skip
            # order, price, lots, filled, fills, lots of busts that the gateway has not been told, open
            self.at_venue[message.order_id] = [order, price, order.lots, 0, {}, 0, True]
            self.resting.append(message.order_id)
        elif type(message) is CancelMessage:
            self.read(("cancel", message.order_id))
            self.on_cancel(message.order_id)
        else:
            self.read(("replace", message.order_id, message.price_ticks, message.lots))
            self.on_replace(message)

    def barrier(self):
        return True

    def tell(self, venue, report):
        self.late.append((venue, report))

    def on_cancel(self, order_id):
        order = self.at_venue[order_id]
        if not order[6]:
            self.tell(order[0].venue, CancelRejected(order_id=order_id, ts_ns=0, reason="too late"))
        else:
            self.close(order_id, order)
            self.tell(order[0].venue, Cancelled(order_id=order_id, ts_ns=0))

    def on_replace(self, message):
        order = self.at_venue[message.order_id]
        if not order[6] or message.lots <= order[3] or message.request_id % 5 == 0:
            if order[6]:
                self.read(("replace_rejected", message.order_id))
            self.tell(order[0].venue, ReplaceRejected(order_id=message.order_id, ts_ns=0, reason="no"))
            return
        order[1], order[2] = message.price_ticks, message.lots
        self.read(("replaced", message.order_id, message.price_ticks, message.lots))
        report = Replaced(order_id=message.order_id, ts_ns=0, price_ticks=message.price_ticks, lots=message.lots)
        self.tell(order[0].venue, report)

    def close(self, order_id, order):
        order[6] = False
        self.read(("closed", order_id))

    def fill(self, order_id, lots, price=None):
        order = self.at_venue[order_id]
        self.execs += 1
        mid = self.mids[int(order[0].symbol[1:])]
        price = price or (min(order[1], mid + 3) if order[0].side == "buy" else max(order[1], mid - 3)) or mid
        report = Filled(order_id=order_id, ts_ns=0, exec_id=f"x{self.execs}", price_ticks=price, lots=lots)
        order[3] += lots
        order[4][report.exec_id] = report
        self.read(("fill", order_id, lots))
        if order[3] >= order[2]:
            self.close(order_id, order)
        self.tell(order[0].venue, report)

    def act(self, draw, size):
        """The venue does something with one of its open orders."""
        place = int(draw * len(self.resting))
        order_id = self.resting[place]
        order = self.at_venue[order_id]
        if not order[6]:
            self.resting[place] = self.resting[-1]
            self.resting.pop()
            return
        left, venue = order[2] - order[3] - order[5], order[0].venue  # busted lots trade again once that is known
        if size < 0.30:
            self.tell(venue, Acked(order_id=order_id, ts_ns=0))
        elif size < 0.75:
            if left > 0:
                self.fill(order_id, max(1, left if size < 0.55 else int(left * (size - 0.55) * 5)))
        elif size < 0.80 and order[4]:
            exec_id, report = order[4].popitem()
            order[3] -= report.lots
            order[5] += report.lots
            self.tell(venue, Busted(order_id=order_id, ts_ns=0, exec_id=exec_id))
        elif size < 0.85 and not order[3]:
            self.close(order_id, order)
            self.tell(venue, Rejected(order_id=order_id, ts_ns=0, reason="no"))
        elif size < 0.90:
            self.close(order_id, order)
            self.tell(venue, Cancelled(order_id=order_id, ts_ns=0))

    def deliver(self, count):
        """Hand over the oldest reports; some come twice."""
        self.commit()
        while self.late and count:
            venue, report = self.late.popleft()
            count -= 1
            kind = type(report)
            if kind is Filled:
                self.read(("told", report.order_id, report.price_ticks, report.lots))
            elif kind is Busted:
                execution = self.gateway.state.executions[venue, report.exec_id]
                self.read(("bust", report.order_id, execution.price_ticks, execution.lots))
                self.at_venue[report.order_id][5] -= execution.lots
            self.gateway.on_report(venue, report, self.now())
            if kind is Filled and report.lots % 7 == 0:
                self.gateway.on_report(venue, report, self.now())

    # the streams

    def step(self, d):
        """One request of a stream, and what the world does beside. `d` are random numbers."""
        self.requests += 1
        self.mono_ns += 200_000 + int(d[0] * 2_000_000)
        self.utc_ns += 200_000 + int(d[0] * 2_000_000)
        self.read(("time", self.mono_ns))
        stream = int(d[1] * STREAMS)
        what = d[2]
        if what < 0.82 or not self.sent:
            request = self.new_order(stream, d)
        elif what < 0.90:
            request = self.replace(d)
        elif what < 0.98:
            _, key, strategy, account = self.sent[int(d[3] * len(self.sent))]
            request = Cancel(
                key=f"c{self.requests}", strategy=strategy, account=account, algorithm="adv", trader="t", sent_ns=0,
                order_key=key,
            )  # fmt: skip
        else:
            self.again()
            return
        decision = self.gateway.decide(request, self.now())
        if type(decision) is not Allowed:
            self.denied += 1
            self.last_denial = decision
        elif type(request) is ChildOrder:
            self.sent.append((request, request.key, request.strategy, request.account))
        self.last = (request, decision)

    def again(self):
        if self.last is not None:
            request, decision = self.last
            assert self.gateway.decide(request, self.now()) == decision
            other = Cancel(
                key=request.key, strategy=request.strategy, account=request.account, algorithm="other", trader="t",
                sent_ns=0, order_key="none",
            )  # fmt: skip
            assert self.gateway.decide(other, self.now()).control == "idempotency"

    def new_order(self, stream, d):
        place = int(d[3] * len(SYMBOLS))
        mid, buys, kind, size = self.mids[place], d[4] < 0.5, d[5], d[6]
        lots = 1 + int(size * size * 500 * self.scale)
        if kind < 0.03:
            lots = (1_000 if stream else 400) * self.scale + int(size * 3)
        elif kind < 0.04:
            lots = 10 ** (3 + int(size * 9))
        price = mid + int((d[7] - (0.6 if buys else 0.4)) * 60)
        if kind > 0.97:
            price = max(1, mid + int((d[7] - 0.5) * mid * 0.08))
        elif kind > 0.96:
            price = mid * 10
        market = 0.90 < kind < 0.93
        return ChildOrder(
            key=f"k{self.requests}",
            strategy=STRATEGIES[stream],
            account=ACCOUNTS[stream] if kind > 0.045 else ACCOUNTS[(stream + 2) % STREAMS],
            algorithm="adv",
            trader="t",
            sent_ns=self.utc_ns,
            venue=VENUES[0] if d[0] < 0.7 else VENUES[1],
            symbol=SYMBOLS[place],
            side="buy" if buys else "sell",
            type="market" if market else "limit",
            price_ticks=None if market else price,
            lots=lots,
            tif="day",
            reduce_only=0.80 < kind < 0.90,
        )

    def replace(self, d):
        order, key, strategy, account = self.sent[int(d[3] * len(self.sent))]
        mid = self.mids[int(order.symbol[1:])]
        lots = max(1, int(order.lots * (0.2 + d[6] * 3)))
        return Replace(
            key=f"r{self.requests}", strategy=strategy, account=account, algorithm="adv", trader="t",
            sent_ns=self.utc_ns, order_key=key, price_ticks=mid + int((d[7] - 0.5) * 80), lots=lots,
        )  # fmt: skip

    # the people

    def reconcile_all(self):
        self.deliver(10**9)
        breaks = reconcile(self.gateway, self.ask, self.open_ids(), self.drop_copy(), self.now())
        assert breaks == (), breaks[:3]

    def ask(self, venue, order_id):
        order = self.at_venue.get(order_id)
        if order is None:
            return None
        return OrderStatus(
            order_id=order_id, is_open=order[6], price_ticks=order[1], lots=order[2], filled_lots=order[3],
            fills=tuple(order[4].values()),
        )  # fmt: skip

    def open_ids(self):
        found = {venue: [] for venue in VENUES}
        for order_id, order in self.at_venue.items():
            if order[6]:
                found[order[0].venue].append(order_id)
        return found

    def drop_copy(self):
        return [(order[0].venue, fill) for order in self.at_venue.values() for fill in order[4].values()]

    def rearm_all(self):
        self.reconcile_all()
        if self.gateway.state.halted:
            arm(self.gateway, ANN, self.now())

    def kill_for_a_while(self, scope, name, steps, draws):
        """A scope is killed, streams go on, and a person re-arms it once its orders are gone and the book agrees."""
        self.read(("kill", scope, name))
        kill(self.watch, scope, name, ANN, "test", self.now())
        for place in range(steps):
            self.step(draws[place])
            self.commit()
        self.deliver(10**9)
        while any(
            (node.scope, node.name) == (scope, name)
            for o in self.gateway.state.open_orders.values()
            for node in o.nodes
        ):
            self.pass_(2 * SECOND_NS)
            self.watch.tick(self.now())
            self.commit()
            self.deliver(10**9)
        self.reconcile_all()
        rearm(self.gateway, scope, name, BOB, self.now())
        self.read(("rearm", scope, name))

    def false_fill(self):
        """The venue fills an order beyond its size: nothing more may go there until a person looked."""
        working = [i for i in self.resting if self.at_venue[i][6] and self.at_venue[i][0].venue == "DARK"]
        if not working:
            return
        order = self.at_venue[working[0]]
        self.fill(working[0], order[2] - order[3] + 1)
        self.deliver(10**9)
        self.read(("stop", "DARK"))
        self.commit()
        self.deliver(10**9)

    def end(self):
        """Everything is cancelled, the book agrees, the day ends and the next begins."""
        self.read(("kill", "all", ""))
        kill(self.watch, "all", "", ANN, "end of day", self.now())
        while self.gateway.state.open_orders:
            self.deliver(10**9)
            self.pass_(2 * SECOND_NS)
            self.watch.tick(self.now())
            self.commit()
        self.reconcile_all()
        rearm(self.gateway, "all", "", ANN, self.now())
        self.read(("rearm", "all", ""))
        end_day(self.gateway, self.now())
        self.start()

    def run(self, requests, day_orders=DAY_ORDERS):
        """Send that many requests; every one is decided, and what passes reaches the venue's log."""
        target, in_day = self.requests + requests, 0
        scopes = [("strategy", "S2"), ("account", "A3"), ("symbol", "X4"), ("venue", "DARK"), ("all", "")]
        while self.requests < target:
            draws = self.rng.random((min(BLOCK, target - self.requests), 12)).tolist()
            for place, d in enumerate(draws):
                self.step(d)
                if place % 8 == 0:
                    self.commit()
                if self.resting:
                    for act in (8, 10):
                        self.act(d[act], d[act + 1]) if self.resting else None
                if d[9] < 0.5:
                    self.deliver(int(d[8] * 8))
                if d[11] < 0.12:
                    which = int(d[10] * len(SYMBOLS))
                    self.quote(which, int((d[9] - 0.5) * 24))
            self.commit()
            in_day += len(draws)
            self.between(scopes)
            if in_day >= day_orders and self.requests < target:
                in_day = 0
                self.end()
        self.deliver(10**9)
        self.commit()

    def between(self, scopes):
        """What people and the world do now and then."""
        draw = self.rng.random(8)
        for place, symbol in enumerate(SYMBOLS):
            self.watch.volume("SIM", symbol, 0)
            volume = int((self.requests % DAY_ORDERS) * (40 + 20 * place))
            for venue in VENUES:
                self.watch.volume(venue, symbol, volume)
            self.read(("volume", symbol, self.gateway.live.market("SIM", symbol).volume_lots))
        if self.halted is not None:
            self.status(self.halted, "open")
            self.halted = None
        if draw[0] < 0.3:
            self.halted = int(draw[1] * len(SYMBOLS))
            self.status(self.halted, ("halted", "closed", "auction")[int(draw[2] * 3)])
        if draw[3] < 0.3:
            self.set_limits(1 + int(draw[4] * 3))
        if self.gateway.state.node("venue", "DARK").tripped:
            enable(self.gateway, "venue", "DARK", ANN, self.now())
            self.read(("enable", "DARK"))
        elif draw[7] < 0.1:
            self.false_fill()
        if draw[5] < 0.2:
            self.kill_for_a_while(*scopes[int(draw[6] * len(scopes))], 200, self.rng.random((200, 12)).tolist())
        self.watch.tick(self.now())
        self.commit()
