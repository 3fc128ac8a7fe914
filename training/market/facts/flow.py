"""The flow of orders: memory of signs, what a trade does to the price, times between trades, the day's volume."""

from collections.abc import Sequence

import numpy as np

from training.market.facts.estimate import BlockBootstrap, Curve, Estimate, Fact, Floats, power_law
from training.market.facts.sample import (
    JOIN_NS,
    Sample,
    autocorrelation,
    autocorrelation_sums,
    block_sums,
    stacked,
)

EVENT_LAGS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100)
RESPONSE_LAGS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200)
SIZE_BINS = 32
"""Trades of [2^i, 2^(i+1)) lots share bin i."""
_LEAST_TRADES = 30  # in a bin of sizes for it to be shown and fitted
_DURATIONS_S = np.logspace(-3, 3, 25)
_TRADE = "; a trade is all that trades at one moment (of snapshots: between two), its side that of the net volume"


def trade_signs(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Autocorrelation of the signs of trades."""
    parts = []
    for sample in samples:
        trades = sample.trades
        signed = trades.side != 0
        block, side = trades.block[signed], trades.side[signed].astype(np.float64)
        parts.append(autocorrelation_sums(side, block, sample.window[block], sample.blocks, EVENT_LAGS))
    return _sign_fact(
        "trade_signs",
        "Memory of trade signs",
        "Autocorrelation of the aggressor's sign, lag counted in trades" + _TRADE + ".",
        "Lillo and Farmer 2004; Bouchaud, Gefen, Potters and Wyart 2004",
        "trades",
        stacked(parts),
        bootstrap,
    )


def order_flow(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Autocorrelation of the signs of all events at the best prices."""
    parts = []
    for sample in samples:
        block, sign = flow_signs(sample)
        parts.append(autocorrelation_sums(sign, block, sample.window[block], sample.blocks, EVENT_LAGS))
    return _sign_fact(
        "order_flow",
        "Memory of order flow",
        "Autocorrelation of the sign of each change at the best prices: + where bids are added or asks are taken or "
        "cancelled, - the other way; lag counted in such events, what happens at one moment being one.",
        "Cont, Kukanov and Stoikov 2014 (the sign of e_n); Lillo and Farmer 2004",
        "events",
        stacked(parts),
        bootstrap,
    )


def flow_signs(sample: Sample) -> tuple[np.ndarray, Floats]:
    """Block and sign of each change at the best prices (Cont, Kukanov and Stoikov 2014, equation 2: sign of e_n).

    Rows within JOIN_NS of the one before are one change: how a feed cuts one event to pieces is not memory.
    """
    book, ts_ns = sample.book, sample.book.ts_ns
    row = np.flatnonzero(np.append(np.diff(ts_ns) > JOIN_NS, len(ts_ns) > 0))  # the last of each burst
    bid, ask, bid_sz, ask_sz = (
        column[row, 0].astype(np.int64) for column in (book.bid_px, book.ask_px, book.bid_sz, book.ask_sz)
    )
    two_sided, block = book.two_sided[row], sample.block[row]
    flow = np.where(bid[1:] >= bid[:-1], bid_sz[1:], 0) - np.where(bid[1:] <= bid[:-1], bid_sz[:-1], 0)
    flow -= np.where(ask[1:] <= ask[:-1], ask_sz[1:], 0) - np.where(ask[1:] >= ask[:-1], ask_sz[:-1], 0)
    whole = two_sided[1:] & two_sided[:-1] & (block[1:] >= 0) & (block[:-1] >= 0)
    changed = whole & (flow != 0)
    return block[1:][changed], np.sign(flow[changed]).astype(np.float64)


def _sign_fact(
    key: str, title: str, definition: str, source: str, unit: str, sums: Floats, bootstrap: BlockBootstrap
) -> Fact:
    lags = np.array(EVENT_LAGS, np.float64)
    correlation, low, high = bootstrap.values(sums, autocorrelation)
    chosen = (1, 10, 100)
    at = [EVENT_LAGS.index(lag) for lag in chosen]
    names = tuple((f"{key}_{lag}", f"autocorrelation at lag {lag}", "") for lag in chosen)
    numbers = bootstrap.numbers(sums, lambda total: autocorrelation(total)[:, at], names)
    if correlation[0] > 0 and low[0] > 0:  # an exponent of no memory would be an exponent of noise

        def decay(total: Floats) -> Floats:
            values = autocorrelation(total)
            return -power_law(np.broadcast_to(lags, values.shape), values, np.ones(values.shape))[:, None]

        numbers += bootstrap.numbers(sums, decay, ((f"{key}_decay", "decay exponent, lags 1 to 100", ""),))
    else:
        numbers += (_undefined(f"{key}_decay", "decay exponent, lags 1 to 100"),)
    curve = Curve(lags, correlation, low, high, f"lag, {unit}", "autocorrelation of signs", log_x=True)
    return Fact(key, title, definition, source, numbers, curve)


def response(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Mean move of the mid after a trade, in the trade's direction, against the number of trades since."""
    parts = []
    for sample in samples:
        trades = sample.trades
        columns = []
        for lag in RESPONSE_LAGS:
            early, late = trades.before2[:-lag], trades.before2[lag:]
            block = trades.block[:-lag]
            same = sample.window[block] == sample.window[trades.block[lag:]]
            usable = same & (early > 0) & (late > 0) & (trades.side[:-lag] != 0)
            move = 0.5 * trades.side[:-lag] * (late - early)
            columns.append(block_sums(np.where(usable, block, -1), sample.blocks, move, np.ones(len(move))))
        parts.append(np.concatenate(columns, axis=1))

    def means(total: Floats) -> Floats:
        return np.asarray(total[:, 0::2] / total[:, 1::2])

    sums = stacked(parts)
    mean, low, high = bootstrap.values(sums, means)
    chosen = (1, 10, 100)
    at = [RESPONSE_LAGS.index(lag) for lag in chosen]
    names = tuple((f"response_{lag}", f"after {lag} trade{'s' * (lag > 1)}", "ticks") for lag in chosen)
    return Fact(
        "response",
        "Price response to a trade",
        "R(l): mean of sign x (mid before the l-th trade after this one - mid before this one)" + _TRADE + ".",
        "Bouchaud, Gefen, Potters and Wyart 2004; Bouchaud, Farmer and Lillo 2009, section 5",
        bootstrap.numbers(sums, lambda total: means(total)[:, at], names),
        Curve(np.array(RESPONSE_LAGS, float), mean, low, high, "lag, trades", "R(l), ticks", log_x=True),
    )


def impact_of_size(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Mean move of the mid one second after a trade against the trade's size, with the exponent of its growth."""
    sums = stacked([_impact_sums(sample) for sample in samples])
    filled = sums[:, :SIZE_BINS].sum(axis=0) >= _LEAST_TRADES
    count = int(filled.sum())

    def parts_of(total: Floats) -> tuple[Floats, Floats, Floats]:
        trades, lots, move = (total[:, i * SIZE_BINS : (i + 1) * SIZE_BINS][:, filled] for i in range(3))
        return trades, lots / trades, move / trades

    def means(total: Floats) -> Floats:
        return parts_of(total)[2]

    def summary(total: Floats) -> Floats:
        trades, size, move = parts_of(total)
        mean = np.nansum(trades * move, axis=1) / trades.sum(axis=1)
        return np.column_stack([mean, power_law(size, move, trades)])

    names = (
        ("impact_mean", "mean move of all trades after 1 s", "ticks"),
        ("impact_exponent", "exponent of its growth with size", ""),
    )
    if count == 0:
        empty = np.zeros(0)
        numbers = tuple(_undefined(*name[:2]) for name in names)
        return _impact_fact(numbers, Curve(empty, empty, empty, empty, "lots", "ticks"))
    mean, low, high = bootstrap.values(sums, means)
    size = parts_of(sums.sum(axis=0)[None, :])[1][0]
    curve = Curve(size, mean, low, high, "lots of the trade (mean of each octave)", "move after 1 s, ticks", log_x=True)
    return _impact_fact(bootstrap.numbers(sums, summary, names), curve)


def _impact_fact(numbers: tuple[Estimate, ...], curve: Curve) -> Fact:
    return Fact(
        "impact_of_size",
        "Impact against size",
        "Mean of sign x (mid one second after a trade - mid before it) in octaves of the trade's lots"
        + _TRADE
        + "; the exponent d of c lots^d by least squares weighted by trades. Below 1 the impact is concave in size.",
        "Lillo, Farmer and Mantegna 2003; Bouchaud, Farmer and Lillo 2009, section 5",
        numbers,
        curve,
    )


def _impact_sums(sample: Sample) -> Floats:
    trades = sample.trades
    usable = (trades.side != 0) & (trades.before2 > 0) & (trades.after2 > 0)
    block, lots = trades.block[usable], trades.lots[usable]
    move = 0.5 * trades.side[usable] * (trades.after2[usable] - trades.before2[usable])
    cell = block * SIZE_BINS + np.clip(np.log2(lots).astype(np.int64), 0, SIZE_BINS - 1)
    size = sample.blocks * SIZE_BINS
    columns = (np.ones(len(lots)), lots.astype(np.float64), move)
    return np.concatenate(
        [np.bincount(cell, column, minlength=size).reshape(sample.blocks, SIZE_BINS) for column in columns], axis=1
    )


def durations(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Times between trades: their mean, their spread, and how many are longer than so many seconds."""
    parts = []
    for sample in samples:
        trades = sample.trades
        gap = np.diff(trades.ts_ns) * 1e-9
        same = sample.window[trades.block[1:]] == sample.window[trades.block[:-1]]
        block = np.where(same, trades.block[1:], -1)
        longer = [(gap > limit).astype(np.float64) for limit in _DURATIONS_S]
        parts.append(block_sums(block, sample.blocks, np.ones(len(gap)), gap, gap * gap, *longer))

    def summary(total: Floats) -> Floats:
        mean = total[:, 1] / total[:, 0]
        return np.column_stack([mean, np.sqrt(total[:, 2] / total[:, 0] - mean**2) / mean])

    sums = stacked(parts)
    share, low, high = bootstrap.values(sums, lambda total: total[:, 3:] / total[:, 0:1])
    shown = share > 0
    return Fact(
        "durations",
        "Times between trades",
        "Seconds from one trade to the next within a window: the share longer than x, their mean, and their standard "
        "deviation over the mean (1 for a Poisson process; more where trades cluster)" + _TRADE + ".",
        "Engle and Russell 1998; Cont 2011",
        bootstrap.numbers(
            sums,
            summary,
            (
                ("duration_mean", "mean time between trades", "s"),
                ("duration_variation", "standard deviation over the mean", ""),
            ),
        ),
        Curve(
            _DURATIONS_S[shown],
            share[shown],
            low[shown],
            high[shown],
            "seconds",
            "share of longer times",
            log_x=True,
            log_y=True,
        ),  # fmt: skip
    )


def volume_of_day(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Volume through the day: the U."""
    positions = max(sample.blocks for sample in samples)
    rates, shares = [], np.full((len(samples), positions), np.nan)
    for i, sample in enumerate(samples):
        lots = np.bincount(sample.trades.block, sample.trades.volume.astype(np.float64), minlength=sample.blocks)
        hours = sample.spans_ns / 3.6e12
        edge = np.zeros(sample.blocks)
        edge[[0, -1]] = 1.0
        rates.append(np.column_stack([lots * edge, hours * edge, lots * (1 - edge), hours * (1 - edge)]))
        if lots.sum() > 0:
            shares[i, : sample.blocks] = lots / hours * hours.sum() / lots.sum()

    def summary(total: Floats) -> Floats:
        return np.asarray((total[:, 0] / total[:, 1]) / (total[:, 2] / total[:, 3]))[:, None]

    known = ~np.isnan(shares).all(axis=0)
    profile = np.nanmean(shares[:, known], axis=0)
    unknown = np.full(len(profile), np.nan)  # a half hour of the day comes once a day: too few to resample
    return Fact(
        "volume_of_day",
        "Volume through the day",
        "Lots per hour in each half hour of the session over the day's mean, and the first and last half hour against "
        "the others.",
        "Jain and Joh 1988; Bouchaud, Farmer and Lillo 2009, section 2",
        bootstrap.numbers(
            stacked(rates), summary, (("volume_u", "volume of the first and last half hour over the others'", ""),)
        ),
        Curve(
            np.arange(1.0, len(profile) + 1), profile, unknown, unknown, "half hour of the session", "volume over mean"
        ),
    )


def _undefined(key: str, label: str) -> Estimate:
    return Estimate(key, label, "", np.nan, np.nan, np.nan)
