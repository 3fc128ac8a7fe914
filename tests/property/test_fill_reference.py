"""The compiled replay of depth against a slow, obvious one that visits every row: fills by time, price and lots."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import NS, make_day, random_rows

from training.market.engine import Engine
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE

PASSIVE, AGGRESSIVE, FORCED = 1, 2, 3
EPISODES, DECISIONS, SPAN_NS = 6, 12, 96 * NS
LATENCIES = (0, 10_000_000, 3 * NS)


class Reference:
    """One parent under the conservative model; what rests is a list of [lots of others ahead, own lots]."""

    def __init__(self, day, parent, latency_ns):
        self.book, self.latency_ns = day.book, None if day.instrument.snapshot_data else latency_ns
        self.side, self.lots, start = int(parent["side"]), int(parent["lots"]), int(parent["start_ns"])
        self.row = int(np.searchsorted(day.book.ts_ns, start, side="right")) - 1
        self.fills, self.taken, self.price, self.parts, self.pending = [], {}, 0, [], None

    @property
    def open(self):
        return self.lots - sum(fill[2] for fill in self.fills)

    def levels(self, side, row=None):
        book, row = self.book, self.row if row is None else row
        px, sz = (book.bid_px, book.bid_sz) if side > 0 else (book.ask_px, book.ask_sz)
        return [(int(p), int(s)) for p, s in zip(px[row], sz[row], strict=True) if s > 0]

    def shown(self, side, price):
        """Lots displayed at a price; None beyond the visible levels."""
        found = dict(self.levels(side))
        behind = side * (price - self.levels(side)[-1][0]) < 0
        return None if behind else found.get(price, 0)

    def send(self, now_ns, price, rest, cross, beyond, kind=AGGRESSIVE):
        later = np.searchsorted(self.book.ts_ns, now_ns, side="right")
        arrives = int(self.book.ts_ns[later]) if self.latency_ns is None else now_ns + self.latency_ns
        self.pending = [arrives, price, rest, cross, beyond, kind, 0]

    def fill(self, ts_ns, price, lots, kind):
        self.fills.append((ts_ns, price, lots, kind))
        if kind == PASSIVE and self.pending:
            self.pending[6] += lots

    def take(self, ts_ns, lots, limit, beyond, kind):
        left, levels = lots, self.levels(-self.side)
        mean = sum(size for _, size in levels) // len(levels)
        if beyond:
            levels += [(levels[-1][0] + self.side * k, mean) for k in range(1, lots + len(self.taken) + 1)]
        for k, (price, size) in enumerate(levels):
            if limit and self.side * (price - limit) > 0:
                break
            lots_here = min(left, size - self.taken.get(price, 0))
            if lots_here > 0:
                self.fill(ts_ns, price, lots_here, kind)
                if kind != FORCED or k < len(self.levels(-self.side)):
                    self.taken[price] = self.taken.get(price, 0) + lots_here
                left -= lots_here
        return lots - left

    def arrive(self):
        ts_ns, price, rest, cross, beyond, kind, filled = self.pending
        self.pending = None
        rest = max(0, rest - max(0, filled - cross))
        cross = min(max(0, cross - filled), self.open)
        if cross or not rest or price != self.price:
            self.parts = []
        if cross:
            self.take(ts_ns, cross, 0, beyond, kind)
        rest = min(rest, self.open)
        if not self.parts and rest:
            rest -= self.take(ts_ns, rest, price, 0, AGGRESSIVE)
        have = sum(lots for _, lots in self.parts)
        if rest < have:  # the newest leave first
            for part in reversed(self.parts):
                gone = min(part[1], have - rest)
                part[1], have = part[1] - gone, have - gone
        elif rest > have:
            shown = self.shown(self.side, price)
            ahead = shown if shown is not None else max(size for _, size in self.levels(self.side))
            added = rest - have + sum(lots for _, lots in self.parts[1:])
            self.parts = [*self.parts[:1], [ahead, added]]
        self.price, self.parts = price, [part for part in self.parts if part[1]]

    def meet_row(self):
        ts_ns = int(self.book.ts_ns[self.row])
        for price in list(self.taken):
            shown = self.shown(-self.side, price)
            self.taken[price] = self.taken[price] if shown is None else min(self.taken[price], shown)
        volume, price, aggressor = (int(getattr(self.book, f"trade_{name}")[self.row]) for name in ("sz", "px", "side"))
        if self.parts and volume and aggressor != self.side:
            if price == self.price:
                self.meet_volume(ts_ns, volume)
            elif self.side * (self.price - price) > 0:
                self.parts = [[0, lots] for _, lots in self.parts]
                self.meet_volume(ts_ns, volume)
        shown = self.shown(self.side, self.price) if self.parts else None
        if shown is not None:
            self.parts = [[min(ahead, shown), lots] for ahead, lots in self.parts]
        for price, size in self.levels(-self.side):
            here = min(sum(lots for _, lots in self.parts), size - self.taken.get(price, 0))
            if self.side * (price - self.price) <= 0 and here > 0:
                self.taken[price] = self.taken.get(price, 0) + here
                self.fill_resting(ts_ns, here)

    def meet_volume(self, ts_ns, volume):
        """Others ahead go first; what is ahead of the second part counts the others ahead of the first."""
        own = 0
        for part in self.parts:
            others = min(part[0], volume - own)
            part[0] -= others
            own += min(part[1], volume - own - others)
        if own:
            self.fill_resting(ts_ns, own)

    def fill_resting(self, ts_ns, lots):
        self.fill(ts_ns, self.price, lots, PASSIVE)
        for part in self.parts:
            gone = min(part[1], lots)
            part[1], lots = part[1] - gone, lots - gone
        self.parts = [part for part in self.parts if part[1]]

    def play(self, until_ns):
        """Rows first, then the message that arrives with or after them."""
        ts_ns = self.book.ts_ns
        while True:
            following = int(ts_ns[self.row + 1]) if self.row + 1 < len(ts_ns) else 1 << 62
            if self.pending and self.pending[0] < following and self.pending[0] <= until_ns:
                self.arrive()
            elif following <= until_ns:
                self.row += 1
                if self.open:
                    self.meet_row()
            else:
                return


def random_messages(engine, rng):
    """Near the best price, often at the price that rests already; some take, some beyond what is visible."""
    found, states = np.zeros(EPISODES, INSTRUCTION_DTYPE), engine.states
    near = np.maximum(1, engine.best()[0] - states["side"] * rng.integers(-3, 4, EPISODES))
    again = (rng.random(EPISODES) < 0.5) & (states["rest_lots"] > 0)
    found["send"] = (rng.random(EPISODES) < 0.8) & (states["done"] == 0)
    found["rest_px"] = np.where(again, states["rest_px"], near)
    found["rest_lots"] = rng.integers(0, 200, EPISODES)
    found["cross_lots"] = rng.integers(0, 90, EPISODES) * (rng.random(EPISODES) < 0.3)
    found["beyond"] = rng.random(EPISODES) < 0.3
    return found


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), latency_ns=st.sampled_from(LATENCIES), snapshot=st.booleans())
def test_fills_are_those_of_a_slow_replay_that_visits_every_row(seed, latency_ns, snapshot):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 800, step_ns=int(rng.choice([NS // 2, NS])))
    day = make_day(rows, snapshot=snapshot, latency_ns=latency_ns)
    engine, parents = Engine([day], EPISODES, fill_capacity=1 << 14), np.zeros(EPISODES, PARENT_DTYPE)
    parents["side"], parents["lots"] = rng.choice([-1, 1], EPISODES), rng.integers(20, 2500, EPISODES)
    parents["start_ns"] = int(day.book.ts_ns[0]) + rng.integers(5, 60, EPISODES) * NS
    parents["horizon_ns"] = SPAN_NS
    engine.start(parents, record=np.ones(EPISODES, np.int64))
    slow = [Reference(day, parent, latency_ns) for parent in parents]
    for step in range(DECISIONS):
        now = parents["start_ns"] + step * SPAN_NS // DECISIONS
        messages = random_messages(engine, rng)
        for one, at, message in zip(slow, now.tolist(), messages.tolist(), strict=True):
            one.play(at)
            if message[0]:
                one.send(at, *message[1:])
        engine.submit(now, messages)
        engine.advance(now + SPAN_NS // DECISIONS)
    engine.complete()
    found = engine.fills()
    for i, (one, end) in enumerate(zip(slow, (parents["start_ns"] + SPAN_NS).tolist(), strict=True)):
        one.play(end)
        if one.open:
            one.send(end, 0, 0, one.open, 1, FORCED)
            one.play(one.pending[0])
        own = found[found["episode"] == i]
        assert own[["ts_ns", "price_ticks", "lots", "kind"]].tolist() == one.fills
        assert one.open == 0
