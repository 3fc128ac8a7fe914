"""Single orders for the report: chosen by their place in the grid, never by their outcome."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from training.evaluation.scene import Scene


def example_indices(scene: "Scene") -> list[int]:
    """The buy in the middle of each instrument's grid, and the sell that ends the first quarter of the first's."""
    names = np.array([scene.days[int(day)].partition.instrument_id for day in scene.parents["day"]])
    chosen = []
    for key in np.unique(names):
        buys = np.flatnonzero((names == key) & (scene.parents["side"] > 0))
        chosen.append(int(buys[len(buys) // 2]))
    sells = np.flatnonzero((names == names[0]) & (scene.parents["side"] < 0))
    if len(sells) > 1:
        chosen.append(int(sells[len(sells) // 4]))
    return chosen


def examples_of(scene: "Scene", indices: Sequence[int], fills: Mapping[str, NDArray[np.void]]) -> list[dict[str, Any]]:
    """Best prices while each example parent was worked, and its fills, as `plots.example_order` takes them."""
    return [_example(scene, index, fills) for index in indices] if fills else []


def _example(scene: "Scene", index: int, fills: Mapping[str, NDArray[np.void]]) -> dict[str, Any]:
    from training.market.orders import FillKind

    parent = scene.parents[index]
    day = scene.days[int(parent["day"])]
    tick, start = day.instrument.tick_size, int(parent["start_ns"])
    rows = slice(
        max(int(np.searchsorted(day.book.ts_ns, start, side="right")) - 1, 0),
        int(np.searchsorted(day.book.ts_ns, start + int(parent["horizon_ns"]), side="right")),
    )
    both = (day.book.bid_sz[rows, 0] > 0) & (day.book.ask_sz[rows, 0] > 0)
    bid, ask = day.book.bid_px[rows, 0][both] * tick, day.book.ask_px[rows, 0][both] * tick
    moved = np.flatnonzero(np.r_[True, (np.diff(bid) != 0) | (np.diff(ask) != 0)])
    seconds = np.maximum((day.book.ts_ns[rows][both][moved] - start) / 1e9, 0.0)
    end = int(parent["horizon_ns"]) / 1e9
    return {
        "seconds": np.append(seconds, end),  # the last prices stand until the horizon
        "bid": np.append(bid[moved], bid[-1]),
        "ask": np.append(ask[moved], ask[-1]),
        "arrival": float(bid[0] + ask[0]) / 2.0,
        "side": int(parent["side"]),
        "caption": f"A {'buy' if parent['side'] > 0 else 'sell'} of {int(parent['lots'])} lots of "
        f"{day.partition.instrument_id} on {day.partition.date}, chosen by its place in the grid; the dashed line is "
        "the arrival price, larger marks are larger fills.",
        "fills": {
            name: {
                "seconds": (own["ts_ns"] - start) / 1e9,
                "price": own["price_ticks"] * tick,
                "lots": own["lots"],
                "passive": own["kind"] == FillKind.PASSIVE,
            }
            for name, found in fills.items()
            for own in [found[found["episode"] == index]]
        },
    }
