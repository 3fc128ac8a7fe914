"""All stylized facts of some days, and how those of a simulation compare with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feature_repo.errors import InputError
from feature_repo.pipeline.books import Book
from training.market.facts import book_shape, flow, moves
from training.market.facts.estimate import BlockBootstrap, Estimate, Fact
from training.market.facts.sample import Sample, prepare

MEASURES: tuple[Callable[[Sequence[Sample], BlockBootstrap], Fact], ...] = (
    book_shape.spread,
    book_shape.depth,
    moves.signature,
    moves.returns,
    moves.volatility_memory,
    moves.volume_memory,
    flow.trade_signs,
    flow.order_flow,
    flow.response,
    flow.impact_of_size,
    flow.durations,
    flow.volume_of_day,
)
"""Every fact, in the order of the report."""

Session = tuple[Book, Sequence[tuple[int, int]]]
"""A book and the session windows in which it counts, `[open_ns, close_ns)` each."""

AGREE, DIFFER, UNKNOWN = "agree", "differ", "not comparable"


@dataclass(frozen=True)
class Comparison:
    """One number of the source beside that of the simulation."""

    fact: str  # title of the fact
    source: Estimate
    simulated: Estimate
    verdict: str  # AGREE where the 95% intervals meet, DIFFER where not, UNKNOWN where one of the two is not defined

    @property
    def difference(self) -> float:
        """Simulated less source, in the number's unit."""
        return self.simulated.value - self.source.value


def measure(
    sessions: Sequence[Session], seed: int = 0, draws: int = 999, step: Callable[[int], None] | None = None
) -> tuple[Fact, ...]:
    """The facts of MEASURES over `sessions`, with intervals by resampling half hours; `step` hears how many are done.

    Raises InputError without sessions, or where one has no two-sided book within its windows.
    """
    if not sessions:
        raise InputError("stylized facts need at least one day, got none")
    samples = [prepare(book, windows) for book, windows in sessions]
    bootstrap = BlockBootstrap(sum(sample.blocks for sample in samples), np.random.default_rng(seed), draws)
    facts = []
    for done, of in enumerate(MEASURES, start=1):
        facts.append(of(samples, bootstrap))
        if step is not None:
            step(done)
    return tuple(facts)


def compare(source: Sequence[Fact], simulated: Sequence[Fact]) -> list[Comparison]:
    """Every number of `source` beside that of `simulated`; both as `measure` gives them."""
    rows = []
    for mine, theirs in zip(source, simulated, strict=True):
        for ours, other in zip(mine.numbers, theirs.numbers, strict=True):
            verdict = UNKNOWN
            if ours.known and other.known:
                verdict = AGREE if ours.meets(other) else DIFFER
            rows.append(Comparison(mine.title, ours, other, verdict))
    return rows


def facts_json(facts: Sequence[Fact]) -> dict[str, dict[str, Any]]:
    """Numbers of each fact by their keys; null where a value or a bound is not finite."""
    return {
        fact.key: {
            item.key: {"value": _finite(item.value), "low": _finite(item.low), "high": _finite(item.high)}
            for item in fact.numbers
        }
        for fact in facts
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
