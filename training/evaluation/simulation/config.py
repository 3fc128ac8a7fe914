"""Settings of the simulator's report."""

from dataclasses import asdict, dataclass
from typing import Any

from feature_repo.errors import InputError

WORLDS = ("replay", "impact", "reactive")


@dataclass(frozen=True)
class SimulationConfig:
    """Frozen settings; raises InputError for a world that is none of WORLDS."""

    world: str = "replay"
    seed: int = 0  # of the bootstrap and of the reactive market's draws
    draws: int = 999  # resamples of half hours

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.world not in WORLDS:
            raise InputError(f"world {self.world!r} is not one of {', '.join(WORLDS)}")
        if self.draws < 99:
            raise InputError(f"draws {self.draws} must be at least 99")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
