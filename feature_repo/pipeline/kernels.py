"""Feature kernels: each definition stands here once, and training's batch and serving's stream both run it.

A book row updates a small state (`update_row`); the end of a second turns that state into the feature vector
(`close_second`). The batch function and `FeatureState` call the same two compiled functions, so their values agree bit
for bit. Windows are the last 1, 10 or 60 whole seconds of the present session window, fewer after its open; the book
itself persists over breaks. Undefined values are 0: a flow without trades, any price feature without a two-sided book.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.pipeline.books import Book

NS = 1_000_000_000
WINDOW_S = 60
FEATURE_WINDOW_NS = WINDOW_S * NS
"""Longest look-back of any feature."""

FEATURE_UNITS: dict[str, str] = {
    # best ask - best bid
    "spread_ticks": "ticks",
    # size-weighted mid minus mid: (ask qb + bid qa) / (qa + qb) - mid (Gatheral and Oomen 2010; first-order term of
    # the microprice of Stoikov 2018)
    "microprice_dev": "ticks",
    # (qb - qa) / (qb + qa) at the best, and over all visible levels
    "imbalance_l1": "share",
    "imbalance_depth": "share",
    # order-flow imbalance at the best (Cont, Kukanov and Stoikov 2014, eq. 2) / mean best depth of the window
    "ofi_1s": "depths",
    "ofi_10s": "depths",
    "ofi_60s": "depths",
    # realised volatility: sqrt of the sum of squared one-second log returns of the mid
    "rv_10s": "bps",
    "rv_60s": "bps",
    # log return of the mid
    "return_10s": "bps",
    "return_60s": "bps",
    # (bought - sold) / traded lots, by aggressor
    "trade_flow_10s": "share",
    "trade_flow_60s": "share",
    "trade_volume_60s": "log(1 + lots)",
    "event_rate_10s": "log(1 + book changes per second)",
    # elapsed share of the day's trading time
    "time_of_day": "share",
}
FEATURES: tuple[str, ...] = tuple(FEATURE_UNITS)
SIGNAL_V1: tuple[str, ...] = FEATURES[:16]
"""What the first signal models and policies were trained on, in their order: names, order and values never change."""

# Places in the state vector: sums of the running second, then what carries over.
_OFI, _DEPTH, _DEPTH_N, _SIGNED, _VOLUME, _EVENTS = 0, 1, 2, 3, 4, 5
_BUCKET = 6  # number of sums
_BID, _BID_SZ, _ASK, _ASK_SZ, _BID_ALL, _ASK_ALL = 6, 7, 8, 9, 10, 11  # last row's best, and its visible depth
_LAST_MID, _CLOSED = 12, 13  # mid at the last close (0: unknown), seconds closed since the open
_STATE = 14
_RETURN = 6  # ring column after the sums: log return of the second
_RING = 7


@njit(cache=True)
def update_row(state, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side):
    """Take one book row into `state (14,) float64`; the side arrays are `(K,)`."""
    bid, qb, ask, qa = float(bid_px[0]), float(bid_sz[0]), float(ask_px[0]), float(ask_sz[0])
    whole = qb > 0.0 and qa > 0.0
    if whole and state[_BID_SZ] > 0.0 and state[_ASK_SZ] > 0.0:
        flow = 0.0
        if bid >= state[_BID]:
            flow += qb
        if bid <= state[_BID]:
            flow -= state[_BID_SZ]
        if ask <= state[_ASK]:
            flow -= qa
        if ask >= state[_ASK]:
            flow += state[_ASK_SZ]
        state[_OFI] += flow
    if whole:
        state[_DEPTH] += 0.5 * (qb + qa)
        state[_DEPTH_N] += 1.0
    state[_SIGNED] += float(trade_side) * float(trade_sz)
    state[_VOLUME] += float(trade_sz)
    state[_EVENTS] += 1.0
    state[_BID], state[_BID_SZ], state[_ASK], state[_ASK_SZ] = bid, qb, ask, qa
    bids, asks = 0.0, 0.0
    for k in range(bid_sz.shape[0]):
        bids += float(bid_sz[k])
        asks += float(ask_sz[k])
    state[_BID_ALL], state[_ASK_ALL] = bids, asks


@njit(cache=True)
def open_window(state, ring):
    """Forget all flows: a session window opens; the book stays."""
    state[:_BUCKET] = 0.0
    ring[:] = 0.0
    state[_CLOSED] = 0.0
    state[_LAST_MID] = 0.0
    if state[_BID_SZ] > 0.0 and state[_ASK_SZ] > 0.0 and state[_ASK] > state[_BID]:
        state[_LAST_MID] = 0.5 * (state[_BID] + state[_ASK])


@njit(cache=True)
def _window(ring, closed, seconds, column):
    """Sum of a ring column over the last `seconds` closed seconds."""
    total = 0.0
    for back in range(min(seconds, closed)):
        total += ring[(closed - 1 - back) % ring.shape[0], column]
    return total


@njit(cache=True)
def _ratio(value, total):
    return value / total if total > 0.0 else 0.0


@njit(cache=True)
def close_second(state, ring, elapsed, out):
    """End a second: push its sums into `ring (60, 7)` and write the features `(F,) float32`; True: book two-sided.

    `elapsed` is the share of the day's trading time that has passed.
    """
    valid = state[_BID_SZ] > 0.0 and state[_ASK_SZ] > 0.0 and state[_ASK] > state[_BID]
    mid = 0.5 * (state[_BID] + state[_ASK]) if valid else state[_LAST_MID]
    slot = int(state[_CLOSED]) % ring.shape[0]
    for column in range(_BUCKET):
        ring[slot, column] = state[column]
        state[column] = 0.0
    known = mid > 0.0 and state[_LAST_MID] > 0.0
    ring[slot, _RETURN] = 1e4 * np.log(mid / state[_LAST_MID]) if known else 0.0
    state[_LAST_MID] = mid
    state[_CLOSED] += 1.0
    closed = int(state[_CLOSED])

    qb, qa = state[_BID_SZ], state[_ASK_SZ]
    out[:] = 0.0
    if valid:
        out[0] = state[_ASK] - state[_BID]
        out[1] = (state[_ASK] * qb + state[_BID] * qa) / (qa + qb) - mid
        out[2] = (qb - qa) / (qb + qa)
        out[3] = _ratio(state[_BID_ALL] - state[_ASK_ALL], state[_BID_ALL] + state[_ASK_ALL])
        for i, seconds in enumerate((1, 10, 60)):
            rows = _window(ring, closed, seconds, _DEPTH_N)
            depth = _window(ring, closed, seconds, _DEPTH) / rows if rows > 0.0 else 0.5 * (qb + qa)
            out[4 + i] = _window(ring, closed, seconds, _OFI) / depth
    for i, seconds in enumerate((10, 60)):
        squares = 0.0
        for back in range(min(seconds, closed)):
            squares += ring[(closed - 1 - back) % ring.shape[0], _RETURN] ** 2
        out[7 + i] = np.sqrt(squares)
        out[9 + i] = _window(ring, closed, seconds, _RETURN)
        out[11 + i] = _ratio(_window(ring, closed, seconds, _SIGNED), _window(ring, closed, seconds, _VOLUME))
    out[13] = np.log1p(_window(ring, closed, WINDOW_S, _VOLUME))
    out[14] = np.log1p(_window(ring, closed, 10, _EVENTS) / min(10, closed))
    out[15] = elapsed
    return valid


@njit(cache=True)
def _run(ts_ns, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side, opens, closes, grid_ns, features, valid):
    """All windows of a day; fills `grid_ns (N,)`, `features (N, F)` and `valid (N,)`."""
    state, ring = np.zeros(_STATE), np.zeros((WINDOW_S, _RING))
    trading = float(np.sum(closes - opens))
    row, at, passed = 0, 0, 0.0
    for w in range(opens.shape[0]):
        seconds = (closes[w] - opens[w]) // NS
        for second in range(seconds + 1):
            now = opens[w] + second * NS
            while row < ts_ns.shape[0] and ts_ns[row] <= now:
                update_row(state, bid_px[row], bid_sz[row], ask_px[row], ask_sz[row], trade_sz[row], trade_side[row])
                row += 1
            if second == 0:
                open_window(state, ring)
                continue
            elapsed = (passed + second * NS) / trading
            valid[at] = close_second(state, ring, elapsed, features[at])
            grid_ns[at] = now
            at += 1
        passed += float(closes[w] - opens[w])


def compute_features(
    book: Book, windows: list[tuple[int, int]]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int8]]:
    """Features of a day on the grid of whole seconds after each window's open, its close included.

    `windows` are `(open_ns, close_ns)` in time order, int64 UTC, whole seconds long. Gives `ts_ns (N,) int64`, features
    `(N, F) float32` in the order of FEATURES, and `book_valid (N,) int8`. A row at t has seen book rows up to t only.
    """
    opens = np.array([start for start, _ in windows], np.int64)
    closes = np.array([end for _, end in windows], np.int64)
    rows = int(((closes - opens) // NS).sum())
    grid, features = np.zeros(rows, np.int64), np.zeros((rows, len(FEATURES)), np.float32)
    valid = np.zeros(rows, np.int8)
    sides = (book.bid_px, book.bid_sz, book.ask_px, book.ask_sz)
    _run(book.ts_ns, *sides, book.trade_sz, book.trade_side, opens, closes, grid, features, valid)
    return grid, features, valid


class FeatureState:
    """The same features one book row at a time, for serving."""

    def __init__(self) -> None:
        """Start before the day's first row; call `open_window` at the open of each session window."""
        self._state, self._ring = np.zeros(_STATE), np.zeros((WINDOW_S, _RING))

    def on_row(
        self,
        bid_px: NDArray[np.int32],
        bid_sz: NDArray[np.int32],
        ask_px: NDArray[np.int32],
        ask_sz: NDArray[np.int32],
        trade_sz: int,
        trade_side: int,
    ) -> None:
        """Take a book row: levels `(K,) int32`, the trade's lots and aggressor (0 where it is no trade)."""
        update_row(self._state, bid_px, bid_sz, ask_px, ask_sz, trade_sz, trade_side)

    def open_window(self) -> None:
        """A session window opens; rows up to and including the open have been taken."""
        open_window(self._state, self._ring)

    def close_second(self, elapsed: float) -> tuple[NDArray[np.float32], bool]:
        """A whole second ends: its features `(F,) float32` and whether the book was two-sided."""
        out = np.zeros(len(FEATURES), np.float32)
        valid = close_second(self._state, self._ring, elapsed, out)
        return out, bool(valid)
