"""Market features of the stream that own trades have displaced, exact to the bit.

The displaced stream is history's with every price translated by the shift in force, and one more row at each change of
the shift: the same book, moved. Sizes, trades and spreads are history's, so that of SIGNAL_V1 only what compares prices
of two moments changes (returns, realized variance, order-flow imbalance), and the number of rows. These are computed
anew from sums by second of the undisturbed stream, which `feature_repo.pipeline.feature_kernel` makes, and from the
few changes of the shift; all else is the stored row. `compute_features` on the displaced book gives the same numbers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline import feature_kernel as features
from serving.contracts.observation import MARKET_NAMES
from training.market.impact import BARS, IMPACT_DTYPE, NS, PARAMETER_DTYPE
from training.market.queues import kernel

if TYPE_CHECKING:
    from training.market.day import MarketDay

SECOND_DTYPE = np.dtype(
    [
        ("mid", np.float64),  # ticks at its end, 0 without a two-sided book
        ("bars", np.int64),  # seconds since the session window's open, this one included; 0: the open itself
        ("ofi", np.float64),  # sums over the rows of the second, as `feature_kernel` has them
        ("depth", np.float64),
        ("shown", np.float64),
        ("rows", np.float64),
    ]
)
"""One second of a session window, or its open."""

_OFI, _RV, _RETURN, _RATE = (MARKET_NAMES.index(name) for name in ("ofi_1s", "rv_10s", "return_10s", "event_rate_10s"))
_WINDOWS = (1, 10, 60)
OFI, DEPTH, DEPTH_N, EVENTS = features.OFI, features.DEPTH, features.DEPTH_N, features.EVENTS
WINDOW_BARS, CLOSED = features.WINDOW_BARS, features.CLOSED


class Reaction(NamedTuple):
    """What the market needs to react to own trades; every array is empty where it does not.

    `parameters (D,)` PARAMETER_DTYPE by day; `episodes (N,)` IMPACT_DTYPE, written by the engine; `seconds (S,)`
    SECOND_DTYPE of all days; `second_of (M,) int64`, the place there of each feature row.
    """

    parameters: NDArray[np.void]
    episodes: NDArray[np.void]
    seconds: NDArray[np.void]
    second_of: NDArray[np.int64]


def no_reaction() -> Reaction:
    """A market that plays on whatever we do."""
    return Reaction(
        np.zeros(0, PARAMETER_DTYPE), np.zeros(0, IMPACT_DTYPE), np.zeros(0, SECOND_DTYPE), np.zeros(0, np.int64)
    )


def build_reaction(days: Sequence["MarketDay"], episodes: int, scale: float) -> Reaction:
    """Impact of `scale` times the days' own parameters on `episodes`.

    Raises InputError for a day without parameters, or whose features are not on whole seconds of its windows.
    """
    parameters = []
    for day in days:
        if day.impact is None:
            raise InputError(
                f"{day.partition.instrument_id} {day.partition.date}: no impact parameters for world 'impact'; "
                "calibrate them on earlier days (training.market.impact_calibration)"
            )
        parameters.append(day.impact.scaled(scale).row())
    seconds, places, base = [], [], 0
    for day in days:
        found, stamps = seconds_of(day)
        place = np.searchsorted(stamps, day.feature_ns)
        if len(place) and (place.max() >= len(stamps) or (stamps[place] != day.feature_ns).any()):
            raise InputError(f"{day.partition.instrument_id} {day.partition.date}: features are not a second apart")
        seconds.append(found)
        places.append(base + place)
        base += len(found)
    return Reaction(
        np.concatenate(parameters), np.zeros(episodes, IMPACT_DTYPE), np.concatenate(seconds), np.concatenate(places)
    )


def seconds_of(day: "MarketDay") -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """SECOND_DTYPE rows of a day's session windows, `(S,)`, and their stamps `(S,) int64` ns."""
    book, depth = day.book, day.book.bid_px.shape[1]
    opens = np.array([start for start, _ in day.windows], np.int64)
    closes = np.array([end for _, end in day.windows], np.int64)
    stamps = np.concatenate([np.arange(a, b + 1, NS, dtype=np.int64) for a, b in day.windows])
    state = np.zeros(features.BOOK + 4 * depth)
    state[features.TRADING] = float((closes - opens).sum())
    ring = np.zeros((features.BARS_AND_SUMS, features.COLUMNS))
    rows = (book.ts_ns, book.bid_px, book.bid_sz, book.ask_px, book.ask_sz, book.trade_sz, book.trade_side)
    out = np.zeros(len(stamps), SECOND_DTYPE)
    scratch = np.zeros(len(features_names()), np.float32)
    _run_seconds(state, ring, np.zeros((2, 1)), np.zeros(2), rows, opens, closes, scratch, out)
    return out, stamps


def features_names() -> tuple[str, ...]:
    """Names of the vector that the kernel of features writes."""
    from feature_repo.pipeline.kernels import FEATURES

    return FEATURES


@njit(cache=True)
def _run_seconds(state, ring, table, curve, book, opens, closes, scratch, out):
    ts_ns, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side = book
    row, at = 0, 0
    for w in range(len(opens)):
        for bar in range((closes[w] - opens[w]) // NS + 1):
            now = opens[w] + bar * NS
            while row < len(ts_ns) and ts_ns[row] <= now:
                features.update_row(
                    state, bid_px, bid_sz, ask_px, ask_sz, row, ts_ns[row], trade_sz[row], trade_side[row]
                )
                row += 1
            if features.two_sided(state):
                out[at].mid = 0.5 * (state[features.BOOK] + state[features.BOOK + 2 * bid_px.shape[1]])
            out[at].bars = bar
            if bar == 0:
                features.open_window(state, ring, opens[w], closes[w])
            else:
                features.close_bar(state, ring, table, curve, now, scratch)
                newest = ring[(np.int64(state[CLOSED]) - 1) % WINDOW_BARS]
                out[at].ofi, out[at].depth, out[at].shown = newest[OFI], newest[DEPTH], newest[DEPTH_N]
                out[at].rows = newest[EVENTS]
            at += 1


@kernel
def note_change(impact, now_ns, before, after, bid_sz, ask_sz):
    """Remember that the shift changed at `now_ns` from `before` to `after` while the best sizes were these.

    In the displaced stream that is a row: both best prices move and their queues stay, which the order-flow imbalance
    of Cont, Kukanov and Stoikov counts as both queues having joined (up) or left (down).
    """
    second = (now_ns + NS - 1) // NS
    slot = second % BARS
    if impact.second[slot] != second:
        impact.second[slot], impact.before[slot] = second, before
        impact.changes[slot] = impact.shown[slot] = 0
        impact.ofi[slot] = impact.depth[slot] = 0.0
    impact.changes[slot] += 1
    if bid_sz > 0 and ask_sz > 0:
        lots = np.float64(bid_sz + ask_sz)
        impact.shown[slot] += 1
        impact.depth[slot] += 0.5 * lots
        impact.ofi[slot] += lots if after > before else -lots


@kernel
def _mid_at(impact, seconds, place, second, shift):
    """Displaced mid at the end of a second, whose shift is `shift`: the last two-sided one of its window, 0: none."""
    while seconds[place].mid == 0.0 and seconds[place].bars > 0:
        slot = second % BARS
        if impact.second[slot] == second:
            shift = impact.before[slot]
        place -= 1
        second -= 1
    return seconds[place].mid + shift if seconds[place].mid > 0.0 else 0.0


@kernel
def displaced_features(tape, state):
    """Write the market features of the displaced stream in force at the decision into the episode's impact record."""
    impact, seconds = tape.reaction.episodes[state.slot], tape.reaction.seconds
    row, out = state.feature, impact.features
    for k in range(len(out)):
        out[k] = tape.features[row, k]
    place, second = tape.reaction.second_of[row], tape.feature_ns[row] // NS
    shift = state.shift
    for later in range((state.now_ns + NS - 1) // NS, second, -1):
        if impact.second[later % BARS] == later:
            shift = impact.before[later % BARS]
    bars = min(seconds[place].bars, WINDOW_BARS)
    mid = _mid_at(impact, seconds, place, second, shift)
    ofi = depth = shown = rows = moves = squares = 0.0
    window = 0
    for back in range(bars):
        here, slot = seconds[place - back], (second - back) % BARS
        ofi += here.ofi
        depth += here.depth
        shown += here.shown
        rows += here.rows
        if impact.second[slot] == second - back:
            ofi += impact.ofi[slot]
            depth += impact.depth[slot]
            shown += impact.shown[slot]
            rows += impact.changes[slot]
            shift = impact.before[slot]
        before = _mid_at(impact, seconds, place - back - 1, second - back - 1, shift)
        move = 1e4 * np.log(mid / before) if mid > 0.0 and before > 0.0 else 0.0
        mid = before
        moves += move
        squares += move**2
        if back + 1 == _WINDOWS[window] or back + 1 == bars:
            while window < 3 and (back + 1 == _WINDOWS[window] or back + 1 == bars):
                out[_OFI + window] = ofi / (depth / shown) if shown > 0.0 else 0.0
                if window > 0:
                    out[_RV + window - 1], out[_RETURN + window - 1] = np.sqrt(squares), moves
                if window == 1:
                    out[_RATE] = np.log1p(rows / (back + 1.0))
                window += 1
