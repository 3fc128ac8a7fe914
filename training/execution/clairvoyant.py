"""A rule that sees the signal which the synthetic market planted: what knowing it is worth. It is no baseline.

Neither events nor features hold the signal. In replay it is computed again from the source's options; the reactive
world tells its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from training.execution.baselines import _due, _rest_at_best
from training.execution.policies import DecisionBatch, Floats
from training.market.day import MarketDay

ORACLE = "planted_signal"
"""Name of the rule in every result."""
NEVER = 2.0
"""Threshold that a signal in [-1, 1] does not reach."""


class PlantedSignal:
    """The latent signal of the synthetic market's days, from the options that its reader was given."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` as in a bronze manifest; InputError where the synthetic market has no such option."""
        from feature_repo.ticks.synthetic import SyntheticOptions

        self.options = vars(SyntheticOptions.parse(options))
        self._paths: dict[Partition, tuple[NDArray[np.int64], Floats]] = {}

    def at(self, day: MarketDay, ts_ns: NDArray[np.int64]) -> Floats:
        """Signal in force at `ts_ns (N,)`, in [-1, 1], above zero where the price leans up, `(N,) float64`.

        Raises InputError for a day that the synthetic market did not make, and for a time outside its session.
        """
        from feature_repo.ticks.synthetic import VENUE, latent_signal

        if not day.instrument.synthetic or day.partition.venue != VENUE:
            raise InputError(f"{day.partition.instrument_id} is no synthetic market: nothing was planted there")
        if day.partition not in self._paths:
            self._paths[day.partition] = latent_signal(self.options, day.partition)
        seconds, path = self._paths[day.partition]
        row = np.searchsorted(seconds, ts_ns, side="right") - 1
        if (row < 0).any():
            raise InputError(f"{day.partition}: {int(ts_ns.min())} ns is before the session: no signal yet")
        return path[row]


class SignalRule:
    """Carry with the planted signal in sight, side-signed: above zero the price is about to go against the parent.

    From `chase` up it rests inside a spread of two ticks and more, and may be `more` slices further ahead of the
    schedule; from `-aside` down it cancels and waits for the better price. It never crosses: at the strength planted
    by default a spread costs more than the signal tells.
    """

    name = ORACLE

    def __init__(
        self,
        signal: PlantedSignal | None,
        aside: float = 0.7,
        chase: float = 0.5,
        more: int = 4,
        substeps: int = 1,
        ahead: int = 0,
    ) -> None:
        """`signal` is that of the recorded days, None for the reactive world alone; `substeps` decisions a slice."""
        self.signal, self.aside, self.chase, self.more = signal, aside, chase, more
        self.substeps, self.ahead = substeps, ahead

    def decide(self, batch: DecisionBatch) -> NDArray[np.void]:
        """Rest what is due, more of it and inside the spread before an adverse move, nothing before a good one."""
        lean = batch.side * self._seen(batch)
        due = np.where(lean >= self.chase, _due(batch, self.ahead + self.more), _due(batch, self.ahead))
        message = _rest_at_best(batch, due)
        inside = (lean >= self.chase) & (due > 0) & (batch.side * (batch.opp_px - batch.own_px) > 1)
        inside &= (batch.own_sz > 0) & (batch.opp_sz > 0)
        better = batch.own_px + batch.side
        message["rest_px"] = np.where(inside, better, message["rest_px"])
        message["rest_lots"] = np.where(inside, np.minimum(due, batch.lots - batch.filled), message["rest_lots"])
        same = (batch.rest_px == better) & (batch.rest_lots == message["rest_lots"])
        message["send"] = np.where(inside, ~same, message["send"])
        waits = lean <= -self.aside
        message["rest_lots"] = np.where(waits, 0, message["rest_lots"])
        message["send"] = np.where(waits, batch.rest_lots > 0, message["send"])
        return message

    def _seen(self, batch: DecisionBatch) -> Floats:
        if batch.planted is not None:
            return batch.planted
        if self.signal is None:
            raise InputError("the options of the synthetic market are needed to see its signal on recorded days")
        seen = np.zeros(len(batch.side))
        for index in np.unique(batch.day):
            here = batch.day == index
            seen[here] = self.signal.at(batch.days[int(index)], batch.now_ns[here])
        return seen
