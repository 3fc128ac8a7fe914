"""What the fill models give for one documented set of resting orders: chance of a fill by wait, and what it is worth.

The set: every EVERY_S seconds of each session window an order at the best bid and one at the best ask, each a tenth of
the median displayed best size (at least a lot), sent with the instrument's latency, left alone for the longest wait.
Orders whose price was gone when they arrived, so that they took instead of resting, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.market.engine import Engine
from training.market.facts.estimate import BlockBootstrap, Curve, Estimate, Floats
from training.market.facts.sample import NS, Sample, block_sums
from training.market.orders import INSTRUCTION_DTYPE, PARENT_DTYPE, FillKind
from training.market.tape import FILL_MODELS, NoQueuesError

if TYPE_CHECKING:
    from training.market.day import MarketDay

EVERY_S = 30
WAITS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300)
MARK_S = 10
"""How long after a fill the mid is read that says what it was worth."""
SHARE_OF_BEST = 0.1
_FIRST_S, _ROOM_S = 60, 10


@dataclass(frozen=True)
class RestingOrders:
    """The set, its blocks, and the size of each order."""

    parents: NDArray[np.void]  # PARENT_DTYPE (N,)
    block: NDArray[np.int64]  # (N,) half-hour block over all days
    blocks: int
    lots: int


@dataclass(frozen=True)
class FillStudy:
    """What one fill model gave."""

    model: str
    orders: int
    filled: Curve  # share of lots filled against the wait, s
    numbers: tuple[Estimate, ...]  # share after 10 s, after 60 s; worth of a filled lot, ticks
    made_lots: int  # of historical executions that own orders got in place of others
    met_lots: int  # of displayed lots that crossed own orders


def resting_orders(days: "Sequence[MarketDay]", samples: Sequence[Sample]) -> RestingOrders:
    """The documented set on `days` and their prepared `samples`; raises InputError where no window is long enough."""
    found, blocks, first = [], [], 0
    shown = np.concatenate([sample.book.bid_sz[sample.book.two_sided, 0] for sample in samples])
    lots = max(1, round(SHARE_OF_BEST * float(np.median(shown))))
    longest = max(WAITS_S) * NS
    for number, (day, sample) in enumerate(zip(days, samples, strict=True)):
        for opens, closes in day.windows:
            last = closes - longest - _ROOM_S * NS - day.instrument.latency_ns
            starts = np.arange(opens + _FIRST_S * NS, last, EVERY_S * NS, dtype=np.int64)
            row = np.searchsorted(sample.book.ts_ns, starts, side="right") - 1
            starts = starts[(row >= 0) & sample.book.two_sided[np.maximum(row, 0)]]
            rows = np.zeros(2 * len(starts), PARENT_DTYPE)
            rows["day"], rows["lots"], rows["horizon_ns"] = number, lots, longest
            rows["start_ns"], rows["side"] = np.repeat(starts, 2), np.tile([1, -1], len(starts))
            found.append(rows)
            blocks.append(first + np.searchsorted(sample.starts_ns, rows["start_ns"], side="right") - 1)
        first += sample.blocks
    parents = np.concatenate(found)
    if not len(parents):
        raise InputError(f"no session window of {max(WAITS_S) + _FIRST_S} s with a two-sided book: nothing can rest")
    return RestingOrders(parents, np.concatenate(blocks), first, lots)


def study_fills(
    days: "Sequence[MarketDay]", samples: Sequence[Sample], orders: RestingOrders, bootstrap: BlockBootstrap
) -> list[FillStudy]:
    """Each fill model on the same orders; fifo only where the days are known order by order."""
    runs = {}
    for model in FILL_MODELS:
        try:
            runs[model] = _play(days, orders, model)
        except NoQueuesError:
            continue
    rested = np.all([run.rested for run in runs.values()], axis=0)
    return [_study(model, run, samples, orders, rested, bootstrap) for model, run in runs.items()]


@dataclass(frozen=True)
class _Run:
    filled: Floats  # (N, W) share of lots filled while resting, by wait
    rested: NDArray[np.bool_]  # (N,) nothing was taken on arrival
    fills: NDArray[np.void]
    made_lots: int
    met_lots: int


def _play(days: "Sequence[MarketDay]", orders: RestingOrders, model: str) -> _Run:
    count = len(orders.parents)
    engine = Engine(days, count, fill_model=model, fill_capacity=count * min(orders.lots, 64))
    engine.start(orders.parents, record=np.ones(count, np.int64))
    own_px, own_sz, _, _ = engine.best()
    instructions = np.zeros(count, INSTRUCTION_DTYPE)
    instructions["send"], instructions["rest_px"], instructions["rest_lots"] = 1, own_px, orders.lots
    starts = orders.parents["start_ns"].copy()
    engine.submit(starts, instructions)
    filled = np.zeros((count, len(WAITS_S)))
    for i, wait in enumerate(WAITS_S):
        engine.advance(starts + wait * NS)
        filled[:, i] = engine.states["passive_lots"] / orders.lots
    rested = (engine.states["aggressive_lots"] == 0) & (own_sz > 0)
    made, met = (int(engine.states[name].sum()) for name in ("made_lots", "met_lots"))
    return _Run(filled, rested, engine.fills(), made, met)


def _study(
    model: str,
    run: _Run,
    samples: Sequence[Sample],
    orders: RestingOrders,
    rested: NDArray[np.bool_],
    bootstrap: BlockBootstrap,
) -> FillStudy:
    block = np.where(rested, orders.block, -1)
    worth, lots = _worth(run.fills, samples, orders, rested)
    shares = [run.filled[:, i] for i in range(len(WAITS_S))]
    sums = block_sums(block, orders.blocks, np.ones(len(block)), *shares)
    sums = np.concatenate([sums, block_sums(orders.block[run.fills["episode"]], orders.blocks, worth * lots, lots)], 1)
    value, low, high = bootstrap.values(sums, lambda total: total[:, 1:-2] / total[:, 0:1])
    at = [WAITS_S.index(10), WAITS_S.index(60)]
    numbers = bootstrap.numbers(
        sums,
        lambda total: np.column_stack([total[:, 1:-2][:, at] / total[:, 0:1], total[:, -2] / total[:, -1]]),
        (
            (f"{model}_10s", "filled within 10 s", ""),
            (f"{model}_60s", "filled within 60 s", ""),
            (f"{model}_worth", f"mid {MARK_S} s after a fill against its price", "ticks"),
        ),
    )
    curve = Curve(np.array(WAITS_S, float), value, low, high, "wait, s", "share of lots filled", log_x=True)
    return FillStudy(model, int(rested.sum()), curve, numbers, run.made_lots, run.met_lots)


def _worth(
    fills: NDArray[np.void], samples: Sequence[Sample], orders: RestingOrders, rested: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Ticks that the mid stands in a filled lot's favour MARK_S after it, and lots; 0 lots where it does not count."""
    episode = fills["episode"]
    side, day = orders.parents["side"][episode], orders.parents["day"][episode]
    mid2 = np.zeros(len(fills), np.int64)
    for number, sample in enumerate(samples):
        mine = day == number
        mid2[mine] = sample.mid2_at(fills["ts_ns"][mine] + MARK_S * NS)
    counts = rested[episode] & (fills["kind"] == FillKind.PASSIVE) & (mid2 > 0)
    return side * (0.5 * mid2 - fills["price_ticks"]), np.where(counts, fills["lots"], 0).astype(np.float64)
