"""Which sizes and horizons are tested besides the headline's: none of them takes more of the market than it may."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from training.evaluation.config import EvaluationConfig
from training.evaluation.sensitivity import moves_the_market, with_impact

if TYPE_CHECKING:
    from training.execution.config import ExecutionConfig
    from training.market.day import MarketDay

_ROUND_S = 600  # a horizon that is made for a size is a multiple of ten minutes


@dataclass(frozen=True)
class Stratum:
    """Parents of one size and horizon; `execution` is None, and `why_not` says why, where they cannot count."""

    size_adv: float
    horizon_s: int
    execution: "ExecutionConfig | None"
    why_not: str = ""

    def facts(self) -> dict[str, Any]:
        """JSON-able, without figures."""
        return {
            "size_adv": self.size_adv,
            "horizon_s": self.horizon_s,
            "counted": self.execution is not None,
            "why_not": self.why_not,
            "world": self.execution.world if self.execution is not None else None,
        }


def plan_strata(
    days: "Sequence[MarketDay]", execution: "ExecutionConfig", config: EvaluationConfig, impact_missing: str = ""
) -> list[Stratum]:
    """Every size of `config.sizes_adv` with the horizons at which its expected participation keeps the limit.

    A parent of a share f of the daily volume over h of a session of T seconds expects to be f T / h of what trades.
    Sizes from `config.impact_from_adv` up are played where own orders move the market, and do not count where
    `impact_missing` says why the days' impact is not known.
    """
    session_s = max(sum(closes - opens for opens, closes in day.windows) // 1_000_000_000 for day in days)
    room_s = execution.first_start_s + execution.room_s + 1
    longest_s = min(max(closes - opens for opens, closes in day.windows) // 1_000_000_000 for day in days) - room_s
    strata = []
    for size in config.sizes_adv:
        needed_s = size * session_s / config.participation_limit
        for horizon_s in _horizons(needed_s, execution, config):
            if horizon_s > longest_s:
                why = f"needs a horizon of {horizon_s} s, the longest session window has room for {longest_s} s"
                strata.append(Stratum(size, horizon_s, None, why))
                break
            changed = replace(
                execution,
                lots=None,
                adv_fraction=size,
                horizon_s=horizon_s,
                start_every_s=max(execution.start_every_s, horizon_s // 4),
            )
            if size >= config.impact_from_adv and not moves_the_market(changed):
                if impact_missing:
                    strata.append(Stratum(size, horizon_s, None, f"impact off: {impact_missing}"))
                    continue
                changed = with_impact(changed)
            strata.append(Stratum(size, horizon_s, changed))
    return strata


def _horizons(needed_s: float, execution: "ExecutionConfig", config: EvaluationConfig) -> list[int]:
    """The shortest listed horizons of at least `needed_s` that whole decisions fill; where none is, one made for it."""
    interval_ns = execution.interval_ns
    fitting = [h for h in sorted(config.horizons_s) if h >= needed_s and h * 1_000_000_000 % interval_ns == 0]
    if fitting:
        return fitting[: config.horizons_a_size]
    made = int(-(-needed_s // _ROUND_S) * _ROUND_S)
    return [made + -made % max(1, round(interval_ns / 1_000_000_000))]
