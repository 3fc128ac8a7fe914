"""The compiled exchange against a slow, obvious one, message by message; and the replay's books of lots balance."""

import numpy as np
import pytest
from sortedcontainers import SortedDict

from training.market import replay_state as places
from training.market.messages import blank_day
from training.market.order_replay import COMMAND_DTYPE, OrderReplay, ReplaySettings
from training.market.replay_state import CommandFlag, CommandKind, OrderStatus, SelfTrade

LOW, HIGH = 1_000, 1_400
DEFAULT, LONG = 200_000, 5_000_000


class Reference:
    """Price-time priority as one would explain it: a sorted map of prices, at each a list of orders."""

    def __init__(self, self_trade):
        self.self_trade = self_trade
        self.books = (SortedDict(lambda price: -price), SortedDict())  # bids, asks: best first
        self.orders = {}  # number -> [side, price, lots in all, filled, trader, flags, status]
        self.fills = []

    def carry_out(self, kind, ts, number, price, lots, side, flags, trader):
        if kind == CommandKind.LIMIT or kind == CommandKind.MARKET:
            self.orders[number] = [side, price, lots, 0, trader, flags, OrderStatus.SENT]
            self.enter(number, ts, kind == CommandKind.MARKET)
        elif self.orders[number][6] != OrderStatus.RESTING:
            return
        elif kind == CommandKind.CANCEL:
            self.withdraw(number, OrderStatus.CANCELLED)
        else:
            self.replace(number, ts, price, lots)

    def replace(self, number, ts, price, lots):
        order = self.orders[number]
        left = lots - order[3]
        if left <= 0:
            self.withdraw(number, OrderStatus.CANCELLED)
        elif price == order[1] and left <= order[2] - order[3]:
            order[2] = lots
        elif not (order[5] & CommandFlag.POST_ONLY and self.meets(order[0], price)):
            self.withdraw(number, OrderStatus.SENT)
            order[1], order[2] = price, lots
            self.enter(number, ts, False)

    def meets(self, side, price):
        other = self.books[1 - side]
        return bool(other) and (other.peekitem(0)[0] <= price if side == 0 else other.peekitem(0)[0] >= price)

    def withdraw(self, number, status):
        side, price = self.orders[number][:2]
        self.books[side][price].remove(number)
        if not self.books[side][price]:
            del self.books[side][price]
        self.orders[number][6] = status

    def enter(self, number, ts, at_any_price):
        order = self.orders[number]
        side, price, lots, _, trader, flags, _ = order
        if flags & CommandFlag.POST_ONLY and self.meets(side, price):
            order[6] = OrderStatus.REJECTED
            return
        stopped, other = False, self.books[1 - side]
        while order[3] < lots and other and (at_any_price or self.meets(side, price)) and not stopped:
            best, queue = other.peekitem(0)
            first = self.orders[queue[0]]
            if first[4] == trader and self.self_trade != SelfTrade.ALLOW:
                if self.self_trade == SelfTrade.CANCEL_RESTING:
                    self.withdraw(queue[0], OrderStatus.CANCELLED)
                else:
                    stopped = True
                continue
            take = min(lots - order[3], first[2] - first[3])
            self.fills.append((ts, queue[0], best, take, 1))
            self.fills.append((ts, number, best, take, 0))
            order[3] += take
            first[3] += take
            if first[3] == first[2]:
                self.withdraw(queue[0], OrderStatus.FILLED)
        if order[3] == lots:
            order[6] = OrderStatus.FILLED
        elif stopped or at_any_price or flags & CommandFlag.IOC:
            order[6] = OrderStatus.CANCELLED
        else:
            order[6] = OrderStatus.RESTING
            self.books[side].setdefault(price, []).append(number)


def random_commands(seed, count):
    """Orders, cancels and replaces around a wandering price; any order may be named, alive or not."""
    rng = np.random.default_rng(seed)
    kinds = [CommandKind.LIMIT, CommandKind.MARKET, CommandKind.CANCEL, CommandKind.REPLACE]
    commands = np.zeros(count, COMMAND_DTYPE)
    kind = rng.choice([int(k) for k in kinds], count, p=[0.5, 0.05, 0.3, 0.15])
    kind[0] = CommandKind.LIMIT
    new = (kind == CommandKind.LIMIT) | (kind == CommandKind.MARKET)
    number = np.cumsum(new) - 1
    recent = np.maximum(0, number - rng.geometric(0.02, count))
    middle = (LOW + HIGH) / 2 + 60 * np.sin(np.arange(count) / 5_000)
    commands["kind"], commands["order"] = kind, np.where(new, number, recent)
    commands["arrive_ns"] = np.arange(1, count + 1) * 10
    commands["side"], commands["trader"] = rng.integers(0, 2, count), rng.integers(0, 3, count)
    commands["price"] = np.clip(middle + rng.normal(0, 6, count), LOW, HIGH).astype(int)
    commands["lots"] = np.minimum(rng.geometric(0.2, count), 60)
    flags = rng.choice([0, int(CommandFlag.POST_ONLY), int(CommandFlag.IOC)], count, p=[0.7, 0.15, 0.15])
    commands["flags"] = np.where(kind == CommandKind.LIMIT, flags, 0)
    return commands


def exchange(self_trade, commands):
    market = OrderReplay(blank_day(LOW, HIGH), ReplaySettings(0, 0, self_trade))
    market.schedule(commands)
    market.advance(int(commands["arrive_ns"][-1]))
    return market


def merged(fills):
    """A taker's fills at one price and moment as the one that the exchange reports, after the first of its makers."""
    rows, at = [], {}
    for ts, number, price, lots, maker in fills:
        if maker or (ts, number, price) not in at:
            at[ts, number, price] = len(rows)
            rows.append([ts, number, price, lots, maker])
        else:
            rows[at[ts, number, price]][3] += lots
    return sorted(map(tuple, rows))


def compare(seed, count, self_trade):
    commands = random_commands(seed, count)
    market, reference = exchange(self_trade, commands), Reference(self_trade)
    for ts, number, price, lots, kind, side, flags, trader in commands.tolist():
        reference.carry_out(kind, ts, number, price, lots, side, flags, trader)
    fills = market.fills
    found = [tuple(row) for row in fills[["ts_ns", "order", "price", "lots", "maker"]].tolist()]
    assert merged(found) == merged(reference.fills)
    makers = [row for row in found if row[4]]
    assert makers == [row for row in reference.fills if row[4]]  # and in the very order in which they were met
    own = market._market.own
    status = own["status"][: len(reference.orders)].tolist()
    assert status == [int(order[6]) for order in reference.orders.values()]
    assert own["filled"][: len(status)].tolist() == [order[3] for order in reference.orders.values()]
    assert queues(market) == [[(price, list(numbers)) for price, numbers in book.items()] for book in reference.books]
    assert len(fills) > count // 20
    return market


def queues(market):
    """Own orders by side, price and place, read off the nodes; checks that nodes, totals and bits agree."""
    arrays, day = market._market, market.day
    state, nodes = arrays.state, arrays.nodes
    sides = [[], []]
    for group in range(arrays.pages.shape[1]):
        for side in range(2):
            for slot in range(64):
                key = 64 * group + slot
                level = 64 * int(arrays.pages[side, group]) + slot
                held = arrays.pages[side, group] >= 0 and nodes[level]["lots"] > 0
                word = int(arrays.bits[side * state[places.STRIDE] + group])
                assert bool(word >> slot & 1) == bool(held)
                if not held:
                    continue
                price = day.low + (key if side else day.span - 1 - key)
                numbers, total, before, node = [], 0, level, int(nodes[level]["next"])
                while node != level:
                    assert nodes[node]["prev"] == before and nodes[node]["lots"] > 0
                    total += int(nodes[node]["lots"])
                    numbers.append(node - int(state[places.OWN_BASE]))
                    before, node = node, int(nodes[node]["next"])
                assert nodes[level]["prev"] == before and nodes[level]["lots"] == total
                sides[side].append((price, numbers))
    for side in range(2):
        best = min((day.low + day.span - 1 - p if side == 0 else p - day.low for p, _ in sides[side]), default=1 << 40)
        assert state[side] == best
    return sides


@pytest.mark.parametrize("self_trade", list(SelfTrade))
def test_exchange_when_random_messages_come_then_it_does_what_the_obvious_one_does(self_trade):
    market = compare(11 + self_trade, DEFAULT // 3 + 1, self_trade)
    best_bid, bid_lots, best_ask, ask_lots = market.best()
    assert not (bid_lots and ask_lots) or best_bid < best_ask


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_exchange_when_five_million_messages_come_then_it_does_what_the_obvious_one_does(part):
    compare(1_000 + part, LONG // 10, SelfTrade(part % 3))


def test_exchange_when_the_seed_is_the_same_then_so_is_every_byte():
    first, second = (exchange(SelfTrade.CANCEL_RESTING, random_commands(5, 20_000)) for _ in range(2))
    for one, other in zip(first._market, second._market, strict=True):
        assert one.tobytes() == other.tobytes()
