"""What a policy sees and may do: names, bounds and the kernels that build both, shared by training and serving.

Everything directional is multiplied by the parent's side, so that a sell in a mirrored market looks like a buy.
Prices are integers in ticks, sizes in lots; an observation is `(D,) float32` in the order of OBSERVATION_NAMES.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline.kernels import SIGNAL_V1

ACTION_NAMES = ("wait", "place", "improve", "cross")
WAIT, PLACE, IMPROVE, CROSS = 0, 1, 2, 3
FORECAST_HORIZONS_S = (10, 30, 60)
"""Horizons of the forecasts that a policy sees; zeros with `forecast_missing` 1 where there are none."""

_PRIVATE: tuple[tuple[str, float, float], ...] = (
    ("remaining_fraction", 0.0, 1.0),  # lots not yet filled / parent lots
    ("time_left_fraction", 0.0, 1.0),  # time to the horizon / horizon
    ("due_slices", -4.0, 8.0),  # lots that the even schedule wants filled by the end of this slice, in slices
    ("resting", 0.0, 1.0),  # 1 while an own order rests
    ("queue_ahead_share", 0.0, 1.0),  # lots ahead of the resting order / (those + its lots); 0 without one
    ("rest_distance_ticks", -20.0, 20.0),  # ticks by which the best own-side price is better than the resting one
    ("mid_move_bps", -200.0, 200.0),  # side x (mid - arrival mid) / arrival mid: above zero the market ran away
    ("spread_ticks", 0.0, 50.0),
    ("opposite_queue_share", 0.0, 1.0),  # opposite / (opposite + own) lots at the best; 0.5 with nothing on both
    ("own_queue_share", 0.0, 1.0),
    ("due_to_opposite_size", 0.0, 10.0),  # lots due / lots at the opposite best
)
PRIVATE_NAMES = tuple(name for name, _, _ in _PRIVATE)
OPPOSITE_QUEUE_SHARE = PRIVATE_NAMES.index("opposite_queue_share")
RESTING, REST_DISTANCE_TICKS = PRIVATE_NAMES.index("resting"), PRIVATE_NAMES.index("rest_distance_ticks")
REMAINING_FRACTION, MID_MOVE_BPS = PRIVATE_NAMES.index("remaining_fraction"), PRIVATE_NAMES.index("mid_move_bps")
MARKET_NAMES = SIGNAL_V1
FORECAST_NAMES = tuple(f"forecast_{h}s_bps" for h in FORECAST_HORIZONS_S)
OBSERVATION_NAMES = (*PRIVATE_NAMES, *MARKET_NAMES, *FORECAST_NAMES, "forecast_missing")
OBSERVATION_SIZE = len(OBSERVATION_NAMES)

MARKET_LIMIT = 1e6  # market features are clipped to plus or minus this; the normaliser is inside the bundle
FORECAST_LIMIT_BPS = 100.0
_DIRECTIONAL_WORDS = ("imbalance", "microprice", "flow", "ofi", "return", "momentum", "mid_move", "signed", "drift")


def is_directional(name: str) -> bool:
    """True for a market feature that changes its sign when bids and asks change places."""
    return any(word in name for word in _DIRECTIONAL_WORDS)


def observation_bounds() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each element, both `(D,) float32`."""
    market, forecasts = len(MARKET_NAMES), len(FORECAST_NAMES)
    low = [bound for _, bound, _ in _PRIVATE] + [-MARKET_LIMIT] * market + [-FORECAST_LIMIT_BPS] * forecasts + [0.0]
    high = [bound for _, _, bound in _PRIVATE] + [MARKET_LIMIT] * market + [FORECAST_LIMIT_BPS] * forecasts + [1.0]
    return np.array(low, np.float32), np.array(high, np.float32)


def directional_signs() -> NDArray[np.float32]:
    """`(D,) float32`: 1 for market features and forecasts that the side multiplies, 0 for all that it does not."""
    signs = np.zeros(OBSERVATION_SIZE, np.float32)
    start = len(PRIVATE_NAMES)
    for i, name in enumerate(MARKET_NAMES):
        signs[start + i] = 1.0 if is_directional(name) else 0.0
    signs[start + len(MARKET_NAMES) : start + len(MARKET_NAMES) + len(FORECAST_NAMES)] = 1.0
    return signs


@njit(cache=True)
def scheduled_lots(lots: int, step: int, slices: int) -> int:
    """Lots that the even (TWAP) schedule has sent by the end of slice `step` (0-based): integers that sum to `lots`."""
    return lots * min(step + 1, slices) // slices


@njit(cache=True)
def due_lots(lots: int, filled: int, step: int, slices: int, ahead_slices: int) -> int:
    """Lots that may be asked for now: up to the schedule of `ahead_slices` slices from now, never more than remain."""
    return max(0, min(lots - filled, scheduled_lots(lots, step + ahead_slices, slices) - filled))


@njit(cache=True)
def action_allowed(action: int, due: int, own_px: int, own_sz: int, opp_px: int, opp_sz: int) -> bool:
    """True where `action` is possible. WAIT always is.

    PLACE needs lots due and a best price on the own side; IMPROVE a spread of two ticks or more besides; CROSS lots due
    and somebody on the opposite side. A number that is no action is not possible.
    """
    if action == PLACE:
        return due > 0 and own_sz > 0
    if action == IMPROVE:
        return due > 0 and own_sz > 0 and opp_sz > 0 and abs(opp_px - own_px) > 1
    if action == CROSS:
        return due > 0 and opp_sz > 0
    return action == WAIT


@njit(cache=True)
def allowed_actions(mask: NDArray[np.float32], due: int, own_px: int, own_sz: int, opp_px: int, opp_sz: int) -> None:
    """Write `mask (4,)`: 1 for actions that are possible (`action_allowed`)."""
    for action in range(len(mask)):
        mask[action] = 1.0 if action_allowed(action, due, own_px, own_sz, opp_px, opp_sz) else 0.0


@njit(cache=True)
def private_state(
    out: NDArray[np.float32], side: int, lots: int, filled: int, time_left_fraction: float, due: int, slices: int,
    rest_px: int, rest_lots: int, rest_ahead: int, own_px: int, own_sz: int, opp_px: int, opp_sz: int,
    mid2: int, arrival_mid2: int,
) -> None:  # fmt: skip
    """Write the private elements into `out[:P]`; see PRIVATE_NAMES. `due` may be negative (ahead of the schedule)."""
    remaining = lots - filled
    out[0] = remaining / lots
    out[1] = time_left_fraction
    out[2] = due * slices / lots
    out[3] = 1.0 if rest_lots > 0 else 0.0
    out[4] = rest_ahead / (rest_ahead + rest_lots) if rest_lots > 0 else 0.0
    out[5] = side * (own_px - rest_px) if rest_lots > 0 and own_sz > 0 else 0.0
    out[6] = 1e4 * side * (mid2 - arrival_mid2) / arrival_mid2
    both = own_sz > 0 and opp_sz > 0
    out[7] = side * (opp_px - own_px) if both else 50.0
    queue = own_sz + opp_sz
    out[8] = opp_sz / queue if queue > 0 else 0.5
    out[9] = own_sz / queue if queue > 0 else 0.5
    out[10] = max(0, due) / opp_sz if opp_sz > 0 else 10.0


@njit(cache=True)
def finish_observation(
    out: NDArray[np.float32], private_size: int, features: NDArray[np.float32], forecasts: NDArray[np.float32],
    missing: float, side: int, signs: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32],
) -> int:  # fmt: skip
    """Add market features, forecasts and the missing flag behind the private elements, sign and clip them all.

    Returns the index of the first element that is NaN or infinite, -1 where all are finite.
    """
    at = private_size
    for i in range(len(features)):
        out[at + i] = features[i]
    at += len(features)
    for i in range(len(forecasts)):
        out[at + i] = forecasts[i]
    out[at + len(forecasts)] = missing
    for i in range(len(out)):
        if not np.isfinite(out[i]):
            return i
        if signs[i] != 0.0:
            out[i] *= side
        out[i] = min(max(out[i], low[i]), high[i])
    return -1


def build_observation(
    private: NDArray[np.float32],
    features: NDArray[np.float32],
    forecasts: NDArray[np.float32] | None,
    side: int,
) -> NDArray[np.float32]:
    """One observation `(D,) float32` from private elements `(P,)`, market features `(F,)` and forecasts `(H,)` in bps.

    `forecasts` None means missing. The environment runs the same kernels. Raises InputError for wrong shapes, an
    unknown side, and NaN or infinity, naming the element.
    """
    values = np.zeros(len(FORECAST_HORIZONS_S), np.float32) if forecasts is None else np.asarray(forecasts, np.float32)
    wanted = ((len(PRIVATE_NAMES),), (len(MARKET_NAMES),), (len(FORECAST_NAMES),))
    shapes = (np.shape(private), np.shape(features), values.shape)
    if shapes != wanted:
        raise InputError(f"private, features, forecasts have shapes {shapes}, wanted {wanted}")
    if side not in (1, -1):
        raise InputError(f"side {side} is neither 1 (buy) nor -1 (sell)")
    out = np.zeros(OBSERVATION_SIZE, np.float32)
    out[: len(PRIVATE_NAMES)] = private
    low, high = observation_bounds()
    missing = np.float32(forecasts is None)
    row = np.asarray(features, np.float32)
    signs = directional_signs()
    bad = finish_observation(out, len(PRIVATE_NAMES), row, values, missing, side, signs, low, high)  # type: ignore[arg-type]
    if bad >= 0:
        raise InputError(f"observation {OBSERVATION_NAMES[bad]} is {out[bad]}: a policy must not act on it")
    return out
