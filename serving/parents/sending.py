"""How requests leave a core: made of planned steps, journalled, then sent; what takes, and what is withdrawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from serving.contracts.orders import Cancel, ChildOrder, Replace, Request
from serving.parents.apart import MEETS, in_the_way, keep_apart
from serving.parents.orders import Kind, Parent, Phase, Stage
from serving.parents.outputs import Outgoing, Run
from serving.parents.planning import Move, Place, Step, Withdraw, steps, withdraw
from serving.parents.records import Sent

if TYPE_CHECKING:
    from serving.parents.core import Core


class Sender:
    """Sends for the parents of a core."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def carry_out(self, parent: Parent, step: Step, strategy: str) -> None:
        """Make a request of a planned step and send it."""
        core = self._core
        run = core.run_of(parent)
        head: dict[str, Any] = {
            "key": f"{parent.ref}/{parent.requests + 1}", "strategy": strategy, "account": parent.account,
            "algorithm": core.rules.algorithm, "trader": parent.trader, "sent_ns": core.utc_ns,
        }  # fmt: skip
        if isinstance(step, Place):
            resting = not step.takes
            order = ChildOrder(
                **head, venue=parent.venue, symbol=parent.symbol, side="buy" if parent.side > 0 else "sell",
                type="limit" if step.price_ticks else "market", price_ticks=step.price_ticks or None, lots=step.lots,
                tif="day" if resting else "ioc", reduce_only=False,
            )  # fmt: skip
            self.send(parent, order, resting=resting)
            run.tried_ns = run.tried_ns if resting else core.now_ns
            return
        head["strategy"] = step.child.request.strategy  # whoever's order it is
        if isinstance(step, Move):
            change = Replace(**head, order_key=step.child.key, price_ticks=step.price_ticks, lots=step.lots)
            self.send(parent, change, crossing=step.crossing)
            if step.crossing:
                run.tried_ns = core.now_ns
        else:
            self.send(parent, Cancel(**head, order_key=step.child.key))

    def send(self, parent: Parent, request: Request, *, resting: bool = True, crossing: bool = False) -> None:
        """Journal a new request, then send it."""
        core = self._core
        of: Kind = "rest" if resting else "cross"
        core.record(
            Sent(
                utc_ns=core.utc_ns,
                number=parent.number,
                market_ns=core.now_ns,
                request=request,
                of=of,
                crossing=crossing,
            )  # fmt: skip
        )
        core.out.sends.append(Outgoing(parent.account, request))

    def make_way(self, parent: Parent, opposite: Sequence[tuple[int, int]]) -> None:
        """Cancel what other parents have resting where this one, which must complete, takes."""
        core = self._core
        for other, child in in_the_way(core.state, parent, opposite):
            if not core.lines.blocks(other) and core.now_ns >= core.run_of(other).not_before_ns:
                self.carry_out(other, Withdraw(child), child.request.strategy)

    def withdraw_all(self, parent: Parent) -> None:
        """Cancel whatever rests, unless that was asked for."""
        core = self._core
        run = core.run_of(parent)
        if core.lines.blocks(parent) or core.now_ns < run.not_before_ns:
            return
        for child in parent.open_children:
            if child.kind == "rest" and child.stage is not Stage.UNANSWERED:
                for step in withdraw(child):
                    self.carry_out(parent, step, child.request.strategy)

    def take(self, parent: Parent, run: Run, lots: int) -> None:
        """Take so many lots, less what is being taken, no more often than `again_ns`."""
        core = self._core
        if lots <= 0:
            return
        if why := core.lines.blocks(parent):
            run.waits_for = why
            return
        if run.market.status != "open" or run.market.last is None:
            run.waits_for = f"trading in {parent.symbol} is {run.market.status}"
            return
        if run.tried_ns >= 0 and core.now_ns - run.tried_ns < core.rules.again_ns:
            return
        if core.now_ns < run.not_before_ns:
            if parent.denied is not None:
                run.waits_for = f"held back after a denial by {parent.denied.control}"
            return
        rest = parent.resting
        being_taken = sum(
            child.exposed for child in parent.open_children if child.kind == "cross" or child is _crossing(rest)
        )
        target = (0, 0, lots - being_taken)
        if target[2] <= 0:
            return
        strategy = core.rules.accounts[parent.account].fallback_strategy if parent.fallback else parent.strategy
        opposite = run.market.last.opposite(parent.side)
        plan, short = keep_apart(
            core.state, parent, steps(parent, target, opposite, may_move=not parent.fallback), opposite
        )
        run.waits_for = MEETS if short and not plan else ""
        for step in plan:
            self.carry_out(parent, step, strategy)
        if short and parent.phase is Phase.FINISHING:
            self.make_way(parent, opposite)


def _crossing(rest: object) -> object:
    """The resting order itself where it is being replaced to take."""
    return rest if getattr(rest, "replace_crosses", False) and getattr(rest, "replace", None) is not None else None
