"""The stepper of each world: what environments and `run_policy` are built on."""

from collections.abc import Sequence

from training.execution.config import ExecutionConfig
from training.execution.reactive_stepping import ReactiveStepper
from training.execution.stepping import Stepper
from training.market.day import MarketDay


def make_stepper(
    days: Sequence[MarketDay], config: ExecutionConfig, episodes: int, fill_capacity: int = 1, draws: bool = True
) -> Stepper:
    """`episodes` over `days` in `config.world`; arguments and errors as of `Stepper`."""
    kind = ReactiveStepper if config.world == "reactive" else Stepper
    return kind(days, config, episodes, fill_capacity, draws)
