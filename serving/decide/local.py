"""The same answers without HTTP, for lockstep and tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts.bundle import Bundle
from serving.decide.catalogue import Catalogue
from serving.decide.protocol import Policies, PolicyClient, PolicyDecision


class LocalPolicies(PolicyClient):
    """Policies of a catalogue, asked in process."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Answer from `catalogue`; who wants it to follow a registry refreshes it."""
        self.catalogue = catalogue

    @classmethod
    def of(cls, champion: Bundle, challenger: Bundle | None = None) -> "LocalPolicies":
        """Policies given as loaded bundles, versions 1 and 2."""
        return cls(Catalogue.of(champion, challenger))

    async def policies(self) -> Policies:
        """Champion, challenger and all that is loaded."""
        return self.catalogue.policies()

    async def decide(
        self, sha256: str, observation: NDArray[np.float32], action_mask: NDArray[Any] | None = None
    ) -> PolicyDecision:
        """As `PolicyClient.decide`."""
        return (await self.catalogue.ask(sha256)).decide(np.asarray(observation, np.float32), action_mask)

    async def forecast(self, sha256: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `PolicyClient.forecast`."""
        return (await self.catalogue.ask(sha256)).forecast(np.asarray(features, np.float32))

    async def close(self) -> None:
        """Nothing is open."""
