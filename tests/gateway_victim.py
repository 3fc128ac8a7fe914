"""A gateway process made to be killed: it trades as fast as it can against a venue that keeps its log in a file.

The venue outlives the process: what it received and filled is in its file, written before anybody is told. The requests
are a function of their number, so that the next process sends the last ones again, as a client does that had no answer.
"""

import os
from pathlib import Path

from gateway_world import ANN, BOB, CLOSES_NS, DAY, INSTRUMENTS, OPENS_NS, STRATEGY, VENUE, Clock, limits_of

from serving.contracts.orders import Acked, Cancel, Cancelled, CancelRejected, ChildOrder, Filled, Replaced, encode
from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.day import start_day
from serving.gateway.disk import RealDisk
from serving.gateway.events import Locate
from serving.gateway.recovery import OrderStatus, arm, open_gateway, reconcile
from serving.gateway.transport import CancelMessage, NewMessage
from serving.gateway.watch import Watch

GROUP = 8


class FileVenue:
    """A venue whose orders and fills are the lines of a file."""

    def __init__(self, path):
        self.orders, self.fills, self.sent = {}, [], []
        self.reports = []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for line in Path(path).read_text().splitlines():
            self.happen(line.split())

    def note(self, *words):
        line = " ".join(map(str, words))
        os.write(self._file, line.encode() + b"\n")
        self.happen(line.split())

    def happen(self, words):
        kind, order_id = words[0], int(words[1])
        if kind == "N":
            self.sent.append((order_id, words[2]))
            self.orders[order_id] = {"price": int(words[3]), "lots": int(words[4]), "filled": 0, "open": True}
        elif kind == "F":
            order = self.orders[order_id]
            lots, price = int(words[3]), int(words[4])
            self.fills.append(Filled(order_id=order_id, ts_ns=0, exec_id=words[2], price_ticks=price, lots=lots))
            order["filled"] += lots
            order["open"] = order["filled"] < order["lots"]
        elif kind == "X":
            self.orders[order_id]["open"] = False
        elif kind == "R":
            self.orders[order_id].update(price=int(words[2]), lots=int(words[3]))

    def send(self, message):
        order_id = message.order_id
        if isinstance(message, NewMessage):
            order = message.order
            self.note("N", order_id, order.key, order.price_ticks, order.lots)
            if order_id % 3:
                self.reports.append(Acked(order_id=order_id, ts_ns=0))
            if order_id % 2:
                self.note("F", order_id, f"x{len(self.fills)}", 1 + order.lots * (order_id % 5) // 5, order.price_ticks)
                self.reports.append(self.fills[-1])
        elif isinstance(message, CancelMessage):
            if self.orders[order_id]["open"]:
                self.note("X", order_id)
                self.reports.append(Cancelled(order_id=order_id, ts_ns=0))
            else:
                self.reports.append(CancelRejected(order_id=order_id, ts_ns=0, reason="late"))
        elif self.orders[order_id]["open"] and message.lots > self.orders[order_id]["filled"]:
            self.note("R", order_id, message.price_ticks, message.lots)
            self.reports.append(
                Replaced(order_id=order_id, ts_ns=0, price_ticks=message.price_ticks, lots=message.lots)
            )

    def barrier(self):
        return True

    def status(self, venue, order_id):
        order = self.orders.get(order_id)
        if order is None:
            return None
        fills = tuple(fill for fill in self.fills if fill.order_id == order_id)
        return OrderStatus(
            order_id=order_id, is_open=order["open"], price_ticks=order["price"], lots=order["lots"],
            filled_lots=order["filled"], fills=fills,
        )  # fmt: skip

    def open_ids(self):
        return {VENUE: [order_id for order_id, order in self.orders.items() if order["open"]]}

    def drop_copy(self):
        return [(VENUE, fill) for fill in self.fills]


def request(number):
    """The request of that number: mostly orders, now and then a cancel of an earlier one."""
    who = {"strategy": STRATEGY, "account": "A1", "algorithm": "twap", "trader": "ann", "sent_ns": OPENS_NS}
    if number % 4 == 3:
        return Cancel(key=f"k{number}", order_key=f"k{number - 11}", **who)
    return ChildOrder(
        key=f"k{number}", venue=VENUE, symbol="AIG", side="buy" if number % 2 else "sell", type="limit",
        price_ticks=9_900 - number % 50 if number % 2 else 10_100 + number % 50, lots=10 + number % 90, tif="day",
        reduce_only=False, **who,
    )  # fmt: skip


def recover(folder, venue, clock):
    """Open the journal, on the first time with limits and a day; compare the book; arm."""
    gateway = open_gateway(RealDisk(folder / "journal"), venue, clock())
    watch = Watch(gateway)
    clock.utc_ns = max(clock.utc_ns, gateway.state.utc_ns)  # the day goes on
    if gateway.state.limits is None:
        change = propose_limits(gateway, limits_of(max_request_age_ns=10**18), ANN, clock())
        approve_limits(gateway, change.change, ANN, clock())
        approve_limits(gateway, change.change, BOB, clock())
    if not gateway.state.day_open:
        located = (Locate(account="A1", symbol="AIG", lots=10**9),)
        start_day(gateway, DAY, OPENS_NS, CLOSES_NS, INSTRUMENTS, clock(), locates=located)
    assert reconcile(gateway, venue.status, venue.open_ids(), venue.drop_copy(), clock()) == ()
    arm(gateway, ANN, clock())
    clock.pass_(2)
    watch.heard(VENUE, clock.utc_ns, clock())
    for symbol in gateway.state.symbols:
        watch.quote(VENUE, symbol, 9_990, 10_010, clock())
        watch.status(VENUE, symbol, "open")
    watch.connected(STRATEGY, clock())
    watch.clock_offset(0, clock())
    return gateway


def trade(folder, answers, first):
    """Trade from request `first` on until killed.

    Each durable answer, and now and then the state's hash, goes to `answers`.
    """
    clock, venue = Clock(), FileVenue(folder / "venue.log")
    gateway = recover(folder, venue, clock)
    number = first
    os.write(answers, b"R armed now\n")
    while True:
        group = [request(number + place) for place in range(GROUP)]
        number += GROUP
        clock.pass_(0.001)
        decisions = [gateway.decide(one, clock()) for one in group]
        gateway.commit(clock())
        lines = [b"A %s %s\n" % (one.key.encode(), encode(d)) for one, d in zip(group, decisions, strict=True)]
        os.write(answers, b"".join(lines))
        reports, venue.reports = venue.reports, []
        for report in reports[: len(reports) - number % 3]:  # some reports die with the process
            gateway.on_report(VENUE, report, clock())
        if number % 5 == 0:
            gateway.commit(clock())
            os.write(answers, b"H %d %s\n" % (gateway.journal.sequence, gateway.state.hash().encode()))
