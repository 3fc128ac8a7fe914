"""An oracle that reads the venue's log and says where a limit was broken. It shares no code with the gateway.

The log holds what the venue received (new, replace, cancel), what it did (fill, cancelled, replaced, rejected), what
the gateway had been told by then (told, bust), and the world as the gateway was shown it (quote, volume, status,
limits, kill, rearm, stop, enable, day). Positions and open orders are the venue's own truth, not the gateway's.
"""

from collections import defaultdict, deque

SLACK = 1.0011  # marks may lag the mid by 10 bps and a rounding


class Breach(AssertionError):
    """The venue received what no limit lets through."""


class Oracle:
    def __init__(self):
        self.orders = {}
        self.seen = set()
        self.checked = 0
        self.quotes, self.volume, self.status = {}, defaultdict(int), {}
        self.limits = None
        self.killed, self.stopped = set(), set()
        self.outgrown = {}
        self.times = defaultdict(deque)
        self.mono = 0
        self.tick = {}
        self.locates = {}
        self.day()

    def day(self):
        self.pos = defaultdict(int)  # (account, strategy, symbol)
        self.buys, self.sells = defaultdict(int), defaultdict(int)
        self.count = defaultdict(int)  # open orders by scope
        self.turnover = defaultdict(int)  # lots filled and open by scope
        self.cash, self.told = defaultdict(int), defaultdict(int)  # of what the gateway had been told
        self.value = defaultdict(dict)  # gross by symbol and leg
        self.book = defaultdict(dict)  # open orders by venue and symbol
        self.gross = defaultdict(int)
        self.outgrown = {}
        self.orders.clear()

    def read(self, entry):
        getattr(self, "on_" + entry[0])(*entry[1:])

    def limit(self, name, account, strategy, symbol):
        found = [self.limits["all"][name]]
        for scope, key in (("account", account), ("strategy", strategy), ("symbol", symbol)):
            if name in self.limits.get(scope, {}).get(key, {}):
                found.append(self.limits[scope][key][name])
        return min(found)

    def own(self, name, scope, key):
        if scope == "all":
            return self.limits["all"][name]
        return self.limits.get(scope, {}).get(key, {}).get(name)

    def on_time(self, mono):
        self.mono = mono

    def on_day(self, instruments, locates):
        self.day()
        self.tick = dict(instruments)
        self.locates = dict(locates)

    def on_quote(self, symbol, bid, ask):
        self.quotes[symbol] = (bid, ask)
        before = dict(self.gross)
        for leg in self.value[symbol]:
            self.revalue(leg)
        for scope in self.outgrown:
            self.outgrown[scope] += max(0, self.gross[scope] - before[scope])

    def on_volume(self, symbol, lots):
        self.volume[symbol] = lots

    def on_status(self, symbol, status):
        self.status[symbol] = status

    def on_limits(self, limits):
        """Every report was delivered before: what exceeds a lowered limit now may stand, and not grow."""
        self.limits = limits
        self.outgrown = dict(self.gross)

    def on_kill(self, scope, name):
        self.killed.add((scope, name))

    def on_rearm(self, scope, name):
        self.killed.discard((scope, name))

    def on_stop(self, venue):
        self.stopped.add(venue)

    def on_enable(self, venue):
        self.stopped.discard(venue)

    def on_new(self, order_id, venue, account, strategy, symbol, sign, price, lots, reduce_only):
        if order_id in self.seen:
            raise Breach(f"order {order_id} was sent twice")
        self.seen.add(order_id)
        self.orders[order_id] = order = {
            "venue": venue, "account": account, "strategy": strategy, "symbol": symbol, "sign": sign, "price": price,
            "lots": lots, "filled": 0, "asked": None, "reduce": reduce_only, "held": 0,
        }  # fmt: skip
        self.check_order(order_id, order, price, lots)
        leg = (account, strategy, symbol)
        self.check_reduce(order, leg, lots)
        for scope in self.scopes(order):
            self.count[scope] += 1
            most = self.own("max_open_orders", *scope)
            if most is not None and self.count[scope] > most:
                raise Breach(f"{self.count[scope]} open orders in {scope}, limit {most}")
        before, known = dict(self.gross), self.known(leg)
        self.hold(order, lots)
        self.check_sums(order_id, order, leg, before, self.known(leg) > known)
        self.book[venue, symbol][order_id] = order

    def on_replace(self, order_id, price, lots):
        order = self.orders[order_id]
        if order.get("closed"):
            return
        self.check_order(order_id, order, price, lots)
        leg = (order["account"], order["strategy"], order["symbol"])
        more = lots - order["filled"] - order["held"]
        order["asked"] = (price, lots)
        if more > 0:
            self.check_reduce(order, leg, more)
            before, known = dict(self.gross), self.known(leg)
            self.hold(order, lots - order["filled"])
            self.check_sums(order_id, order, leg, before, self.known(leg) > known)

    def on_cancel(self, order_id):
        pass

    def on_fill(self, order_id, lots):
        order = self.orders[order_id]
        leg = (order["account"], order["strategy"], order["symbol"])
        self.pos[leg] += order["sign"] * lots
        order["filled"] += lots
        for scope in self.scopes(order):
            self.turnover[scope] += lots
        self.settle(order)

    def on_told(self, order_id, price, lots):
        order = self.orders[order_id]
        leg = (order["account"], order["strategy"], order["symbol"])
        signed = order["sign"] * lots
        self.told[leg] += signed
        self.cash[leg] -= signed * price * self.tick[order["symbol"]]

    def on_bust(self, order_id, price, lots):
        order = self.orders[order_id]
        leg = (order["account"], order["strategy"], order["symbol"])
        signed = order["sign"] * lots
        self.pos[leg] -= signed
        self.told[leg] -= signed
        self.cash[leg] += signed * price * self.tick[order["symbol"]]
        order["filled"] -= lots
        self.settle(order)

    def on_replaced(self, order_id, price, lots):
        order = self.orders[order_id]
        order["price"], order["lots"], order["asked"] = price, lots, None
        self.settle(order)

    def on_replace_rejected(self, order_id):
        order = self.orders[order_id]
        order["asked"] = None
        self.settle(order)

    def on_closed(self, order_id):
        order = self.orders[order_id]
        if not order.get("closed"):
            order["closed"] = True
            del self.book[order["venue"], order["symbol"]][order_id]
            self.hold(order, 0)
            for scope in self.scopes(order):
                self.count[scope] -= 1

    def settle(self, order):
        if order.get("closed"):
            self.revalue((order["account"], order["strategy"], order["symbol"]))
            return
        left = max(order["lots"], order["asked"][1] if order["asked"] else 0) - order["filled"]
        self.hold(order, max(0, left))

    def hold(self, order, lots):
        leg = (order["account"], order["strategy"], order["symbol"])
        change, order["held"] = lots - order["held"], lots
        (self.buys if order["sign"] > 0 else self.sells)[leg] += change
        for scope in self.scopes(order):
            self.turnover[scope] += change
        self.revalue(leg)

    def revalue(self, leg):
        bid, ask = self.quotes[leg[2]]
        worst = max(abs(self.pos[leg] + self.buys[leg]), abs(self.pos[leg] - self.sells[leg]))
        value = worst * (bid + ask) * self.tick[leg[2]] // 2
        legs = self.value[leg[2]]
        change = value - legs.get(leg, 0)
        legs[leg] = value
        for scope in (("all", ""), ("account", leg[0]), ("strategy", leg[1])):
            self.gross[scope] += change

    def known(self, leg):
        """Worst-case lots of a leg as the gateway can know them: a fill that it has not been told of is still open."""
        untold = self.pos[leg] - self.told[leg]
        buys, sells = self.buys[leg] + max(untold, 0), self.sells[leg] + max(-untold, 0)
        return max(abs(self.told[leg] + buys), abs(self.told[leg] - sells))

    @staticmethod
    def scopes(order):
        return (
            ("all", ""), ("account", order["account"]), ("strategy", order["strategy"]), ("symbol", order["symbol"]),
        )  # fmt: skip

    def check_order(self, order_id, order, price, lots):
        self.checked += 1
        account, strategy, symbol, venue = order["account"], order["strategy"], order["symbol"], order["venue"]
        for scope in (*self.scopes(order), ("venue", venue)):
            if scope in self.killed:
                raise Breach(f"order {order_id} came under a kill of {scope}")
        if venue in self.stopped:
            raise Breach(f"order {order_id} came to {venue}, which had filled falsely")
        if self.status.get(symbol) != "open":
            raise Breach(f"order {order_id} in {symbol}, which is {self.status.get(symbol)}")
        if lots > self.limit("max_order_lots", account, strategy, symbol):
            raise Breach(f"order {order_id} of {lots} lots")
        bid, ask = self.quotes[symbol]
        if price and (
            price * 10_000 > ask * (10_000 + self.limits["all"]["collar_bps"])
            or price * 10_000 < bid * (10_000 - self.limits["all"]["collar_bps"])
        ):
            raise Breach(f"order {order_id} at {price}, market {bid} to {ask}")
        value = lots * max(price, ask) * self.tick[symbol]
        if value > self.limit("max_order_value", account, strategy, symbol):
            raise Breach(f"order {order_id} worth {value}")
        for scope in (("all", ""), ("strategy", strategy)):
            most = self.own("max_messages_per_second", *scope)
            times = self.times[scope]
            while times and self.mono - times[0] >= 1_000_000_000:
                times.popleft()
            times.append(self.mono)
            if most is not None and len(times) > most:
                raise Breach(f"{len(times)} messages in a second, {scope}")
        for other in self.book[venue, symbol].values():
            if other["sign"] == order["sign"]:
                continue
            theirs = other["price"], other["asked"][0] if other["asked"] else other["price"]
            for their_price in theirs:
                if not price or not their_price or (price - their_price) * order["sign"] >= 0:
                    raise Breach(f"order {order_id} at {price} meets our own at {their_price}")

    def check_reduce(self, order, leg, lots):
        if order["reduce"]:
            left = (-self.pos[leg] - self.buys[leg] if order["sign"] > 0 else self.pos[leg] - self.sells[leg]) - lots
            if left < 0:
                raise Breach(f"reduce-only order of {lots} lots could turn {leg}: position {self.pos[leg]}")

    def check_sums(self, order_id, order, leg, before, grew):
        account, strategy, symbol = leg
        sign = order["sign"]
        for scope, legs in (
            (("all", ""), None),
            (("symbol", symbol), None),
            (("account", account), 0),
            (("strategy", strategy), 1),
        ):
            most = self.own("max_position_lots", *scope)
            if most is None:
                continue
            worst = 0
            for other in self.value[symbol]:
                if legs is None or other[legs] == leg[legs]:
                    worst += self.pos[other] + self.buys[other] if sign > 0 else self.sells[other] - self.pos[other]
            if worst > most:
                raise Breach(f"worst-case position {worst} of {scope} in {symbol}, limit {most}")
        for scope in (("all", ""), ("account", account), ("strategy", strategy)):
            most = self.own("max_gross_value", *scope)
            # what adds nothing passes a limit that was lowered, or that the market outgrew
            adds = grew and self.gross[scope] > before.get(scope, 0)
            if most is not None and adds and self.gross[scope] > max(most, self.outgrown.get(scope, 0)) * SLACK:
                raise Breach(f"gross {self.gross[scope]} of {scope}, limit {most}")
            most = self.own("max_loss", *scope)
            if most is not None and not order["reduce"] and order_id % 4 == 0:  # the dear one
                self.check_loss(scope, most)
        for scope in self.scopes(order):
            most = self.own("max_day_lots", *scope)
            if most is not None and self.turnover[scope] > most:
                raise Breach(f"turnover {self.turnover[scope]} of {scope}, limit {most}")
        own = self.turnover["symbol", symbol]
        most = self.limits["all"]["participation_floor_lots"]
        most += self.volume[symbol] * self.limits["all"]["max_participation_bps"] // 10_000
        if own > most:
            raise Breach(f"participation of {own} lots in {symbol}, limit {most}")
        if sign < 0:
            legs = [other for other in self.value[symbol] if other[0] == account]
            short = sum(self.sells[other] - self.pos[other] for other in legs)
            if short > self.locates[account, symbol]:
                raise Breach(f"{short} lots short in {symbol}, {self.locates[account, symbol]} located")

    def check_loss(self, scope, most):
        profit = slack = 0
        for leg, lots in self.told.items():
            if scope[0] == "all" or scope[1] in leg[:2]:
                bid, ask = self.quotes[leg[2]]
                worth = lots * (bid + ask) * self.tick[leg[2]] // 2
                profit += self.cash[leg] + worth
                slack += abs(worth) * (SLACK - 1)
        if -profit > most + slack:
            raise Breach(f"loss {-profit} of {scope}, limit {most}")
