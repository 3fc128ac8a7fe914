"""How parent orders are made and worked: the settings that training, evaluation and baselines share."""

from dataclasses import asdict, dataclass
from typing import Any

from feature_repo.errors import InputError
from serving.contracts.actions import ACTION_SETS
from training.market.orders import FILL_MODELS

NS = 1_000_000_000
MS = 1_000_000
WORLDS = ("replay", "impact", "reactive")
"""Markets that an episode can be played in; each is added here by what implements it."""


@dataclass(frozen=True)
class ExecutionConfig:
    """Frozen settings of parents and episodes; `from_dict` refuses unknown names."""

    horizon_s: int = 600  # time that a parent has
    decision_interval_s: float = 30  # a slice of the schedule, in which baselines decide; divides the horizon
    decisions_per_slice: int = 1  # decisions of an agent in a slice, evenly spaced; whole milliseconds apart
    decision_every_events: int | None = None  # decide after so many book rows instead; the slices stay as they are
    lots: int | None = 200  # parent size; None: adv_fraction decides
    adv_fraction: float = 0.001  # parent size as a share of the mean daily volume of earlier days, where lots is None
    start_every_s: int = 600  # spacing of the arrival grid
    first_start_s: int = 60  # the first arrival of a session window comes this long after its open
    room_s: int = 5  # time that must be left between horizon and close for the forced sweep to arrive
    ahead_slices: int = 1  # slices that an agent may be ahead of the TWAP schedule
    wait_keeps: bool = False  # the discrete action wait leaves what rests as it stands instead of cancelling it
    actions: str = "discrete"  # one of serving.contracts.actions.ACTION_SETS
    maker_fee_bps: float = 0.0
    taker_fee_bps: float = 0.0
    risk_aversion: float = 0.0  # weight of the inventory risk penalty in the reward; 0: rewards sum to minus IS
    latency_ns: int | None = None  # None: the instrument's own rule; 0 is a sensitivity, never a headline
    fill_model: str = "conservative"  # one of training.market.orders.FILL_MODELS
    world: str = "replay"  # one of WORLDS
    impact_scale: float = 1.0  # world "impact": own impact in multiples of the days' calibrated one; 0: off
    signal_strength: float = 0.0  # world "reactive": strength of the planted signal, 0 to 1; 0: the mid is a martingale
    market_seed: int = 0  # world "reactive": seed of the markets that given parents meet; drawn ones follow the env's

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.interval_ns <= 0 or self.horizon_s <= 0 or self.horizon_ns % self.interval_ns:
            raise InputError(
                f"decision_interval_s {self.decision_interval_s} must be positive and divide horizon_s {self.horizon_s}"
            )
        if self.decisions_per_slice < 1 or self.interval_ns % (self.decisions_per_slice * MS):
            raise InputError(
                f"decisions_per_slice {self.decisions_per_slice} must be 1 or more and cut a slice of "
                f"{self.interval_ns} ns into whole milliseconds"
            )
        if self.decision_every_events is not None and self.decision_every_events < 1:
            raise InputError(f"decision_every_events {self.decision_every_events} must be at least 1")
        for name, known in (("actions", ACTION_SETS), ("world", WORLDS), ("fill_model", FILL_MODELS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.lots is not None and self.lots <= 0:
            raise InputError(f"lots {self.lots} must be positive")
        if not 0 < self.adv_fraction <= 1:
            raise InputError(f"adv_fraction {self.adv_fraction} must lie in (0, 1]")
        if self.start_every_s <= 0 or self.first_start_s < 0 or self.room_s < 1:
            raise InputError(
                f"start_every_s {self.start_every_s}, first_start_s {self.first_start_s}, room_s {self.room_s}: "
                "must be at least 1, 0 and 1"
            )
        if not 0 <= self.impact_scale < float("inf"):
            raise InputError(f"impact_scale {self.impact_scale} must be finite and not negative")
        if not 0 <= self.signal_strength <= 1 or self.market_seed < 0:
            raise InputError(
                f"signal_strength {self.signal_strength} must lie in [0, 1], market_seed {self.market_seed} not below 0"
            )
        if self.ahead_slices < 0 or self.risk_aversion < 0:
            raise InputError(f"ahead_slices {self.ahead_slices}, risk_aversion {self.risk_aversion}: give 0 or more")
        if self.latency_ns is not None and not 0 <= self.latency_ns < self.pause_ns:
            raise InputError(f"latency_ns {self.latency_ns} must be shorter than a decision interval and not negative")

    @property
    def slices(self) -> int:
        """Slices of the schedule."""
        return self.horizon_ns // self.interval_ns

    @property
    def horizon_ns(self) -> int:
        """Horizon in nanoseconds."""
        return self.horizon_s * NS

    @property
    def interval_ns(self) -> int:
        """A slice in nanoseconds, whole milliseconds."""
        return round(self.decision_interval_s * 1000) * MS

    @property
    def pause_ns(self) -> int:
        """Nanoseconds between two decisions of an agent on the time grid."""
        return self.interval_ns // self.decisions_per_slice

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metadata and `env_config`."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ExecutionConfig":
        """Settings from plain values; raises InputError on a name that is not one."""
        known = sorted(ExecutionConfig.__dataclass_fields__)
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"unknown execution settings {unknown}; known: {known}")
        return ExecutionConfig(**values)
