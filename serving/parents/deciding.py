"""When a parent is decided on, what the policies are asked, and what becomes of their answers.

Decisions come at the arrival and then at the pace of the version that the parent began with, at the environment's own
moments: what was missed is not made up for. A policy that fails hands its parent over to the fallback for good.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from serving.contracts.observation import FORECAST_HORIZONS_S
from serving.contracts.stacking import ObservationStack
from serving.decide.protocol import DecideError, PolicyDecision
from serving.parents.apart import MEETS, keep_apart
from serving.parents.market import Row
from serving.parents.observing import (
    ActionError,
    Resting,
    behind_now,
    checked_action,
    observe,
    packed,
    plan_of,
    slice_at,
    target_of,
    unpacked,
)
from serving.parents.orders import Parent, Phase, Plan
from serving.parents.outputs import Ask, Bench, Question, Run
from serving.parents.planning import Withdraw, steps
from serving.parents.records import Began, Decided, FellBack, Shadowed

if TYPE_CHECKING:
    from serving.parents.core import Core

PASSING = ("late", "unavailable")
"""Reasons for which an answer is missing that may be gone at the next decision; any other hands over at once."""


@dataclass(frozen=True)
class _Moment:
    """A decision that is due."""

    ns: int
    row: Row
    market: NDArray[np.float32]  # (16,)


class Decider:
    """Decides for the parents of a core."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def restore(self, parent: Parent, run: Run) -> None:
        """After a restart: the history that the policy sees, and the next decision."""
        if parent.phase is not Phase.WORKING:
            return
        run.history = ObservationStack(parent.plan.stack)
        for text in parent.seen:
            run.history.push(unpacked(text)[None])
        if parent.challenger is not None:
            run.shadow_history = ObservationStack(parent.challenger.stack)
            for text in parent.shadow_seen:
                run.shadow_history.push(unpacked(text)[None])
        run.due_ns = parent.began_ns
        if parent.seen and parent.last_decision:
            run.due_ns = int(parent.last_decision["market_ns"]) + parent.plan.pause_ns

    def begin(self, parent: Parent, run: Run) -> None:
        """Let a parent arrive where its start has come and its market stands."""
        core, market = self._core, run.market
        now_ns = core.now_ns
        if now_ns <= 0 or (parent.start_ns and now_ns < parent.start_ns):
            return
        began_ns = now_ns
        if parent.start_ns and now_ns - parent.start_ns <= core.rules.again_ns:
            began_ns = parent.start_ns
        row = None if market.last is None else market.row_at(began_ns)
        if row is None or not row.mid2 or market.status != "open":
            run.waits_for = f"no two-sided open market in {parent.symbol}: {market.status}"
            return
        run.waits_for = ""
        champion = core.policies.champion if core.policies else None
        challenger = core.policies.challenger if core.policies else None
        plan = self._plain_plan(parent) if champion is None else plan_of(champion, parent.horizon_ns)
        shadow = None if challenger is None or champion is None else plan_of(challenger, parent.horizon_ns)
        core.record(
            Began(
                utc_ns=core.utc_ns,
                number=parent.number,
                market_ns=began_ns,
                mid2=row.mid2,
                plan=plan,
                challenger=shadow,
            )  # fmt: skip
        )
        run.due_ns, run.due_row = began_ns, -1
        run.history = ObservationStack(plan.stack)
        run.shadow_history = None if shadow is None else ObservationStack(shadow.stack)
        run.bench = Bench(began_ns, market.place_at(began_ns), began_ns, row.mid2)
        if champion is None:
            self.fall_back(parent, run, "no policy is loaded")

    def step(self, parent: Parent, run: Run) -> None:
        """Ask, or let the fallback act, where a decision is due."""
        core = self._core
        if parent.fallback:
            self._fall_behind(parent, run)
            return
        if run.question is not None or not self._is_due(parent, run):
            return
        if (why := core.lines.blocks(parent)) or (why := self._patience(parent, run)):
            run.waits_for = why
            return
        moment = self._moment(parent, run)
        if moment is None:
            return
        run.waits_for, run.missing_ns = "", 0
        self._next_due(parent, run, moment.ns)
        self._ask(parent, run, parent.plan, moment, shadow=False)
        if parent.challenger is not None:
            self._ask(parent, run, parent.challenger, moment, shadow=True)

    def forecasted(
        self, parent: Parent, run: Run, question: Question, answer: NDArray[np.float32] | DecideError
    ) -> None:
        """A forecast came: build what the policy sees, and ask it. Without one, forecasts are flagged missing."""
        moment = self._moment_at(run, question.moment_ns)
        if moment is None:
            self._failed(parent, run, question, "the market was lost while a forecast was asked for", passing=True)
            return
        forecasts = None
        if not isinstance(answer, DecideError) and np.isfinite(answer).all():
            values = np.asarray(answer, np.float32).reshape(-1)
            if len(values) == len(FORECAST_HORIZONS_S):
                forecasts = values
        if forecasts is None:
            self._core.alert("forecast", f"no forecast for parent {parent.parent_id}: {answer}"[:300],
                             parent=parent.parent_id)  # fmt: skip
        self._ask_decision(parent, run, question.plan, moment, forecasts, question.ask.shadow)

    def decided(self, parent: Parent, run: Run, question: Question, answer: PolicyDecision | DecideError) -> None:
        """A decision came, or the reason why none does."""
        if isinstance(answer, DecideError):
            self._failed(parent, run, question, f"{answer.reason}: {answer}", passing=answer.reason in PASSING)
            return
        assert question.mask is not None and question.seen is not None
        try:
            if answer.sha256 != question.plan.sha256:
                raise ActionError(
                    f"the answer is of policy {answer.sha256[:16]}, asked was {question.plan.sha256[:16]}"
                )
            action = checked_action(question.plan, answer.action, question.mask)
        except ActionError as error:
            self._failed(parent, run, question, str(error), passing=False)
            return
        row = run.market.last
        if row is None:
            self._failed(parent, run, question, "the market was lost while a decision was asked for", passing=True)
            return
        target = target_of(parent, question.plan, action, row, self.resting(parent, run), question.moment_ns)
        if question.ask.shadow:
            run.shadow = None
            self._shadowed(parent, question, action, target, "")
            return
        run.question, run.failures = None, 0
        self._act(parent, run, question, action, target, row)

    def fall_back(self, parent: Parent, run: Run, reason: str) -> None:
        """Hand a parent over to the fallback for good."""
        core = self._core
        core.record(FellBack(utc_ns=core.utc_ns, number=parent.number, market_ns=core.now_ns, reason=reason))
        core.alert(
            "fallback", f"parent {parent.parent_id}: the fallback takes over from version {parent.plan.version}: "
            f"{reason}", parent=parent.parent_id, account=parent.account,
        )  # fmt: skip
        run.question = run.shadow = None

    def resting(self, parent: Parent, run: Run) -> Resting:
        """The order that rests, with the queue ahead of it."""
        child = parent.resting
        if child is None or run.queue is None or child.exposed <= 0 or not child.stood_ns:
            return Resting()
        return Resting(child.price_ticks, child.lots - child.filled, run.queue.ahead())

    # When -------------------------------------------------------------------------------------------------------------

    def _is_due(self, parent: Parent, run: Run) -> bool:
        if run.due_row >= 0:  # on the event grid
            market = run.market
            return market.row_count > run.due_row
        return self._core.now_ns >= run.due_ns

    def _moment(self, parent: Parent, run: Run) -> _Moment | None:
        """The moment to decide at: of those that are past, the last one."""
        plan, market, core = parent.plan, run.market, self._core
        if run.due_row >= 0:
            at_ns = market.rows[max(run.due_row, market.first) - market.first].ts_ns
        else:
            at_ns = parent.began_ns + (core.now_ns - parent.began_ns) // plan.pause_ns * plan.pause_ns
        return self._moment_at(run, at_ns)

    def _moment_at(self, run: Run, at_ns: int) -> _Moment | None:
        row, features = run.market.last, run.market.features_at(at_ns)
        return None if row is None or features is None else _Moment(at_ns, row, features.market)

    def _next_due(self, parent: Parent, run: Run, moment_ns: int) -> None:
        plan = parent.plan
        run.due_ns = moment_ns + plan.pause_ns
        if plan.every_events:
            run.due_row = run.market.place_at(moment_ns) + plan.every_events

    def _patience(self, parent: Parent, run: Run) -> str:
        """Why the policy cannot see now, or ""; for too long, and the fallback takes over."""
        core, market = self._core, run.market
        if market.last is None:
            why = f"the book of {parent.symbol} is not known"
        elif market.features_at(core.now_ns) is None:
            why = f"no features of {parent.symbol} that may be trusted yet"
        else:
            return ""
        run.missing_ns = run.missing_ns or core.now_ns
        patience_ns = min(core.rules.patience_ns, parent.horizon_ns // 5)
        if core.now_ns - run.missing_ns > patience_ns:
            self.fall_back(parent, run, f"{why}, for {(core.now_ns - run.missing_ns) // 10**9} s")
        return why

    # Asking -----------------------------------------------------------------------------------------------------------

    def _ask(self, parent: Parent, run: Run, plan: Plan, moment: _Moment, *, shadow: bool) -> None:
        rows = None
        if plan.signal_window and tuple(plan.horizons_s) == FORECAST_HORIZONS_S:
            rows = run.market.feature_rows(moment.ns, plan.feature_names, plan.signal_window)
        if rows is None:
            self._ask_decision(parent, run, plan, moment, None, shadow)
            return
        ask = self._core.ask(parent, Ask(0, parent.number, shadow, plan.sha256, rows))
        self._await(run, Question(ask, plan, parent.step, moment.ns, None, None))

    def _ask_decision(
        self, parent: Parent, run: Run, plan: Plan, moment: _Moment, forecasts: NDArray[np.float32] | None, shadow: bool
    ) -> None:
        try:
            resting = self.resting(parent, run)
            seen, mask = observe(parent, plan, moment.row, resting, moment.ns, moment.market, forecasts)
        except InputError as error:
            if not shadow:
                self.fall_back(parent, run, str(error))
            return
        history = run.shadow_history if shadow else run.history
        if history is None:
            history = ObservationStack(plan.stack)
            if shadow:
                run.shadow_history = history
            else:
                run.history = history
        stacked = history.push(seen[None])[0]
        ask = self._core.ask(parent, Ask(0, parent.number, shadow, plan.sha256, None, stacked, mask))
        self._await(run, Question(ask, plan, parent.step, moment.ns, seen, mask))

    @staticmethod
    def _await(run: Run, question: Question) -> None:
        if question.ask.shadow:
            run.shadow = question
        else:
            run.question = question

    # Acting -----------------------------------------------------------------------------------------------------------

    def _act(
        self, parent: Parent, run: Run, question: Question, action: tuple[float, ...],
        target: tuple[int, int, int], row: Row,
    ) -> None:  # fmt: skip
        core = self._core
        assert question.seen is not None and question.mask is not None
        held = core.lines.blocks(parent)
        if parent.phase is not Phase.WORKING:
            held = f"the parent is {parent.phase.name.lower()}"
        plan = [] if held else steps(parent, target, row.opposite(parent.side))
        if plan and run.market.status != "open" and not all(isinstance(step, Withdraw) for step in plan):
            held, plan = f"trading in {parent.symbol} is {run.market.status}", []
        if plan and core.now_ns < run.not_before_ns and parent.denied is not None:
            held, plan = f"held back after a denial by {parent.denied.control}", []
        plan, short = keep_apart(core.state, parent, plan, row.opposite(parent.side))
        held = MEETS if short and not plan else held
        core.record(
            Decided(
                utc_ns=core.utc_ns,
                number=parent.number,
                step=question.step,
                market_ns=question.moment_ns,
                seen=packed(question.seen),
                mask=tuple(int(item) for item in question.mask),
                action=action,
                order=target,
                held=held,
            )  # fmt: skip
        )
        for step in plan:
            core.sender.carry_out(parent, step, parent.strategy)

    def _failed(self, parent: Parent, run: Run, question: Question, reason: str, *, passing: bool) -> None:
        """No answer that may be acted on. What rests stays; the fallback takes over where it does not pass."""
        if question.ask.shadow:
            run.shadow = None
            self._shadowed(parent, question, (), (0, 0, 0), reason)
            return
        run.question = None
        run.failures += 1
        if parent.phase is Phase.WORKING and (not passing or run.failures >= self._core.rules.failures):
            self.fall_back(parent, run, f"the policy failed: {reason}")
        else:
            self._core.alert("policy", f"parent {parent.parent_id}: no decision ({reason})", parent=parent.parent_id)

    def _shadowed(
        self, parent: Parent, question: Question, action: tuple[float, ...], target: tuple[int, int, int], error: str
    ) -> None:
        core, plan = self._core, question.plan
        core.record(
            Shadowed(
                utc_ns=core.utc_ns,
                number=parent.number,
                step=question.step,
                market_ns=question.moment_ns,
                version=plan.version,
                sha256=plan.sha256,
                action=action,
                order=target,
                seen="" if question.seen is None else packed(question.seen),
                error=error[:300],
            )  # fmt: skip
        )

    # The fallback -----------------------------------------------------------------------------------------------------

    def _plain_plan(self, parent: Parent) -> Plan:
        slices = max(1, parent.horizon_ns // self._core.rules.fallback_interval_ns)
        return Plan(interval_ns=parent.horizon_ns // slices, slices=slices)

    def _fall_behind(self, parent: Parent, run: Run) -> None:
        """TWAP: take at once what the even schedule wants by the end of this slice, under the fallback's strategy."""
        core = self._core
        now_ns = min(core.now_ns, parent.end_ns - 1)
        if slice_at(parent, parent.plan, now_ns) < 0:
            return
        core.sender.withdraw_all(parent)
        core.sender.take(parent, run, behind_now(parent, parent.plan, now_ns))
