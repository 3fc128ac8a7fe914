"""Impact parameters from a market's own days: response, propagator, permanent and decaying parts, with confidence.

1. Prints are merged into meta trades and signed; the largest are cut to a high quantile, since impact is linear here
   and the few blocks of a day would outweigh the sizes that own child orders have. Signed lots and moves of the mid go
   onto a grid of seconds; R(l), C(l) are the sums of v(t) r(t + l) and v(t) v(t + l) within session windows
   (`impact_response`).
2. The propagator's increments g solve sum over k of C(|l - k|) g(k) = R(l): the least-squares forecast of the moves
   from past flow, which takes the persistence of signs out of the response (Bouchaud et al. 2004; Eisler, Bouchaud and
   Kockelkoren 2012). G(l) is their running sum.
3. permanent + sum of exponentials is fitted to g with weights from 0 up, distances measured by C: that is the
   regression of the moves on the decaying flows themselves. Time constants are given, not fitted.
4. temporary: `impact_temporary`.
5. Intervals: percentiles over resampled half hours, 3 and 4 done anew for each. The scales sigma and V are held.

What it says and what it cannot: docs/simulator.md.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.errors import InputError
from training.market.impact import EXPONENTIALS, ImpactParameters
from training.market.impact_response import (
    NS,
    Floats,
    MetaTrades,
    Sums,
    clock_sums,
    daily_volatility_bps,
    event_sums,
    meta_trades,
)
from training.market.impact_temporary import fit_temporary, print_costs, sweep_costs

if TYPE_CHECKING:
    from training.market.day import MarketDay

LEAST_TRADES = 1000
LEAST_BLOCKS = 4
EARLIER_DAYS = 5
"""Days before a day on which its impact is calibrated, where so many are there."""


@dataclass(frozen=True)
class CalibrationSettings:
    """How impact is calibrated; every default is a choice made before looking at a market."""

    bin_ns: int = NS  # grid of flow and moves
    lags: int = 600  # bins; what has not decayed by then counts as permanent
    event_lags: int = 100  # meta trades, for the response in trade time
    block_ns: int = 1800 * NS  # resampled together
    decay_s: tuple[float, ...] = (1.0, 6.0, 36.0, 216.0)  # the time constants, a factor of six apart
    cut_quantile: float = 0.99  # of the meta trades' lots: larger ones count as this
    sweep_every_ns: int = 10 * NS  # between two looks at the book
    sizes: int = 12  # sweep sizes, from the median best size to what nine books in ten show
    resamples: int = 500
    passive_share: float = 0.5  # assumed, not measured

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if not 1 <= len(self.decay_s) <= EXPONENTIALS or min(self.decay_s) <= 0:
            raise InputError(f"decay_s {self.decay_s}: give 1 to {EXPONENTIALS} time constants above 0")
        if not 0 < self.cut_quantile <= 1:
            raise InputError(f"cut_quantile {self.cut_quantile} must lie in (0, 1]")
        for name in ("bin_ns", "lags", "event_lags", "block_ns", "sweep_every_ns", "sizes", "resamples"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} {getattr(self, name)} must be at least 2")


@dataclass(frozen=True)
class ImpactCalibration:
    """Parameters, their 95% intervals, and what they were fitted to.

    `intervals` names permanent_bps, transient_bps_0 .., start_bps (G(0)) and temporary. Curves are `(L,)` with
    `(2, L)` intervals: `kernel_bps` is G at `lag_s` after the trade's bin in bps per mean daily volume, `fitted_bps`
    the parametric one; `response_bps` and `sign_correlation` are in trade time, at lags of 0, 1, .. meta trades.
    """

    instrument_id: str
    dates: tuple[str, ...]
    seed: int
    parameters: ImpactParameters
    intervals: dict[str, tuple[float, float]]
    rows: int  # book rows read
    trades: int  # meta trades used
    unsigned: int  # prints left out, whose side nothing tells
    blocks: int  # resampled
    explained: float  # share of the moves' variance that the parametric kernel explains
    temporary_from: str  # "visible book" or "meta trades"
    lag_s: Floats
    kernel_bps: Floats
    kernel_interval: Floats
    fitted_bps: Floats
    response_bps: Floats
    response_interval: Floats
    sign_correlation: Floats
    sign_interval: Floats
    event_kernel_bps: Floats  # propagator in trade time, bps per meta trade
    sweep_lots: Floats
    sweep_bps: Floats  # mean cost above the best of each size

    def to_json(self) -> str:
        """One JSON object, keys sorted; equal calibrations give equal bytes."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
        values["parameters"] = self.parameters.to_dict()
        return json.dumps(values, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "ImpactCalibration":
        """The inverse of `to_json`; raises InputError where names are missing or unknown."""
        values = json.loads(text)
        known = {field.name: field.type for field in fields(ImpactCalibration)}
        if set(values) != set(known):
            raise InputError(f"impact calibration names {sorted(set(values) ^ set(known))} are missing or unknown")
        for name, value in values.items():
            if known[name] is Floats:
                values[name] = np.array(value, float)
        values["parameters"] = ImpactParameters.from_dict(values["parameters"])
        values["dates"] = tuple(values["dates"])
        values["intervals"] = {name: tuple(pair) for name, pair in values["intervals"].items()}
        return ImpactCalibration(**values)


def calibrate_impact(
    days: Sequence["MarketDay"],
    seed: int,
    settings: CalibrationSettings = CalibrationSettings(),  # noqa: B008 - frozen
) -> ImpactCalibration:
    """Calibrate impact on `days` of one instrument; the same days and seed give the same bytes.

    Raises InputError for no days, several instruments, fewer than LEAST_TRADES signed trades or LEAST_BLOCKS half
    hours, and a market without volatility.
    """
    name = _one_instrument(days)
    trades = [meta_trades(day.book) for day in days]
    found = sum(len(part) for part in trades)
    if found < LEAST_TRADES:
        raise InputError(f"{name}: impact needs at least {LEAST_TRADES} signed trades, {len(days)} day(s) hold {found}")
    volatility = daily_volatility_bps(days)
    if volatility == 0:
        raise InputError(f"{name}: the mid never moves on {len(days)} day(s); impact has no scale")
    adv = float(np.mean([day.volume_lots for day in days]))
    clock, event = _sums(days, trades, settings)
    source, (sizes, cost, count) = _costs(days, trades, settings)
    blocks = len(clock.count)
    if blocks < LEAST_BLOCKS:
        raise InputError(f"{name}: impact needs at least {LEAST_BLOCKS} half hours of trading, found {blocks}")

    basis = kernel_basis(settings)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), settings.resamples).astype(float)
    whole = np.ones((1, blocks))
    flow, move = whole @ clock.flow, whole @ clock.move
    weights = np.array([fit_weights(basis, c, r) for c, r in zip(flow, move, strict=True)])[0]
    resampled = np.array([fit_weights(basis, draw @ clock.flow, draw @ clock.move) for draw in draws])
    kernel, kernel_draws = _kernels(clock, draws)
    root = np.sqrt(sizes / adv)
    temporary, temporary_draws = fit_temporary(root, cost, count, volatility, draws)
    curves = _in_trade_time(event, rng, settings.resamples)
    parameters = ImpactParameters(
        permanent_bps=float(adv * weights[0]),
        transient_bps=tuple((adv * weights[1:]).tolist()),
        decay_s=settings.decay_s,
        temporary=temporary,
        volatility_bps=volatility,
        adv_lots=adv,
        passive_share=settings.passive_share,
    )
    fitted = basis @ weights
    return ImpactCalibration(
        instrument_id=name,
        dates=tuple(day.partition.date for day in days),
        seed=seed,
        parameters=parameters,
        intervals=_intervals(adv * resampled, temporary_draws),
        rows=sum(len(day.book.ts_ns) for day in days),
        trades=found,
        unsigned=sum(part.unsigned for part in trades),
        blocks=blocks,
        explained=float((2 * fitted @ move[0] - _quadratic(fitted, flow[0])) / clock.square.sum()),
        temporary_from=source,
        lag_s=np.arange(settings.lags) * settings.bin_ns / NS,
        kernel_bps=adv * kernel,
        kernel_interval=adv * np.percentile(kernel_draws, (2.5, 97.5), axis=0),
        fitted_bps=adv * np.cumsum(fitted),
        sweep_lots=sizes,
        sweep_bps=np.divide(cost.sum(0), count.sum(0), out=np.zeros(len(sizes)), where=count.sum(0) > 0),
        **curves,
    )


def with_impact(days: Sequence["MarketDay"], calibration: ImpactCalibration) -> list["MarketDay"]:
    """`days` that carry the calibrated parameters; raises InputError for a day of another instrument.

    Calibrate on the days that train; a day on which a policy is judged must not be among them.
    """
    for day in days:
        if day.partition.instrument_id != calibration.instrument_id:
            raise InputError(f"impact of {calibration.instrument_id} does not belong to {day.partition.instrument_id}")
    return [replace(day, impact=calibration.parameters) for day in days]


def with_earlier_impact(day: "MarketDay", earlier: Sequence["MarketDay"]) -> "MarketDay":
    """`day` with the impact of the last EARLIER_DAYS of `earlier`; of `day` itself where there is none.

    The latter serves days that train; `history_days` 0 marks them, as it does their volume curve. Raises as
    `calibrate_impact`, and InputError where one of them is not earlier.
    """
    late = [other.partition.date for other in earlier if other.partition.date >= day.partition.date]
    if late:
        raise InputError(f"day {late[0]} is not earlier than {day.partition.date}: its impact must not be known there")
    found = calibrate_impact(earlier[-EARLIER_DAYS:] or [day], 0, CalibrationSettings(resamples=2))
    return with_impact([day], found)[0]


def _sums(
    days: Sequence["MarketDay"], trades: Sequence[MetaTrades], settings: CalibrationSettings
) -> tuple[Sums, Sums]:
    """Sums on the clock, large trades cut, and in trade time."""
    largest = int(np.quantile(np.concatenate([part.lots for part in trades]), settings.cut_quantile))
    clock, event = [], []
    for day, part in zip(days, trades, strict=True):
        cut = replace(part, lots=np.minimum(part.lots, largest))
        clock.append(clock_sums(day, cut, settings.bin_ns, settings.lags, settings.block_ns))
        event.append(event_sums(day, part, settings.event_lags, settings.block_ns))
    return Sums.join(clock), Sums.join(event)


def _costs(
    days: Sequence["MarketDay"], trades: Sequence[MetaTrades], settings: CalibrationSettings
) -> tuple[str, tuple[Floats, Floats, Floats]]:
    """What the temporary part is fitted to, and its sizes, sums and counts (`impact_temporary`)."""
    if max(day.book.bid_px.shape[1] for day in days) > 1:
        return "visible book", sweep_costs(days, settings.sizes, settings.sweep_every_ns, settings.block_ns)
    return "meta trades", print_costs(days, trades, settings.sizes, settings.block_ns)


def _in_trade_time(event: Sums, rng: np.random.Generator, resamples: int) -> dict[str, Floats]:
    """Response, correlation of signs and propagator in trade time, as `ImpactCalibration` names them."""
    halves = len(event.count)
    draws = rng.multinomial(halves, np.full(halves, 1 / halves), resamples).astype(np.float64)
    signs, moves = event.flow.sum(0), event.move.sum(0)
    return {
        "response_bps": np.concatenate([[0.0], np.cumsum(moves)[:-1]]) / signs[0],
        "response_interval": np.percentile(_responses(event, draws), (2.5, 97.5), axis=0),
        "sign_correlation": signs / signs[0],
        "sign_interval": np.percentile(_normalised(draws @ event.flow), (2.5, 97.5), axis=0),
        "event_kernel_bps": np.concatenate([[0.0], np.cumsum(solve_propagator(signs, moves))[:-1]]),
    }


def _intervals(weights: Floats, temporary: Floats) -> dict[str, tuple[float, float]]:
    """95% intervals from resampled weights `(R, 1 + K)`, permanent first, and temporary parts `(R,)`."""
    found = {"start_bps": _interval(weights.sum(axis=1)), "permanent_bps": _interval(weights[:, 0])}
    found |= {f"transient_bps_{k}": _interval(weights[:, 1 + k]) for k in range(weights.shape[1] - 1)}
    return found | {"temporary": _interval(temporary)}


# The propagator -------------------------------------------------------------------------------------------------


def kernel_basis(settings: CalibrationSettings) -> Floats:
    """Increments of G by bin for each part, `(L, 1 + K)`: permanent, then the exponentials.

    A lot trades anywhere in its bin with equal chance: at the bin's end an exponential has decayed to the mean of that.
    """
    width = settings.bin_ns / NS
    basis = np.zeros((settings.lags, 1 + len(settings.decay_s)))
    basis[0, 0] = 1.0
    for k, tau in enumerate(settings.decay_s):
        left = tau / width * -np.expm1(-width / tau) * np.exp(-np.arange(settings.lags) * width / tau)
        basis[:, 1 + k] = np.diff(left, prepend=0.0)
    return basis


def fit_weights(basis: Floats, flow: Floats, move: Floats) -> Floats:
    """Weights from 0 up of the parts `(L, P)` that forecast the moves best, `(P,)`, from sums `(L,)` over pairs."""
    from scipy.linalg import toeplitz
    from scipy.optimize import nnls

    inner = basis.T @ (toeplitz(flow) @ basis)
    scale = np.sqrt(np.maximum(np.diag(inner), 1e-300))
    values, vectors = np.linalg.eigh(inner / np.outer(scale, scale))
    root = vectors * np.sqrt(np.maximum(values, 1e-12))
    weights, _ = nnls(root.T, np.linalg.solve(root, basis.T @ move / scale))
    return np.asarray(weights / scale, float)


def solve_propagator(flow: Floats, move: Floats) -> Floats:
    """Increments g `(L,)` of the propagator without a form: the Toeplitz system of `flow` and `move`, both `(L,)`."""
    from scipy.linalg import solve_toeplitz

    return np.asarray(solve_toeplitz(flow, move), float)


def _kernels(sums: Sums, draws: Floats) -> tuple[Floats, Floats]:
    kernel = np.cumsum(solve_propagator(sums.flow.sum(0), sums.move.sum(0)))
    some = draws[: min(len(draws), 200)]  # the band is for the eye
    return kernel, np.array([np.cumsum(solve_propagator(d @ sums.flow, d @ sums.move)) for d in some])


def _quadratic(values: Floats, flow: Floats) -> float:
    from scipy.linalg import toeplitz

    return float(values @ (toeplitz(flow) @ values))


def _responses(event: Sums, draws: Floats) -> Floats:
    flow, move = draws @ event.flow, draws @ event.move
    running = np.cumsum(move, axis=1)
    return np.concatenate([np.zeros((len(draws), 1)), running[:, :-1]], axis=1) / flow[:, :1]


def _normalised(flow: Floats) -> Floats:
    return flow / flow[:, :1]


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _one_instrument(days: Sequence["MarketDay"]) -> str:
    if not days:
        raise InputError("impact is calibrated on at least one day, got none")
    names = sorted({day.partition.instrument_id for day in days})
    if len(names) > 1:
        raise InputError(f"impact is calibrated for one instrument at a time, got {', '.join(names)}")
    return names[0]
