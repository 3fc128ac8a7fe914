"""The last few observations of each parent side by side: state for a policy that sees more than the present."""

import numpy as np
from numpy.typing import NDArray

from serving.contracts.observation import PRIVATE_NAMES

MAX_STACK = 32
TIME_LEFT = PRIVATE_NAMES.index("time_left_fraction")


class ObservationStack:
    """Histories of N parents in lockstep; a parent begins where its whole horizon is left, its past all like that."""

    def __init__(self, depth: int) -> None:
        """Keep `depth` observations, the newest among them."""
        self.depth = depth
        self._rows: NDArray[np.float32] | None = None

    def push(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(N, depth x D) float32`, oldest first, of these and the earlier observations `(N, D)`; a fresh array.

        Another N than before begins anew.
        """
        count, width = observation.shape
        if self._rows is None or self._rows.shape != (count, self.depth * width):
            self._rows = np.tile(observation, (1, self.depth))
            return self._rows.copy()
        self._rows[:, :-width] = self._rows[:, width:]
        self._rows[:, -width:] = observation
        began = observation[:, TIME_LEFT] >= 1.0
        if began.any():
            self._rows[began] = np.tile(observation[began], (1, self.depth))
        return self._rows.copy()
