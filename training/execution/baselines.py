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
    """Rest `lots` at the own best price; nothing is sent where that side is empty or the right order rests already."""
    message = batch.message()
    message["rest_px"] = batch.own_px
    message["rest_lots"] = np.where(batch.own_sz > 0, np.minimum(lots, batch.lots - batch.filled), 0)
    same = (batch.rest_px == batch.own_px) & (batch.rest_lots == message["rest_lots"])
    message["send"] = (batch.own_sz > 0) & ~same
    return message


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

    def __init__(self, substeps: int = 1) -> None:
        """`substeps` decisions a slice."""
        self.name, self.substeps = "carry", substeps

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """All lots due, at the best price of the decision."""
        return _rest_at_best(batch, batch.due())


class ImbalanceRule:
    """Carry, but cross the lots due when the opposite queue's share of the best sizes falls below `threshold`."""

    def __init__(self, threshold: float = 0.2, substeps: int = 1) -> None:
        """Cross below `threshold`, a share in [0, 1]; `substeps` decisions a slice."""
        if not 0 <= threshold <= 1:
            raise InputError(f"imbalance threshold {threshold} must lie in [0, 1]")
        self.name, self.substeps, self.threshold = "imbalance_rule", substeps, threshold

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """Rest, or take the thin opposite queue before it goes."""
        due = batch.due()
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
        kappa = self.kappa(slices)
        if kappa < 1e-6:
            return 1.0 - done
        # sinh(kappa (1 - u)) / sinh(kappa) without overflow for large kappa
        return float(np.exp(-kappa * done) * np.expm1(-2 * kappa * (1 - done)) / np.expm1(-2 * kappa))

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """The lots that the trajectory wants sold or bought by the end of this slice."""
        slices = batch.config.slices
        share = 1.0 - self.open_share((batch.step + 1) / slices, slices)
        return _market(batch, np.floor(batch.lots * share + 1e-9).astype(np.int64) - batch.filled)


def default_policies(config: ExecutionConfig, seed: int = 0) -> list[Policy]:
    """Every baseline with its default parameters."""
    return [
        Immediate(),
        RandomPolicy(seed),  # type: ignore[list-item]
        TwapMarket(),
        TwapPassive(),
        Carry(),
        ImbalanceRule(),
        VwapMarket(),
        AlmgrenChriss(),
    ]
