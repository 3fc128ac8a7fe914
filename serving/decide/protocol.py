"""What somebody who asks a policy knows of it: `PolicyClient`, over HTTP or in process, and its answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import ShortfallError

Reason = Literal["unknown", "refused", "unauthorised", "unavailable", "late"]
"""Why there is no answer: a policy that is not loaded, an input or answer that must not be acted on, a token that is
not known, a service that is not there, an answer past its deadline."""


class DecideError(ShortfallError):
    """No answer that may be acted on; `reason` says of what kind, the message names value and limit."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Carry the reason beside the message."""
        super().__init__(message)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Policy:
    """A loaded bundle, as far as one must know it to build what it sees and to carry out what it says."""

    version: int  # of the registry
    sha256: str  # of the bundle's content, hexadecimal
    kind: str  # "static", "ppo" or "dqn"
    action_set: str  # one of serving.contracts.actions.ACTION_SETS
    stack: int  # observations of a parent that it sees, the newest last
    execution: Mapping[str, Any] = field(default_factory=dict)  # parents it was made for: ExecutionConfig as a dict
    feature_names: tuple[str, ...] = ()  # columns of the signal model's input
    signal_window: int = 0  # rows of the signal model's input; 0 without a signal model
    horizons_s: tuple[int, ...] = ()  # of its forecasts

    @property
    def signals(self) -> bool:
        """Whether the bundle has a signal model, so that `forecast` can be asked."""
        return self.signal_window > 0


@dataclass(frozen=True)
class Policies:
    """What may be asked now. Champion and challenger are among `loaded`."""

    champion: Policy | None
    challenger: Policy | None  # shadows: its decisions are recorded, never sent
    loaded: tuple[Policy, ...]

    def find(self, sha256: str) -> Policy | None:
        """The loaded policy of this content, None where there is none."""
        return next((policy for policy in self.loaded if policy.sha256 == sha256), None)


@dataclass(frozen=True)
class PolicyDecision:
    """One decision. Greedy: the same observation gives the same action."""

    sha256: str
    version: int
    action: int | tuple[float, ...]  # number of a discrete action, or (share, aggressiveness) of the continuous set
    distribution: tuple[float, ...]  # softmax of the masked logits; alpha then beta of the Beta densities


class PolicyClient(Protocol):
    """Asks policies. Every call raises DecideError where there is no answer that may be acted on."""

    async def policies(self) -> Policies:
        """Champion, challenger and all that is loaded."""

    async def decide(
        self, sha256: str, observation: NDArray[np.float32], action_mask: NDArray[Any] | None = None
    ) -> PolicyDecision:
        """Decide on `observation (stack x D,) float32` under `action_mask (A,)`, 1 where allowed.

        The mask may be left out for the continuous set, whose impossible parts the order kernel clamps.
        """

    async def forecast(self, sha256: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mid-price forecasts `(H,) float32, bps` from the last rows of features `(L, F) float32`, unnormalised."""

    async def close(self) -> None:
        """Let go of what is open."""
