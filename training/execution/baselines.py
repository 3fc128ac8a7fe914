"""The schedules and rules to beat, on the same fill engine as every agent, and the one function that runs them all."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from training.execution.config import ExecutionConfig
from training.execution.policies import DecisionBatch, Ints, Policy, RandomPolicy
from training.market.day import BUCKET_NS, MarketDay


def _market(batch: DecisionBatch, lots: Ints) -> NDArray[np.void]:
    """Market orders for `lots`: what the visible book lacks comes from the documented extrapolation."""
    message = batch.message()
    message["cross_lots"] = np.minimum(np.maximum(lots, 0), batch.lots - batch.filled)
    message["send"] = message["cross_lots"] > 0
    message["beyond"] = 1
    return message


def _rest_at_best(batch: DecisionBatch, lots: Ints) -> NDArray[np.void]:
    """Rest `lots` at the own best price; nothing is sent where that side is empty or the right order rests already.

    The recorded book does not show the own order: where nobody else is left at its price, it is the best one and stays.
    """
    message = batch.message()
    alone = (batch.rest_lots > 0) & (batch.side * (batch.rest_px - batch.own_px) > 0)
    message["rest_px"] = np.where(alone, batch.rest_px, batch.own_px)
    message["rest_lots"] = np.where(batch.own_sz > 0, np.minimum(lots, batch.lots - batch.filled), 0)
    same = (batch.rest_px == message["rest_px"]) & (batch.rest_lots == message["rest_lots"])
    message["send"] = (batch.own_sz > 0) & ~same
    return message


def _due(batch: DecisionBatch, ahead: int) -> Ints:
    """Lots that the even schedule wants by the end of the slice `ahead` slices from now."""
    return np.maximum(batch.scheduled(batch.step + ahead) - batch.filled, 0)


class Immediate:
    """All lots by one market order at arrival."""

    name, substeps = "immediate", 1

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """Everything at the first decision."""
        return _market(batch, batch.lots if batch.step == 0 else np.zeros_like(batch.lots))


class TwapMarket:
    """An equal market order at the start of each slice."""

    name, substeps = "twap_market", 1

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """The lots due by the end of this slice."""
        return _market(batch, batch.due())


class TwapPassive:
    """Rest each slice at the own best price and cross what is unfilled at its end.

    With `substeps` > 1 the resting order follows the best price within the slice.
    """

    def __init__(self, substeps: int = 1) -> None:
        """`substeps` decisions a slice."""
        self.name, self.substeps = "twap_passive", substeps

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """Cross the rest of earlier slices, rest this one."""
        message = _rest_at_best(batch, batch.due())
        if batch.substep == 0:
            late = np.maximum(batch.scheduled(batch.step - 1) - batch.filled, 0)
            message["cross_lots"] = late
            message["rest_lots"] = np.where(batch.own_sz > 0, batch.due() - late, 0)
            message["send"] = (message["rest_lots"] > 0) | (late > 0)
            message["beyond"] = 1
        return message


class Carry:
    """Rest everything due at the own best price throughout; what is left is swept at the horizon."""

    def __init__(self, substeps: int = 1, ahead: int = 0) -> None:
        """`substeps` decisions a slice; lots may be due `ahead` slices before the even schedule wants them."""
        self.name, self.substeps, self.ahead = "carry", substeps, ahead

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """All lots due, at the best price of the decision."""
        return _rest_at_best(batch, _due(batch, self.ahead))


class SubmitAndLeave:
    """The whole parent as one limit order at arrival, left alone; the horizon sweeps what it did not get.

    Nevmyvaka, Feng and Kearns 2006, "Reinforcement learning for optimized trade execution", section 3.
    """

    name, substeps = "submit_and_leave", 1

    def __init__(self, offset_ticks: int = 0) -> None:
        """Rest `offset_ticks` from the own best price at arrival: above zero towards the opposite side and beyond."""
        self.offset_ticks = offset_ticks

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """One order, and again only where the own side was empty and nothing could be placed."""
        message = batch.message()
        fresh = (batch.rest_lots == 0) & (batch.filled < batch.lots) & (batch.own_sz > 0)
        message["rest_px"] = np.maximum(batch.own_px + batch.side * self.offset_ticks, 1)
        message["rest_lots"] = batch.lots - batch.filled
        message["send"] = fresh
        return message


class ImbalanceRule:
    """Carry, but cross the lots due when the opposite queue's share of the best sizes falls below `threshold`."""

    def __init__(self, threshold: float = 0.2, substeps: int = 1, ahead: int = 0) -> None:
        """Cross below `threshold`, a share in [0, 1]; `substeps` decisions a slice; `ahead` as for `Carry`."""
        if not 0 <= threshold <= 1:
            raise InputError(f"imbalance threshold {threshold} must lie in [0, 1]")
        self.name, self.substeps, self.threshold, self.ahead = "imbalance_rule", substeps, threshold, ahead

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """Rest, or take the thin opposite queue before it goes."""
        due = _due(batch, self.ahead)
        message = _rest_at_best(batch, due)
        queues = batch.opp_sz + batch.own_sz
        thin = (batch.opp_sz > 0) & (due > 0) & (batch.opp_sz < self.threshold * queues)
        message["cross_lots"] = np.where(thin, due, 0)
        message["rest_lots"] = np.where(thin, 0, message["rest_lots"])
        message["send"] = thin | (message["send"] == 1)
        return message


class VwapMarket:
    """Market orders that follow the mean volume curve of earlier days (`MarketDay.curve`; flat where there is none)."""

    name, substeps = "vwap_market", 1

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """The lots that the curve wants by the end of this slice."""
        config = batch.config
        upto = batch.start_ns + config.interval_ns * (batch.step + 1)
        share = np.zeros(len(batch.lots))
        for index in np.unique(batch.day):
            here = batch.day == index
            curve = _CumulativeCurve(batch.days[int(index)])
            begin, end = curve.at(batch.start_ns[here]), curve.at(batch.start_ns[here] + config.horizon_ns)
            whole = end - begin
            even = (batch.step + 1) / config.slices
            share[here] = np.where(whole > 0, (curve.at(upto[here]) - begin) / np.where(whole > 0, whole, 1.0), even)
        if batch.step == config.slices - 1:
            share[:] = 1.0
        return _market(batch, np.floor(batch.lots * share + 1e-9).astype(np.int64) - batch.filled)


class _CumulativeCurve:
    """Share of an average earlier day's volume traded by a time of this day, linear within a bucket."""

    def __init__(self, day: MarketDay) -> None:
        edges = day.bucket_edges()
        closes = np.array([c for _, c in day.windows], np.int64)
        ends = np.minimum(edges + BUCKET_NS, closes[np.searchsorted(closes, edges, side="right")])
        steps = np.cumsum(day.curve)
        self._times = np.column_stack([edges, ends]).ravel()
        self._values = np.column_stack([steps - day.curve, steps]).ravel()

    def at(self, ts_ns: Ints) -> NDArray[np.float64]:
        base = self._times[0]  # int64 nanoseconds exceed a float's precision: count from the open
        return np.interp((ts_ns - base).astype(float), (self._times - base).astype(float), self._values)


class Pov:
    """Participation of volume: market orders that keep up with `rate` of what has traded since arrival.

    Only trades stamped up to the decision count, so it lags the market by a decision; the horizon sweeps the rest.
    """

    name = "pov"

    def __init__(self, rate: float = 0.1, substeps: int = 1) -> None:
        """`rate` lots for each lot that the market trades, in (0, 1]; `substeps` decisions a slice."""
        if not 0 < rate <= 1:
            raise InputError(f"participation rate {rate} must lie in (0, 1]")
        self.rate, self.substeps = rate, substeps
        self._traded: dict[int, tuple[MarketDay, NDArray[np.int64], NDArray[np.int64]]] = {}

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """What the observed volume allows and is not filled yet."""
        if batch.traded is not None:
            return _market(batch, np.floor(self.rate * batch.traded).astype(np.int64) - batch.filled)
        volume = np.zeros(len(batch.lots), np.int64)
        for index in np.unique(batch.day):
            here = batch.day == index
            ts_ns, total = self._running(batch.days[int(index)])
            upto, since = (np.searchsorted(ts_ns, at[here], side="right") for at in (batch.now_ns, batch.start_ns))
            volume[here] = total[upto] - total[since]
        return _market(batch, np.floor(self.rate * volume).astype(np.int64) - batch.filled)

    def _running(self, day: MarketDay) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Times of the trades of `day`, and the lots traded before each of them and after the last."""
        if id(day) not in self._traded:  # the day is kept too, so that its id is not given to another one
            traded = day.book.trade_sz > 0
            total = np.concatenate([[0], np.cumsum(day.book.trade_sz[traded].astype(np.int64))])
            self._traded[id(day)] = (day, day.book.ts_ns[traded], total)
        return self._traded[id(day)][1:]


class AlmgrenChriss:
    """The closed-form schedule of Almgren and Chriss (2000, eqs. 15 to 18) by market orders.

    With time in horizons and quantity in parents, minimise E + risk_aversion x Var of the cost in bps: temporary
    impact `eta_bps` (cost of trading the whole parent evenly over the horizon), permanent impact `gamma_bps` (price
    move caused by the whole parent), volatility `sigma_bps` over a horizon. With tau = 1/slices and
    eta~ = eta - gamma tau / 2, cosh(kappa tau) = 1 + tau^2 risk_aversion sigma^2 / (2 eta~), and the share still open
    at u is sinh(kappa (1 - u)) / sinh(kappa).
    Raises InputError for negative or not finite values, and where gamma leaves no temporary impact.
    """

    name, substeps = "almgren_chriss", 1

    def __init__(
        self, risk_aversion: float = 0.1, eta_bps: float = 1.5, gamma_bps: float = 0.5, sigma_bps: float = 8.0
    ) -> None:
        """Costs and risk per parent and horizon, see the class."""
        values = (risk_aversion, eta_bps, gamma_bps, sigma_bps)
        if not all(np.isfinite(v) and v >= 0 for v in values):
            raise InputError(f"risk_aversion, eta_bps, gamma_bps, sigma_bps {values}: give finite values from 0 up")
        self.risk_aversion, self.eta_bps, self.gamma_bps, self.sigma_bps = values

    def kappa(self, slices: int) -> float:
        """Kappa x horizon of the discrete optimum."""
        tau = 1.0 / slices
        eta = self.eta_bps - 0.5 * self.gamma_bps * tau
        if eta <= 0:
            limit = 0.5 * self.gamma_bps * tau
            raise InputError(f"eta_bps {self.eta_bps} must exceed gamma_bps / (2 slices) = {limit:g}")
        return float(np.arccosh(1.0 + 0.5 * tau**2 * self.risk_aversion * self.sigma_bps**2 / eta) / tau)

    def open_share(self, done: float, slices: int) -> float:
        """Share of the parent still open after the share `done` of the horizon."""
        return open_share(self.kappa(slices) ** 2, done)

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """The lots that the trajectory wants sold or bought by the end of this slice."""
        slices = batch.config.slices
        share = 1.0 - self.open_share((batch.step + 1) / slices, slices)
        return _market(batch, np.floor(batch.lots * share + 1e-9).astype(np.int64) - batch.filled)


class ExposureMatched:
    """The Almgren-Chriss trajectory that carries a given exposure, by market orders: another policy's risk, no better.

    `exposure` is the mean over the horizon of the squared open share, to which the variance of the cost is proportional
    in a market of constant volatility. A policy that waits more than TWAP has the exposure of a trajectory of negative
    risk aversion (kappa^2 below zero, sines for hyperbolic sines); the last of them stands for what carries more.
    """

    name, substeps = "ac_matched", 1

    def __init__(self, exposure: float, slices: int) -> None:
        """Solve for the trajectory of `slices` trades, the first at arrival, whose exposure is `exposure`."""
        if not 0 <= exposure <= 1:
            raise InputError(f"exposure {exposure} must lie in [0, 1]")
        low, high = _LEAST_KAPPA2, _MOST_KAPPA2  # exposure falls as kappa^2 grows
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if schedule_exposure(middle, slices) > exposure else (low, middle)
        self.kappa2 = 0.5 * (low + high)

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """The lots that the trajectory wants by the end of this slice."""
        share = 1.0 - open_share(self.kappa2, (batch.step + 1) / batch.config.slices)
        return _market(batch, np.floor(batch.lots * share + 1e-9).astype(np.int64) - batch.filled)


_LEAST_KAPPA2 = -((0.5 * np.pi) ** 2)  # below it the trajectory trades away from its aim first
_MOST_KAPPA2 = 60.0**2  # all in the first slice


def open_share(kappa2: float, done: float) -> float:
    """sinh(kappa (1 - u)) / sinh(kappa) at u = `done`, for any sign of kappa^2 above -pi^2, without overflow."""
    kappa = float(np.sqrt(abs(kappa2)))
    if kappa < 1e-6:
        return 1.0 - done
    if kappa2 < 0:
        return float(np.sin(kappa * (1.0 - done)) / np.sin(kappa))
    return float(np.exp(-kappa * done) * np.expm1(-2 * kappa * (1 - done)) / np.expm1(-2 * kappa))


def schedule_exposure(kappa2: float, slices: int) -> float:
    """Mean squared open share of the trajectory `kappa2` when slice k trades at k / slices of the horizon."""
    return float(np.mean([open_share(kappa2, (k + 1) / slices) ** 2 for k in range(slices)]))


def default_policies(config: ExecutionConfig, seed: int = 0) -> list[Policy]:
    """Every baseline with its default parameters."""
    return [
        Immediate(),
        RandomPolicy(seed),  # type: ignore[list-item]
        TwapMarket(),
        TwapPassive(),
        SubmitAndLeave(),
        Carry(),
        ImbalanceRule(),
        VwapMarket(),
        Pov(),
        AlmgrenChriss(),
    ]
