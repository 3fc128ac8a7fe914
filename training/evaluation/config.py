"""Settings of the evaluation stage, one frozen dataclass."""

from dataclasses import dataclass, field
from typing import Any, Self

from feature_repo.errors import InputError


@dataclass(frozen=True)
class EvaluationConfig:
    """What is held out, which comparisons are declared, and how intervals are made."""

    test_days: int = 1
    """Last session dates that are tested on; all earlier ones were for training."""

    seed: int = 0
    """Seed of the random baseline and of the bootstrap."""

    draws: int = 9_999
    """Bootstrap resamples of the clusters."""

    alpha: float = 0.05
    """Level of a claim and of the intervals (0.05 gives 95% intervals)."""

    agent: str = "agent"
    """Policy that is compared with every other."""

    champion: str = "champion"
    """Agent against this policy is the one primary comparison."""

    reference: str = "twap_market"
    """Policy that win rates are measured against."""

    longest_label_s: int = 0
    """Longest horizon that training looked ahead, seconds; the parents' horizon counts where that is longer."""

    calibration_days: int = 3
    """Last training days that volatility and impact of the Almgren-Chriss schedule are measured on."""

    risk_aversion: float = 0.01
    """Weight of variance (bps squared) against mean cost (bps) in the Almgren-Chriss schedule, per bps."""

    execution: dict[str, Any] = field(default_factory=dict)
    """Settings of the parent orders (`ExecutionConfig`); empty: those that the agent's bundle was trained for."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot evaluate, naming field, value and limit."""
        for name, low in (("test_days", 1), ("draws", 99), ("calibration_days", 1), ("longest_label_s", 0)):
            if getattr(self, name) < low:
                raise InputError(f"evaluation {name} is {getattr(self, name)}, the limit is {low} or more")
        if not 0.0 < self.alpha < 0.5:
            raise InputError(f"evaluation alpha is {self.alpha}, it must lie between 0 and 0.5")
        if self.risk_aversion < 0.0:
            raise InputError(f"evaluation risk_aversion is {self.risk_aversion}, it must not be negative")

    @classmethod
    def quick(cls) -> Self:
        """A short night; the evaluation is the same as that of a long one."""
        return cls()

    @classmethod
    def full(cls) -> Self:
        """A long night."""
        return cls()
