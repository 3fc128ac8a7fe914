"""Settings of the evaluation stage, one frozen dataclass."""

from dataclasses import dataclass, field
from typing import Any, Self

from feature_repo.errors import InputError


@dataclass(frozen=True)
class EvaluationConfig:
    """What is held out, which comparisons are declared, and how intervals are made."""

    test_days: int = 1
    """Last session dates that are tested on; all earlier ones were for training."""

    validation_days: int = 1
    """Last training days on which the baselines' parameters, and the opponent of each instrument, are chosen."""

    seed: int = 0
    """Seed of the random baseline and of the bootstrap."""

    draws: int = 9_999
    """Bootstrap resamples of the clusters."""

    alpha: float = 0.05
    """Level of a claim and of the intervals (0.05 gives 95% intervals)."""

    agent: str = "agent"
    """Policy that is compared with every other."""

    champion: str = "champion"
    """Policy that the agent must beat, by a secondary comparison, to take its place."""

    reference: str = "twap_market"
    """Policy that win rates are measured against."""

    longest_label_s: int = 0
    """Longest horizon that training looked ahead, seconds; the parents' horizon counts where that is longer."""

    untuned: bool = False
    """Where there is no day before the test days: baselines with their default parameters, against a fixed opponent."""

    left_out: tuple[str, ...] = ()
    """Session dates that are neither tested nor tuned on, e.g. holidays on which hardly anything trades."""

    calibration_days: int = 3
    """Last training days that volatility and impact of the Almgren-Chriss schedule are measured on."""

    wide_tuning: bool = False
    """Try a wide grid of the baselines' parameters instead of a small one."""

    sizes_adv: tuple[float, ...] = ()
    """Strata: sizes of parents as shares of the mean daily volume, each at the horizons that keep participation low."""

    horizons_s: tuple[int, ...] = (300, 600, 1_800, 3_600, 7_200)
    """Horizons of the strata; where none is long enough for a size, the shortest that is."""

    horizons_a_size: int = 2
    """Strata for each size: the shortest horizon that is long enough, and so many in all."""

    participation_limit: float = 0.1
    """Most of the expected volume of its horizon that a parent of a stratum may be."""

    impact_from_adv: float = 0.01
    """Sizes from here up count only where own orders move the market."""

    sensitivities: bool = False
    """Run the declared comparisons in every world, fill model and strength of impact that the simulator knows."""

    frontier: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1, 1.0)
    """Risk aversions of the efficient frontier, per bps."""

    risk_aversion: float = 0.01
    """Weight of variance (bps squared) against mean cost (bps) in the Almgren-Chriss schedule, per bps."""

    execution: dict[str, Any] = field(default_factory=dict)
    """Settings of the parent orders (`ExecutionConfig`); empty: those that the agent's bundle was trained for."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot evaluate, naming field, value and limit."""
        lows = {"test_days": 1, "validation_days": 1, "draws": 99, "calibration_days": 1, "longest_label_s": 0}
        for name, low in {**lows, "horizons_a_size": 1}.items():
            if getattr(self, name) < low:
                raise InputError(f"evaluation {name} is {getattr(self, name)}, the limit is {low} or more")
        if not 0.0 < self.alpha < 0.5:
            raise InputError(f"evaluation alpha is {self.alpha}, it must lie between 0 and 0.5")
        if self.risk_aversion < 0.0 or any(value < 0.0 for value in self.frontier):
            raise InputError(f"evaluation risk_aversion {self.risk_aversion}, frontier {self.frontier}: give 0 or more")
        if not all(0.0 < size <= 1.0 for size in self.sizes_adv) or not 0.0 < self.participation_limit <= 1.0:
            raise InputError(
                f"evaluation sizes_adv {self.sizes_adv}, participation_limit {self.participation_limit}: "
                "give shares above 0, at most 1"
            )

    @classmethod
    def quick(cls) -> Self:
        """A short night: the declared comparisons alone."""
        return cls()

    @classmethod
    def full(cls) -> Self:
        """A long night: every size, world and fill model too."""
        return cls(
            wide_tuning=True,
            sizes_adv=(0.0001, 0.001, 0.005, 0.01, 0.05),
            sensitivities=True,
            frontier=(0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0),
        )
