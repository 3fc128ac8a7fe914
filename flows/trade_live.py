"""What the parents of a run became, from the journal of the process that worked them: costs, fills, decisions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.trade_backtest import Backtest, Fill
from serving.contracts.decisions import Denied
from serving.parents.journal import records
from serving.parents.orders import Parent
from serving.parents.records import Answered, Decided, Snapshot
from serving.parents.state import State


@dataclass(frozen=True)
class LiveParent:
    """One parent as it was worked."""

    parent_id: str
    symbol: str
    side: int
    lots: int
    began_ns: int
    how: str  # filled, cancelled, expired, rejected; "" where it is not done
    fallback: str  # why the fallback finished it, "" where the policy did
    filled: int
    tca: dict[str, Any]
    fills: list[Fill]
    decisions: list[tuple[int, tuple[float, ...]]]  # step and action, in order
    denials: int


@dataclass
class _Gathered:
    decisions: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    denials: int = 0


def read_live(folder: Path) -> dict[str, LiveParent]:
    """Parents by their id. Raises serving.journal.JournalError where the journal is not what was written."""
    state = State()
    gathered: dict[int, _Gathered] = {}
    for _, _, record in records(folder):
        if isinstance(record, Snapshot) and state.birth:
            continue  # a run over midnight: nothing of it is to be forgotten
        if isinstance(record, Answered) and isinstance(record.decision, Denied):
            request = state.unanswered.get(record.decision.key)
            if request is not None:
                key = getattr(request, "order_key", request.key)
                gathered.setdefault(state.children[key].parent, _Gathered()).denials += 1
        state.apply(record)
        if isinstance(record, Decided):
            gathered.setdefault(record.number, _Gathered()).decisions.append((record.step, record.action))
    return {
        parent.parent_id: _live(parent, gathered.get(parent.number, _Gathered())) for parent in state.parents.values()
    }


def _live(parent: Parent, gathered: _Gathered) -> LiveParent:
    fills = [
        (execution.ts_ns, execution.mark.price_ticks, execution.mark.lots)
        for child in parent.children.values()
        for execution in child.executions.values()
        if execution.mark.lots
    ]
    return LiveParent(
        parent.parent_id, parent.symbol, parent.side, parent.lots, parent.began_ns, parent.how or "", parent.fallback,
        parent.filled, parent.tca, sorted(fills), gathered.decisions, gathered.denials,
    )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One parent, live against the environment."""

    live: LiveParent
    live_is_bps: float | None
    env_is_bps: float
    decisions: int
    same_decisions: int  # that did what the environment's policy did at the same step
    same_fills: bool  # every fill: time, price and lots

    @property
    def is_same(self) -> bool:
        """Decision by decision and fill by fill."""
        return self.same_fills and self.same_decisions == self.decisions


def compare(live: dict[str, LiveParent], env: Backtest, count: int) -> list[Comparison]:
    """Parents `p0` to `p<count-1>`, as they were submitted, against the rows of the backtest."""
    found = []
    for index in range(count):
        parent = live[f"p{index}"]
        same = sum(env.action(index, step) == action for step, action in parent.decisions)
        is_bps = parent.tca.get("is_bps")
        found.append(
            Comparison(
                parent,
                None if is_bps is None else float(is_bps),
                float(env.rows["is_bps"][index]),
                len(parent.decisions),
                same,
                parent.fills == env.fills[index],
            )
        )
    return found
