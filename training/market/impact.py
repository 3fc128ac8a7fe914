"""What own trades do to the price: a propagator with permanent, transient and temporary parts, in constant state.

Own trades of signed lots x_i at times t_i displace the price, in bps of the arrival price, by

    D(t) = sum over t_i < t of (x_i / V) G(t - t_i),     G(t) = permanent + sum over k of transient_k exp(-t / decay_k)

(Bouchaud, Gefen, Potters and Wyart 2004; Bouchaud, Farmer and Lillo 2009; the sum of exponentials stands for their
power law, and is the resilience of Obizhaeva and Wang 2013), V being the mean daily volume. D is linear in size: with
another permanent part, or with exponentials that decay from another start, a round trip could earn (Huberman and
Stanzl 2004; Gatheral 2010); with weights from 0 up G is positive definite, so none does. What a child order of q lots
pays itself, on average above the displaced best price, is at least

    c(q) = (q / V) G(0) / 2 + temporary x sigma x sqrt(q / V)

(the concave temporary part of Almgren, Thum, Hauptmann and Li 2005, exponent 1/2 for their 0.600 +- 0.038), sigma being
the daily volatility. What walking the visible book cost counts towards it, so that nothing is paid twice.

Prices are integers: the shift of the book in ticks is floor(|D| + u) with the sign of D, u uniform in [0, 1), drawn
once an episode from a hash of its start. Its mean over episodes is D exactly; the same parent has the same u whatever
works it.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from feature_repo.errors import InputError
from serving.contracts.observation import FORECAST_NAMES, MARKET_NAMES
from training.market.queues import kernel

NS = 1_000_000_000
FEATURE_COUNT, FORECAST_COUNT = len(MARKET_NAMES), len(FORECAST_NAMES)
EXPONENTIALS = 4  # most terms of the transient part
BARS = 128  # seconds whose changes of the shift are remembered: the features' 60, and as many without a book
GOLDEN = 0.6180339887498949  # step of the dither from one child order to the next

IMPACT_DTYPE = np.dtype(
    [
        ("active", np.int64),  # 0: the market does not react
        # parameters of the episode, in ticks of its own price
        ("permanent", np.float64),  # ticks per lot
        ("weights", np.float64, (EXPONENTIALS,)),  # ticks per lot
        ("rates", np.float64, (EXPONENTIALS,)),  # 1 / s
        ("temporary", np.float64),  # ticks per root of a lot
        ("passive_share", np.float64),
        ("dither", np.float64),  # u of the rounding, [0, 1)
        # state
        ("now_ns", np.int64),  # when `fading` was brought up to date
        ("next_ns", np.int64),  # the next whole second, when the shift may change
        ("kept", np.float64),  # permanent displacement, ticks
        ("fading", np.float64, (EXPONENTIALS,)),  # transient displacement, ticks
        ("most", np.int64),  # ticks that a shift or a concession may have: a quarter of the price
        ("passive_seen", np.int64),  # lots filled while resting that are in the displacement
        ("children", np.int64),  # child orders that were charged a concession
        ("moved", np.int64),  # 1 once the shift has been other than 0
        # changes of the shift by the second that they fall into (its end), slot = second % BARS; `impact_features`
        ("second", np.int64, (BARS,)),  # -1: none is known
        ("before", np.int64, (BARS,)),  # shift before the first change in it
        ("changes", np.int64, (BARS,)),
        ("shown", np.int64, (BARS,)),  # those among them with a two-sided book
        ("ofi", np.float64, (BARS,)),  # order flow that the changes show at the best, lots
        ("depth", np.float64, (BARS,)),  # sum of their mean best sizes, lots
        ("features", np.float32, (FEATURE_COUNT,)),  # market features of the displaced stream at the decision
        ("forecasts", np.float32, (FORECAST_COUNT,)),  # zeros: no forecast knows the displaced stream
    ],
    align=True,
)
"""Impact on one episode. Parameters are set by `start_impact`; `decay_to` and `push` write the rest."""

PARAMETER_DTYPE = np.dtype(
    [
        ("known", np.int64),  # 0: no parameters are given for the day
        ("permanent", np.float64),  # bps per lot
        ("weights", np.float64, (EXPONENTIALS,)),  # bps per lot
        ("rates", np.float64, (EXPONENTIALS,)),  # 1 / s
        ("temporary", np.float64),  # bps per root of a lot
        ("passive_share", np.float64),
    ]
)
"""ImpactParameters of one day as the kernels read them."""


@dataclass(frozen=True)
class ImpactParameters:
    """How the price of one instrument reacts to own trades; see the module for the formulas.

    Raises InputError for negative or not finite values, more than EXPONENTIALS terms, or scales that are not positive.
    """

    permanent_bps: float  # displacement that stays, bps per mean daily volume traded
    transient_bps: tuple[float, ...]  # displacement that decays, bps per mean daily volume traded, one a term
    decay_s: tuple[float, ...]  # its time constants, seconds
    temporary: float  # factor Y of sigma sqrt(q / V); no unit
    volatility_bps: float  # sigma: bps over a day
    adv_lots: float  # V: mean daily volume, lots
    passive_share: float = 0.5  # displacement by a lot that was filled while resting / by one that took

    def __post_init__(self) -> None:
        """Refuse what would earn in a round trip, or has no meaning."""
        object.__setattr__(self, "transient_bps", tuple(float(value) for value in self.transient_bps))
        object.__setattr__(self, "decay_s", tuple(float(value) for value in self.decay_s))
        if len(self.transient_bps) != len(self.decay_s) or len(self.decay_s) > EXPONENTIALS:
            raise InputError(
                f"{len(self.transient_bps)} transient_bps and {len(self.decay_s)} decay_s: give as many of each, "
                f"{EXPONENTIALS} at most"
            )
        values = (self.permanent_bps, self.temporary, self.volatility_bps, *self.transient_bps)
        if not all(np.isfinite(value) and value >= 0 for value in values):
            raise InputError(f"impact of {values}: permanent, temporary, volatility and transient must be from 0 up")
        if not all(np.isfinite(value) and value > 0 for value in (self.adv_lots, *self.decay_s)):
            raise InputError(f"adv_lots {self.adv_lots}, decay_s {self.decay_s}: must be above 0")
        if not 0 <= self.passive_share <= 1:
            raise InputError(f"passive_share {self.passive_share} must lie in [0, 1]")

    @property
    def is_off(self) -> bool:
        """True where nothing reacts."""
        return not (self.permanent_bps or self.temporary or any(self.transient_bps))

    def scaled(self, factor: float) -> Self:
        """The same with every part `factor` times as large; 0 switches impact off."""
        if not (np.isfinite(factor) and factor >= 0):
            raise InputError(f"impact cannot be scaled by {factor}; give a number from 0 up")
        return replace(
            self,
            permanent_bps=factor * self.permanent_bps,
            transient_bps=tuple(factor * value for value in self.transient_bps),
            temporary=factor * self.temporary,
        )

    def kernel_bps(self, seconds: Any) -> Any:
        """G at lags `seconds` (any shape), bps per mean daily volume."""
        lags = np.asarray(seconds, float)
        terms = (w * np.exp(-lags / tau) for w, tau in zip(self.transient_bps, self.decay_s, strict=True))
        return self.permanent_bps + sum(terms, np.zeros_like(lags))

    def concession_bps(self, lots: Any) -> Any:
        """c(q): what a child order of `lots` (any shape) pays on average above the displaced best price, bps."""
        share = np.asarray(lots, float) / self.adv_lots
        return 0.5 * share * self.kernel_bps(0.0) + self.temporary * self.volatility_bps * np.sqrt(share)

    def row(self) -> Any:
        """As a PARAMETER_DTYPE array of one row, per lot."""
        row = np.zeros(1, PARAMETER_DTYPE)
        count = len(self.decay_s)
        row["known"], row["passive_share"] = 1, self.passive_share
        row["permanent"] = self.permanent_bps / self.adv_lots
        row["weights"][0, :count] = np.array(self.transient_bps) / self.adv_lots
        row["rates"][0, :count] = 1.0 / np.array(self.decay_s)
        row["temporary"] = self.temporary * self.volatility_bps / np.sqrt(self.adv_lots)
        return row

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From plain values; raises InputError where a name is missing or unknown."""
        known = {field.name for field in fields(cls)}
        required = known - {"passive_share"}
        if set(values) - known or required - set(values):
            raise InputError(f"impact parameters {sorted(values)}; wanted {sorted(known)}")
        return cls(**values)


OFF = ImpactParameters(0.0, (), (), 0.0, 0.0, 1.0)
"""A market that does not react."""


@kernel
def dither_of(start_ns, day):
    """u of an episode in [0, 1): the SplitMix64 hash of its start and day (Steele, Lea and Flood 2014)."""
    word = np.uint64(start_ns) + np.uint64(day + 1) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word = word ^ (word >> np.uint64(31))
    return np.float64(word >> np.uint64(11)) * 2.0**-53


@kernel
def start_impact(impact, parameters, now_ns, mid2, dither):
    """Set the parameters (a PARAMETER_DTYPE record) at the price `mid2` / 2 ticks and forget every own trade."""
    ticks = 0.5e-4 * mid2  # of one bps
    impact.permanent = ticks * parameters.permanent
    impact.temporary = ticks * parameters.temporary
    impact.passive_share = parameters.passive_share
    total = impact.permanent + impact.temporary
    for k in range(EXPONENTIALS):
        impact.weights[k] = ticks * parameters.weights[k]
        impact.rates[k] = parameters.rates[k]
        impact.fading[k] = 0.0
        total += impact.weights[k]
    impact.active = 1 if total > 0.0 else 0
    impact.dither = dither
    impact.now_ns, impact.next_ns = now_ns, (now_ns // NS + 1) * NS
    impact.kept = 0.0
    impact.most = mid2 // 8
    impact.passive_seen = impact.children = impact.moved = 0
    for slot in range(BARS):
        impact.second[slot] = -1


@kernel
def decay_to(impact, now_ns):
    """Let the transient part fade up to `now_ns`; the shift is left to `shift_of`."""
    seconds = 1e-9 * (now_ns - impact.now_ns)
    if seconds <= 0.0:
        return
    for k in range(EXPONENTIALS):
        if impact.fading[k] != 0.0:
            impact.fading[k] *= np.exp(-seconds * impact.rates[k])
    impact.now_ns = now_ns


@kernel
def push(impact, signed_lots, now_ns, passive):
    """Displace the price by own lots (above 0 bought) that were filled at `now_ns`, resting ones by their share."""
    decay_to(impact, now_ns)
    lots = signed_lots * (impact.passive_share if passive else 1.0)
    impact.kept += impact.permanent * lots
    for k in range(EXPONENTIALS):
        impact.fading[k] += impact.weights[k] * lots


@kernel
def displacement(impact):
    """D in ticks at `now_ns` of the state."""
    total = impact.kept
    for k in range(EXPONENTIALS):
        total += impact.fading[k]
    return total


@kernel
def shift_of(impact):
    """D as whole ticks: towards 0 after the dither is added to its size, so that no displacement is no shift.

    It never exceeds a quarter of the arrival price.
    """
    moved = displacement(impact)
    ticks = np.int64(np.floor(min(abs(moved), 1e15) + impact.dither))
    return min(ticks, impact.most) if moved >= 0.0 else -min(ticks, impact.most)


@kernel
def concession_ticks(impact, lots):
    """c(q) in ticks for a child order of `lots`."""
    start = impact.permanent
    for k in range(EXPONENTIALS):
        start += impact.weights[k]
    return 0.5 * start * lots + impact.temporary * np.sqrt(lots)


@kernel
def whole_concession(impact, ticks):
    """A concession of `ticks` (0 or less: none) as whole ticks, for the next child order.

    The dither moves on by the golden ratio from child to child: the mean over episodes is exact for each, and the
    children of one episode are not all rounded the same way.
    """
    u = impact.dither + GOLDEN * impact.children
    if ticks <= 0.0:
        return np.int64(0)
    return min(np.int64(np.floor(min(ticks, 1e15) + u - np.floor(u))), impact.most)
