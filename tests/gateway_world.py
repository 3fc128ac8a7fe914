"""A gateway in a test: a venue in memory with its own log, a disk that can go bad, clocks that move when told."""

import errno
from types import SimpleNamespace

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
from serving.gateway.day import start_day
from serving.gateway.disk import LockedError
from serving.gateway.events import Instrument, Locate
from serving.gateway.limits import KINDS, Limits
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.recovery import OrderStatus, arm, open_gateway, reconcile
from serving.gateway.transport import CancelMessage, NewMessage, ReplaceMessage
from serving.gateway.watch import Watch

ANN, BOB, EVE = "CN=Ann,O=Risk", "CN=Bob,O=Risk", "CN=Eve,O=Desk"
VENUE, ACCOUNT, STRATEGY, SYMBOL = "SIM", "A1", "S1", "AIG"
DAY, OPENS_NS = "2026-03-02", 1_772_409_600 * SECOND_NS
CLOSES_NS = OPENS_NS + 20 * 3600 * SECOND_NS
BID, ASK, TICK_VALUE = 9_990, 10_010, 10

WIDE = {
    **dict.fromkeys(KINDS, 10**15),
    "collar_bps": 500,
    "drift_collar_bps": 2_000,
    "duplicate_window_ns": 0,
    "max_messages_per_second": 1_000,
    "max_cancels_per_second": 1_000,
    "participation_floor_lots": 10**9,
    "max_reference_age_ns": 5 * SECOND_NS,
    "max_feed_lag_ns": SECOND_NS,
    "max_request_age_ns": 5 * SECOND_NS,
    "max_send_age_ns": SECOND_NS,
    "max_heartbeat_age_ns": 5 * SECOND_NS,
    "dead_man_ns": 10 * SECOND_NS,
    "max_clock_offset_ns": 10_000_000,
    "max_clock_age_ns": 60 * SECOND_NS,
    "max_unacknowledged_ns": 5 * SECOND_NS,
}


def limits_of(accounts=None, venues=(VENUE,), scopes=None, **of_all):
    """Limits as wide as they go but for what a test names: `scopes={"account": {"A1": {...}}}`, `of_all` for all."""
    return Limits.parse(
        {
            "version": 1,
            "venues": list(venues),
            "accounts": accounts or {ACCOUNT: [STRATEGY, "S2"], "A2": ["S3"]},
            "limits": {"all": {**WIDE, **of_all}, **(scopes or {})},
        }
    )


class Clock:
    """Both clocks; `now()` reads them."""

    def __init__(self, mono_ns=1_000 * SECOND_NS, utc_ns=OPENS_NS + 3600 * SECOND_NS):
        self.mono_ns, self.utc_ns = mono_ns, utc_ns

    def __call__(self):
        return Now(self.mono_ns, self.utc_ns)

    def pass_(self, seconds):
        self.mono_ns += int(seconds * SECOND_NS)
        self.utc_ns += int(seconds * SECOND_NS)


class Venue:
    """A transport and the venue behind it: it does what a test tells it, and logs everything that it received."""

    def __init__(self):
        self.log = []  # messages as they came
        self.orders = {}
        self.reachable = True
        self.fails = None  # an exception that sending raises
        self._execs = 0
        self.ts_ns = OPENS_NS

    def send(self, message):
        if self.fails:
            raise self.fails
        self.log.append(message)
        if isinstance(message, NewMessage):
            assert message.order_id not in self.orders, f"order {message.order_id} came twice"
            order = message.order
            self.orders[message.order_id] = SimpleNamespace(
                venue=order.venue, side=order.side, price=order.price_ticks or 0, lots=order.lots, filled=0,
                is_open=True, fills={}, asked=None, request=order,
            )  # fmt: skip
        elif isinstance(message, ReplaceMessage):
            self.orders[message.order_id].asked = (message.price_ticks, message.lots)

    def barrier(self):
        return self.reachable

    def news(self):
        return [message for message in self.log if isinstance(message, NewMessage)]

    def cancels(self):
        return [message for message in self.log if isinstance(message, CancelMessage)]

    def ack(self, order_id):
        return Acked(order_id=order_id, ts_ns=self.ts_ns)

    def reject(self, order_id, reason="no"):
        self.orders[order_id].is_open = False
        return Rejected(order_id=order_id, ts_ns=self.ts_ns, reason=reason)

    def fill(self, order_id, lots, price=None, exec_id=None, fee=0):
        order = self.orders[order_id]
        self._execs += 1
        exec_id = exec_id or f"x{self._execs}"
        price = price or order.price or ASK
        report = Filled(order_id=order_id, ts_ns=self.ts_ns, exec_id=exec_id, price_ticks=price, lots=lots, fee=fee)
        order.fills[exec_id] = report
        order.filled += lots
        if order.filled >= order.lots:
            order.is_open = False
        return report

    def bust(self, order_id, exec_id):
        order = self.orders[order_id]
        order.filled -= order.fills.pop(exec_id).lots
        return Busted(order_id=order_id, ts_ns=self.ts_ns, exec_id=exec_id)

    def cancelled(self, order_id):
        self.orders[order_id].is_open = False
        return Cancelled(order_id=order_id, ts_ns=self.ts_ns)

    def cancel_rejected(self, order_id):
        return CancelRejected(order_id=order_id, ts_ns=self.ts_ns, reason="too late")

    def replaced(self, order_id):
        order = self.orders[order_id]
        order.price, order.lots = order.asked
        order.asked = None
        if order.filled >= order.lots:
            order.is_open = False
        return Replaced(order_id=order_id, ts_ns=self.ts_ns, price_ticks=order.price, lots=order.lots)

    def replace_rejected(self, order_id):
        self.orders[order_id].asked = None
        return ReplaceRejected(order_id=order_id, ts_ns=self.ts_ns, reason="no")

    def status(self, venue, order_id):
        order = self.orders.get(order_id)
        if order is None:
            return None
        return OrderStatus(
            order_id=order_id, is_open=order.is_open, price_ticks=order.price, lots=order.lots,
            filled_lots=order.filled, fills=tuple(order.fills.values()),
        )  # fmt: skip

    def open_ids(self):
        return {VENUE: [order_id for order_id, order in self.orders.items() if order.is_open]}

    def drop_copy(self):
        return [(order.venue, fill) for order in self.orders.values() for fill in order.fills.values()]


class BadDisk:
    """A disk in memory. Written bytes are lost in a `crash` unless they were synced; `crash` may tear what was not."""

    def __init__(self):
        self.durable = {}  # name to bytes that survive
        self.written = {}  # name to bytes as the running process sees them
        self.space = 2**40
        self.fails = None  # an OSError that writing raises
        self.sync_fails = None
        self.locked = False
        self.syncs = 0

    def lock(self):
        if self.locked:
            raise LockedError("another process writes the journal")
        self.locked = True

    def unlock(self):
        self.locked = False

    def names(self):
        return sorted(self.written)

    def read(self, name):
        return self.written[name]

    def put(self, name, content):
        self._check(len(content))
        self.written[name] = self.durable[name] = content

    def append_to(self, name):
        return _BadFile(self, name)

    def free_bytes(self):
        return self.space

    def crash(self, rng=None):
        """Lose what was not synced; with a generator, keep a part of it: a prefix, with sectors of zeros in it."""
        for name, content in self.written.items():
            durable = self.durable.get(name, b"")
            tail = content[len(durable) :]
            if rng is not None and tail:
                tail = bytearray(tail[: int(rng.integers(0, len(tail) + 1))])
                end, sector = len(durable) + len(tail), (len(durable) // 512) * 512
                while sector < end:
                    if rng.random() < 0.3:
                        low, high = max(sector, len(durable)) - len(durable), min(sector + 512, end) - len(durable)
                        tail[low:high] = bytes(high - low)
                    sector += 512
                durable = durable + bytes(tail)
            self.durable[name] = durable
        self.written = dict(self.durable)
        self.locked = False
        self.fails = self.sync_fails = None

    def _check(self, count):
        if self.fails:
            raise self.fails
        if count > self.space:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.space -= count


class _BadFile:
    def __init__(self, disk, name):
        self.disk, self.name = disk, name

    def write(self, content):
        if len(content) > self.disk.space and not self.disk.fails:  # a full disk takes a part
            part = content[: self.disk.space]
            self.disk.written[self.name] += part
        self.disk._check(len(content))
        self.disk.written[self.name] += content

    def sync(self):
        self.disk.syncs += 1
        if self.disk.sync_fails:
            raise self.disk.sync_fails
        self.disk.durable[self.name] = self.disk.written[self.name]

    def truncate(self, size):
        self.disk.written[self.name] = self.disk.written[self.name][:size]
        self.disk.durable[self.name] = self.disk.durable[self.name][:size]

    def close(self):
        pass


INSTRUMENTS = tuple(
    Instrument(symbol=symbol, tick_value=TICK_VALUE, mark_ticks=10_000, adv_lots=10_000_000)
    for symbol in (SYMBOL, "MSFT")
)


class World:
    """A gateway that is armed, with limits of two people's approval, a day, a feed and two strategies alive."""

    def __init__(self, limits=None, disk=None, holdings=(), locates=None, instruments=INSTRUMENTS, restricted=()):
        self.clock, self.venue, self.disk = Clock(), Venue(), disk or BadDisk()
        self.events = []
        self.gateway = open_gateway(self.disk, self.venue, self.clock(), self.events.append)
        self.watch = Watch(self.gateway)
        self.set_limits(limits or limits_of())
        if locates is None:
            locates = [
                Locate(account=account, symbol=i.symbol, lots=10**9) for account in ("A1", "A2") for i in instruments
            ]
        start_day(
            self.gateway, DAY, OPENS_NS, CLOSES_NS, tuple(instruments), self.clock(), tuple(holdings), tuple(locates),
            restricted,
        )  # fmt: skip
        self.see()
        self.reconcile_and_arm()
        self.clock.pass_(2)  # windows are full after a start
        self.see()
        self._keys = 0

    @property
    def state(self):
        return self.gateway.state

    def set_limits(self, limits):
        change = propose_limits(self.gateway, limits, ANN, self.clock())
        if change.change:
            approve_limits(self.gateway, change.change, ANN, self.clock())
            approve_limits(self.gateway, change.change, BOB, self.clock())
        return change

    def see(self, bid=BID, ask=ASK, strategies=(STRATEGY, "S2", "S3")):
        """Fresh quotes, open sessions, heartbeats, a measured clock."""
        self.watch.heard(VENUE, self.clock.utc_ns, self.clock())
        for symbol in self.state.symbols:
            self.watch.quote(VENUE, symbol, bid, ask, self.clock())
            self.watch.status(VENUE, symbol, "open")
        for strategy in strategies:
            self.watch.connected(strategy, self.clock())
        self.watch.clock_offset(0, self.clock())

    def reconcile_and_arm(self):
        breaks = reconcile(self.gateway, self.venue.status, self.venue.open_ids(), self.venue.drop_copy(), self.clock())
        assert breaks == ()
        arm(self.gateway, ANN, self.clock())

    def identity(self, key=None, **changes):
        self._keys += 1
        return {
            "key": key or f"k{self._keys}", "strategy": STRATEGY, "account": ACCOUNT, "algorithm": "twap",
            "trader": "ann", "sent_ns": self.clock.utc_ns, **changes,
        }  # fmt: skip

    def order(self, side="buy", lots=100, price=10_000, **changes):
        changes = {
            "venue": VENUE, "symbol": SYMBOL, "side": side, "lots": lots, "price_ticks": price or None, "tif": "day",
            "type": "limit" if price else "market", "reduce_only": False, **changes,
        }  # fmt: skip
        return ChildOrder(**self.identity(**changes))

    def submit(self, request):
        return self.gateway.submit(request, self.clock())

    def send(self, *args, **kwargs):
        """Submit an order; returns the decision."""
        return self.submit(self.order(*args, **kwargs))

    def work(self, *args, **kwargs):
        """Submit an order that must pass, acknowledge it, return its number."""
        decision = self.send(*args, **kwargs)
        assert hasattr(decision, "order_id"), decision
        self.report(self.venue.ack(decision.order_id))
        return decision.order_id

    def hold(self, lots, price=10_000, **kwargs):
        """Trade into a position."""
        order_id = self.work("buy" if lots > 0 else "sell", abs(lots), price, **kwargs)
        self.report(self.venue.fill(order_id, abs(lots), price))
        return order_id

    def replace(self, order_key, price, lots, **changes):
        return Replace(**self.identity(order_key=order_key, price_ticks=price, lots=lots, **changes))

    def cancel(self, order_key, **changes):
        return Cancel(**self.identity(order_key=order_key, **changes))

    def report(self, report, venue=VENUE):
        self.gateway.on_report(venue, report, self.clock())
        self.gateway.commit(self.clock())

    def restart(self):
        """A new process on the same disk and the same venue."""
        self.clock.mono_ns = 50 * SECOND_NS
        self.gateway = open_gateway(self.disk, self.venue, self.clock(), self.events.append)
        self.watch = Watch(self.gateway)
        return self.gateway
