"""Market orders in the world with impact against the formulas written out: the sum over own trades, fill by fill."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import NS, make_day, random_rows

from training.market.engine import Engine
from training.market.impact import GOLDEN, ImpactParameters, dither_of
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE

EPISODES, CHILDREN, PAUSE_NS, LATENCY_NS = 8, 12, 10 * NS, 10_000_000
weights = st.floats(0, 900)


class Reference:
    """One parent of market orders; the displacement is summed over all own trades each time that it is asked for."""

    def __init__(self, day, parent):
        self.book, self.impact, self.side = day.book, day.impact, int(parent["side"])
        self.row = int(np.searchsorted(day.book.ts_ns, parent["start_ns"], side="right")) - 1
        self.mid2 = int(day.book.bid_px[self.row, 0]) + int(day.book.ask_px[self.row, 0])
        self.dither = float(dither_of(int(parent["start_ns"]), 0))
        self.open, self.trades, self.taken, self.fills = int(parent["lots"]), [], {}, []

    def levels(self, row):
        px, sz = (self.book.ask_px, self.book.ask_sz) if self.side > 0 else (self.book.bid_px, self.book.bid_sz)
        return [(int(p), int(s)) for p, s in zip(px[row], sz[row], strict=True)]

    def ticks(self, bps):
        return 0.5e-4 * self.mid2 * bps

    def shift(self, at_ns):
        """What was in force: brought up to date at whole seconds, and when an own order had taken."""
        if not self.trades:
            return 0
        known_ns = max(at_ns // NS * NS, self.trades[-1][0])
        shares = [(lots / self.impact.adv_lots, (known_ns - ts_ns) / NS) for ts_ns, lots in self.trades]
        moved = sum(share * self.ticks(float(self.impact.kernel_bps(age))) for share, age in shares)
        return min(int(np.floor(moved + self.dither)), self.mid2 // 8)

    def follow(self, row):
        for at in range(self.row + 1, row + 1):
            shown, levels = dict(self.levels(at)), self.levels(at)
            for price in list(self.taken):
                if self.side * (price - levels[-1][0]) <= 0:
                    self.taken[price] = min(self.taken[price], shown.get(price, 0))
        self.row = row

    def take(self, now_ns, lots, forced):
        at_ns, lots = now_ns + LATENCY_NS, min(lots, self.open)
        if lots == 0:
            return
        self.follow(int(np.searchsorted(self.book.ts_ns, at_ns, side="right")) - 1)
        levels = self.levels(self.row)
        best, (last, _), mean = levels[0][0], levels[-1], sum(size for _, size in levels) // len(levels)
        beyond = [(last + self.side * k, mean) for k in range(1, lots + len(self.taken) + 1)]
        left, walk, mine = lots, 0, []
        for price, size in levels + beyond:
            here = min(left, size - self.taken.get(price, 0))
            if here > 0:
                mine.append((price, here))
                walk, left = walk + abs(price - best) * here, left - here
                if not forced or self.side * (price - last) <= 0:
                    self.taken[price] = self.taken.get(price, 0) + here
        lacks = self.ticks(float(self.impact.concession_bps(lots))) - walk / lots
        u = (self.dither + GOLDEN * len(self.trades)) % 1.0
        moved = self.shift(at_ns) + max(0, min(int(np.floor(lacks + u)), self.mid2 // 8) if lacks > 0 else 0)
        self.fills += [(at_ns, price + self.side * moved, here) for price, here in mine]
        self.trades.append((at_ns, lots))
        self.open -= lots


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), permanent=weights, fast=weights, slow=weights, temporary=st.floats(0, 1))
def test_fills_of_market_orders_are_those_of_the_formulas(seed, permanent, fast, slow, temporary):
    rng = np.random.default_rng(seed)
    impact = ImpactParameters(permanent, (fast, slow), (2.0, 30.0), temporary, 100.0, 4000.0)
    rows = random_rows(rng, 1500, step_ns=NS // 2)
    day = replace(make_day(rows, latency_ns=LATENCY_NS), impact=impact)
    engine, parents = Engine([day], EPISODES, fill_capacity=1 << 13, impact_scale=1.0), np.zeros(EPISODES, PARENT_DTYPE)
    parents["side"], parents["lots"] = rng.choice([-1, 1], EPISODES), rng.integers(50, 800, EPISODES)
    parents["start_ns"] = int(day.windows[0][0]) + rng.integers(60, 400, EPISODES) * NS
    parents["horizon_ns"] = CHILDREN * PAUSE_NS
    engine.start(parents, record=np.ones(EPISODES, np.int64))
    slow_ones = [Reference(day, parent) for parent in parents]
    for child in range(CHILDREN):
        now, messages = parents["start_ns"] + child * PAUSE_NS, np.zeros(EPISODES, INSTRUCTION_DTYPE)
        messages["send"], messages["cross_lots"], messages["beyond"] = 1, rng.integers(1, 120, EPISODES), 1
        for one, at, lots in zip(slow_ones, now.tolist(), messages["cross_lots"].tolist(), strict=True):
            one.take(at, lots, False)
        engine.submit(now, messages)
        engine.advance(now + PAUSE_NS)
    engine.complete()
    found = engine.fills()
    for i, one in enumerate(slow_ones):
        one.take(int(parents["start_ns"][i] + parents["horizon_ns"][i]), one.open, True)
        own = found[found["episode"] == i]
        assert own[["ts_ns", "price_ticks", "lots"]].tolist() == one.fills
