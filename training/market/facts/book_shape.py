"""Spread and depth: what the book looks like, each state weighted by how long it stood."""

from collections.abc import Sequence

import numpy as np

from training.market.facts.estimate import BlockBootstrap, Curve, Fact, Floats
from training.market.facts.sample import Sample, block_sums, stacked

WIDEST = 40
"""Spreads of this many ticks and more share the last bin."""


def spread(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Distribution of the spread in ticks over time."""
    sums = stacked([_spread_sums(sample) for sample in samples])
    ticks = np.arange(1.0, WIDEST + 1)

    def shares(total: Floats) -> Floats:
        return np.asarray(total[:, 2:] / total[:, 0:1])

    share, low, high = bootstrap.values(sums, shares)
    shown = max(3, int(np.flatnonzero(share > 5e-4).max(initial=0)) + 1)
    numbers = bootstrap.numbers(
        sums,
        lambda total: np.column_stack([total[:, 1] / total[:, 0], total[:, 2] / total[:, 0]]),
        (("spread_mean", "mean spread", "ticks"), ("spread_one_tick", "share of time at one tick", "")),
    )
    return Fact(
        "spread",
        "Spread",
        "Best ask less best bid in ticks, each two-sided state weighted by the time it stood.",
        "Biais, Hillion and Spatt 1995; time weighting as in Bouchaud, Farmer and Lillo 2009, section 7",
        numbers,
        Curve(ticks[:shown], share[:shown], low[:shown], high[:shown], "spread, ticks", "share of time"),
    )


def _spread_sums(sample: Sample) -> Floats:
    book = sample.book
    two_sided = book.two_sided
    block = np.where(two_sided, sample.block, -1)
    ticks = np.clip(book.ask_px[:, 0].astype(np.int64) - book.bid_px[:, 0], 1, WIDEST)
    seconds: Floats = sample.stands_ns.astype(np.float64) * 1e-9
    inside = block >= 0
    cell = block[inside] * WIDEST + ticks[inside] - 1
    histogram = np.bincount(cell, seconds[inside], minlength=sample.blocks * WIDEST).reshape(sample.blocks, WIDEST)
    return np.concatenate([block_sums(block, sample.blocks, seconds, seconds * ticks), histogram], axis=1)


def depth(samples: Sequence[Sample], bootstrap: BlockBootstrap) -> Fact:
    """Mean lots at each visible level, both sides together."""
    levels = min(sample.book.depth for sample in samples)
    sums = stacked([_depth_sums(sample, levels) for sample in samples])

    def profile(total: Floats) -> Floats:
        return np.asarray(total[:, 2:] / total[:, 0:1])

    def summary(total: Floats) -> Floats:
        mean = profile(total)
        variance = total[:, 1] / total[:, 0] - mean[:, 0] ** 2
        beyond = mean[:, 1] / mean[:, 0] if levels > 1 else np.full(len(mean), np.nan)
        deepest = mean[:, -1] / mean[:, 0] if levels > 2 else np.full(len(mean), np.nan)
        return np.column_stack([mean[:, 0], np.sqrt(variance) / mean[:, 0], beyond, deepest])

    mean, low, high = bootstrap.values(sums, profile)
    numbers = bootstrap.numbers(
        sums,
        summary,
        (
            ("depth_best", "mean lots at the best price", "lots"),
            ("depth_variation", "their standard deviation over the mean", ""),
            ("depth_second", "second level over the best", ""),
            ("depth_deepest", "deepest visible level over the best", ""),
        ),
    )
    return Fact(
        "depth",
        "Depth profile",
        "Displayed lots at each visible price level from the best on, both sides, over the time with a two-sided "
        "book. A level that is not there counts as 0 lots.",
        "Bouchaud, Mézard and Potters 2002",
        numbers,
        Curve(np.arange(1.0, levels + 1), mean, low, high, "level (1: best price)", "mean lots"),
    )


def _depth_sums(sample: Sample, levels: int) -> Floats:
    book = sample.book
    block = np.where(book.two_sided, sample.block, -1)
    seconds: Floats = sample.stands_ns.astype(np.float64) * 1e-9
    best = 0.5 * (book.bid_sz[:, 0].astype(np.float64) ** 2 + book.ask_sz[:, 0].astype(np.float64) ** 2)
    columns: list[Floats] = [seconds, seconds * best]
    for k in range(levels):
        columns.append(seconds * 0.5 * (book.bid_sz[:, k].astype(np.float64) + book.ask_sz[:, k]))
    return block_sums(block, sample.blocks, *columns)
