"""What one reactive market remembers: a record without pointers, so that thousands lie in one array."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.reactive_tables import QueueReactiveParameters
from training.market.reactive.draws import geometric_scale

RING = 64  # slots of a side; a price's slot is price mod RING
KEPT_LEVELS = 13  # a side; what the price leaves further behind is cancelled when the spread closes
REACH = 31  # levels that own orders may sweep or rest away from the best price: a slot never serves two prices
NS = 1_000_000_000
MASK_63 = (1 << 63) - 1

MARKET_DTYPE = np.dtype(
    [
        ("rng", np.uint64),
        ("now_ns", np.int64),
        ("second_ns", np.int64),  # end of the present second: until then activity and signal stand
        ("open_ns", np.int64),  # of the session whose U-shape the activity follows
        ("length_ns", np.int64),
        # best prices in ticks; which side was used up last while the spread is open: 1 the ask, -1 the bid, 0 neither
        *((name, np.int64) for name in ("bid", "ask", "gap")),
        ("events", np.int64),
        # lots of others: joined, cancelled, traded so far
        *((name, np.int64) for name in ("joined", "left", "traded")),
        # trade of the last event, 0 lots where it was none; aggressor 1 buys, -1 sells
        *((name, np.int64) for name in ("trade_px", "trade_lots", "trade_side")),
        # own order: side 0 bid, 1 ask; lots at rest, others' lots ahead; its last own_back lots stand behind own_behind
        *((name, np.int64) for name in ("own_side", "own_px", "own_lots", "own_ahead", "own_back", "own_behind")),
        ("own_units", np.int64),
        ("filled", np.int64),  # own resting lots that the last event took
        ("activity", np.float64),  # latent Gaussians of unit variance
        ("signal", np.float64),
        ("activity_keep", np.float64),  # their autoregressive coefficients
        ("signal_keep", np.float64),
        ("strength", np.float64),
        # what the present second makes of them: multiplier of the rates, lean of the price, tilt of the flow
        *((name, np.float64) for name in ("speed", "lean", "tilt", "most_tilt")),
        *((name, np.float64) for name in ("limit_scale", "cancel_scale", "market_scale")),  # `geometric_scale` of sizes
        ("arrivals", np.float64, 2),  # rates of limit orders and cancels over all levels of a side, at activity 1
        ("leaves", np.float64, 2),
        ("lots", np.int32, (2, RING)),  # of others
        ("orders", np.int32, (2, RING)),  # of others, where the model counts orders
        ("units", np.int32, (2, RING)),  # length of the queue as the tables count it, own lots included
    ],
    align=True,
)
"""One market. Others' lots always equal joined - left - traded."""


def new_markets(count: int) -> NDArray[np.void]:
    """Room for `count` markets; `kernel.open_market` starts one."""
    return np.zeros(count, MARKET_DTYPE)


def market_seed(seed: int, number: int) -> np.uint64:
    """Start of the random stream of market `number` under `seed`: far apart for all pairs."""
    return np.uint64(np.random.SeedSequence([seed & MASK_63, number]).generate_state(1, np.uint64)[0])


def prepare(
    markets: NDArray[np.void],
    parameters: QueueReactiveParameters,
    strength: float,
    open_ns: NDArray[np.int64] | int,
    length_ns: NDArray[np.int64] | int,
) -> None:
    """Write into `markets` what stays the same from one start to the next.

    `open_ns` and `length_ns` say when the session opens and how long it is. Raises InputError where the strength of the
    planted signal lies outside 0 to 1 or the tables do not fit one another.
    """
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"strength {strength} of the planted signal must lie in [0, 1]")
    check_tables(parameters)
    markets["open_ns"], markets["length_ns"] = open_ns, length_ns
    markets["strength"], markets["most_tilt"] = strength, parameters.tilt(strength)
    markets["activity_keep"] = np.exp(-1.0 / parameters.activity_relaxation_s)
    markets["signal_keep"] = np.exp(-1.0 / parameters.signal_relaxation_s)
    for name in ("limit", "cancel", "market"):
        markets[f"{name}_scale"] = geometric_scale(getattr(parameters, f"{name}_lots"))


def check_tables(p: QueueReactiveParameters) -> None:
    """Raises InputError where a table has another shape than the limit orders', or a value that is no rate."""
    levels, lengths = p.limit.shape
    if not 1 <= levels <= KEPT_LEVELS:
        raise InputError(f"the limit orders' table has {levels} levels; 1 to {KEPT_LEVELS} can be simulated")
    shapes = {"cancel": (levels, lengths), "market": (lengths,), "depletion": (lengths,)}
    shapes |= {"opening_least": (levels,), "opening_more": (levels,)}
    for name, wanted in shapes.items():
        if (shape := getattr(p, name).shape) != wanted:
            raise InputError(f"table {name} has shape {shape}, the limit orders' asks for {wanted}")
    for name in ("limit", "cancel", "market", "depletion"):
        table = getattr(p, name)
        if not (np.isfinite(table).all() and (table >= 0.0).all()):
            raise InputError(f"table {name} holds {table.min()}: rates are finite and not negative")
    if not (p.closing > 0.0 and 0.0 <= p.follow <= 1.0 and 0.0 <= p.traded_share <= 1.0 and p.unit_lots >= 1.0):
        values = f"closing {p.closing}, follow {p.follow}, traded_share {p.traded_share}, unit_lots {p.unit_lots}"
        raise InputError(f"{values}: closing must be above 0, the shares in [0, 1], a unit at least one lot")
