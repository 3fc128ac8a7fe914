"""What the EMS must not forget: the sum of its records. `State.apply` alone changes it, live and in replay alike."""

from collections.abc import Callable
from typing import Any

import msgspec

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import (
    Acked,
    Busted,
    Cancel,
    Cancelled,
    CancelRejected,
    ChildOrder,
    Corrected,
    Filled,
    Rejected,
    Replace,
    Replaced,
    ReplaceRejected,
    Report,
    Request,
    encode,
)
from serving.contracts.tca import CostSums, FillMark
from serving.parents.orders import Child, Denial, Execution, Parent, Phase, Stage
from serving.parents.records import (
    Answered,
    Began,
    Cancelling,
    Changed,
    Decided,
    Ended,
    FellBack,
    Finishing,
    Heard,
    Lost,
    Opened,
    Record,
    Restated,
    Sent,
    Session,
    Shadowed,
    Snapshot,
    Taken,
)

SHADOWS_KEPT = 10_000
"""Decisions of challengers that are kept to be asked for; the journal has all."""


def is_too_late(request: Request, denied: Denied) -> bool:
    """Whether a cancel or replace was denied because its order is done: no limit was met, its last report is near."""
    return denied.control == "order" and not isinstance(request, ChildOrder)


class StateError(ValueError):
    """A record that cannot follow the ones before."""


class State:
    """Parents, their orders and what is unanswered. Attributes are read anywhere and changed by `apply` alone."""

    def __init__(self) -> None:
        self.birth = ""
        self.session = ""
        self.utc_ns = 0
        self.rolled_ns = 0  # the last snapshot, UTC
        self.taken = 0  # parents so far, those that are forgotten too
        self.parents: dict[int, Parent] = {}
        self.at_work: dict[int, Parent] = {}  # those that are not done
        self.by_id: dict[tuple[str, str], int] = {}
        self.children: dict[str, Child] = {}  # by the key of their ChildOrder
        self.orders: dict[tuple[str, int], Child] = {}  # by account and the gateway's number
        self.unanswered: dict[str, Request] = {}  # by key, in the order in which they were sent
        self.sent: dict[str, int] = {}  # allowed messages of each strategy in this session of the feed
        self.heard: dict[str, int] = {}  # reports about orders of each strategy in this session of the feed
        self.shadows: list[Shadowed] = []

    def apply(self, record: Record) -> None:
        """Change the state by one record. Raises StateError or KeyError where it cannot follow the ones before."""
        self.utc_ns = max(self.utc_ns, record.utc_ns)
        _EFFECTS[type(record)](self, record)

    def find(self, account: str, parent_id: str) -> Parent | None:
        """The parent that goes, or once went, by this id."""
        number = self.by_id.get((account, parent_id))
        return None if number is None else self.parents[number]

    @property
    def working(self) -> list[Parent]:
        """Parents that are not done, oldest first."""
        return list(self.at_work.values())

    def snapshot(self, utc_ns: int) -> Snapshot:
        """What a new file of the journal begins with: parents at work, and those that ended since the last roll."""
        kept = [item for item in self.parents.values() if not item.is_ended or item.done_ns >= self.rolled_ns]
        numbers = {parent.number for parent in kept}
        return Snapshot(
            utc_ns=max(utc_ns, self.utc_ns),
            birth=self.birth,
            session=self.session,
            taken=self.taken,
            parents=kept,
            ids=[(*name, number) for name, number in self.by_id.items() if number in numbers],
            unanswered=[item for item in self.unanswered.values() if self._of(item) in numbers],
            sent=dict(self.sent),
            heard=dict(self.heard),
            shadows=[item for item in self.shadows if item.number in numbers],
        )

    def _of(self, request: Request) -> int:
        """The parent that a request is about."""
        return self.children[request.key if isinstance(request, ChildOrder) else request.order_key].parent

    # What each record does --------------------------------------------------------------------------------------------

    def _snapshot(self, record: Snapshot) -> None:
        if not self.birth:
            self.birth, self.session, self.taken = record.birth, record.session, record.taken
            self.sent, self.heard = dict(record.sent), dict(record.heard)
            self.parents = {parent.number: parent for parent in record.parents}
            self.unanswered = {request.key: request for request in record.unanswered}
        elif (record.birth, record.taken) != (self.birth, self.taken):
            raise StateError(
                f"a snapshot of {record.birth} with {record.taken} parents, not {self.birth}, {self.taken}"
            )
        kept = {parent.number for parent in record.parents}
        self.rolled_ns = record.utc_ns
        self.parents = {number: parent for number, parent in self.parents.items() if number in kept}
        self.at_work = {number: parent for number, parent in self.parents.items() if not parent.is_ended}
        self.by_id = {(account, name): number for account, name, number in record.ids}
        self.children = {key: child for parent in self.parents.values() for key, child in parent.children.items()}
        self.orders = {
            (self.parents[child.parent].account, child.order_id): child
            for child in self.children.values()
            if child.order_id
        }
        known = {request.key for request in record.unanswered}
        self.unanswered = {key: request for key, request in self.unanswered.items() if key in known}
        self.shadows = list(record.shadows)

    def _opened(self, record: Opened) -> None:
        if self.birth and record.birth != self.birth:
            raise StateError(f"the journal is of birth {self.birth}, not {record.birth}")
        self.birth = record.birth

    def _session(self, record: Session) -> None:
        self.session = record.session
        self.sent, self.heard = {}, {}

    def _taken(self, record: Taken) -> None:
        if record.number != self.taken + 1:
            raise StateError(f"parent {record.number} does not follow {self.taken}")
        if (record.account, record.parent_id) in self.by_id:
            raise StateError(f"parent id {record.parent_id} of account {record.account} is there already")
        parent = Parent(
            number=record.number, ref=f"{self.birth}-{record.number}", parent_id=record.parent_id,
            account=record.account, strategy=record.strategy, symbol=record.symbol, venue=record.venue,
            side=record.side, lots=record.lots, horizon_ns=record.horizon_ns, start_ns=record.start_ns,
            source=record.source, peer=record.peer, trader=record.trader, taken_ns=record.utc_ns,
            asked_lots=record.lots, first_id=record.parent_id, sums=CostSums(record.side, 0),
        )  # fmt: skip
        self.taken = record.number
        self.parents[record.number] = self.at_work[record.number] = parent
        self.by_id[record.account, record.parent_id] = record.number

    def _began(self, record: Began) -> None:
        parent = self.parents[record.number]
        parent.phase, parent.began_ns, parent.arrival_mid2 = Phase.WORKING, record.market_ns, record.mid2
        parent.plan, parent.challenger = record.plan, record.challenger
        parent.sums = CostSums(parent.side, record.mid2)

    def _decided(self, record: Decided) -> None:
        parent = self.parents[record.number]
        parent.step = record.step + 1
        parent.seen = [*parent.seen, record.seen][-parent.plan.stack :]
        parent.last_decision = {
            "step": record.step, "market_ns": record.market_ns, "action": list(record.action),
            "order": list(record.order), "held": record.held,
        }  # fmt: skip

    def _shadowed(self, record: Shadowed) -> None:
        parent = self.parents[record.number]
        if record.seen and parent.challenger is not None:
            parent.shadow_seen = [*parent.shadow_seen, record.seen][-parent.challenger.stack :]
        self.shadows.append(msgspec.structs.replace(record, seen=""))
        if len(self.shadows) > 2 * SHADOWS_KEPT:
            del self.shadows[:-SHADOWS_KEPT]

    def _fell_back(self, record: FellBack) -> None:
        self.parents[record.number].fallback = record.reason

    def _changed(self, record: Changed) -> None:
        parent = self.parents[record.number]
        parent.lots = record.lots
        if record.parent_id:
            parent.parent_id = record.parent_id
            self.by_id[parent.account, record.parent_id] = parent.number

    def _cancelling(self, record: Cancelling) -> None:
        parent = self.parents[record.number]
        parent.phase, parent.reason = Phase.CANCELLING, record.reason

    def _finishing(self, record: Finishing) -> None:
        parent = self.parents[record.number]
        parent.phase, parent.in_time = Phase.FINISHING, record.filled

    def _ended(self, record: Ended) -> None:
        parent = self.parents[record.number]
        parent.phase, parent.how, parent.tca = Phase.ENDED, record.how, record.tca
        parent.finished_ns, parent.done_ns = record.market_ns, record.utc_ns
        del self.at_work[parent.number]
        parent.reason = record.reason or parent.reason

    def _restated(self, record: Restated) -> None:
        self.parents[record.number].tca = record.tca

    def _sent(self, record: Sent) -> None:
        parent, request = self.parents[record.number], record.request
        if request.key in self.unanswered or request.key in self.children:
            raise StateError(f"key {request.key} was used before")
        parent.requests += 1
        self.unanswered[request.key] = request
        if isinstance(request, ChildOrder):
            child = Child(
                request.key, parent.number, request, record.of, record.market_ns,
                price_ticks=request.price_ticks or 0, lots=request.lots,
            )  # fmt: skip
            self.children[request.key] = parent.children[request.key] = child
            return
        child = self.children[request.order_key]
        if isinstance(request, Replace):
            child.replace, child.replace_crosses = request, record.crossing
        else:
            child.cancel_key = request.key

    def _answered(self, record: Answered) -> None:
        decision = record.decision
        request = self.unanswered.pop(decision.key, None)
        if request is None:
            return  # the first answer again: it is known
        child = self.children[request.key if isinstance(request, ChildOrder) else request.order_key]
        parent = self.parents[child.parent]
        if isinstance(decision, Allowed):
            self.sent[request.strategy] = self.sent.get(request.strategy, 0) + 1
            if isinstance(request, ChildOrder):
                self._number(child, parent.account, decision.order_id)
            if not isinstance(request, Cancel):
                parent.denials = 0
            return
        if not is_too_late(request, decision):
            parent.denied = Denial(decision.control, decision.message, decision.value, decision.limit, record.market_ns)
            parent.denials += 1
        if isinstance(request, ChildOrder):
            self._finish(child, f"denied by {decision.control}: {decision.message}")
        elif isinstance(request, Replace):
            child.replace = None
            self._finish_if_filled(child)
        elif child.cancel_key == request.key:
            child.cancel_key = ""

    def _number(self, child: Child, account: str, order_id: int) -> None:
        child.order_id = order_id
        self.orders[account, order_id] = child
        if child.stage is Stage.UNANSWERED:
            child.stage = Stage.ALLOWED

    def _lost(self, record: Lost) -> None:
        child = self.children[record.key]
        self.unanswered.pop(record.key, None)
        self.unanswered.pop(record.cancel_key, None)
        self._finish(child, "it never arrived at the gateway")

    def _heard(self, record: Heard) -> None:
        child = self.orders.get((record.account, record.report.order_id))
        if child is None:
            raise StateError(f"a report of order {record.report.order_id}, which is not known")
        strategy = child.request.strategy
        self.heard[strategy] = self.heard.get(strategy, 0) + 1
        self._report(child, record)

    def _report(self, child: Child, record: Heard) -> None:
        report = record.report
        if isinstance(report, Filled):
            if report.exec_id in child.executions:
                return
            mark = FillMark(report.price_ticks, report.lots, report.fee, record.mid2, record.best_ticks, record.passive)
            child.executions[report.exec_id] = Execution(mark, report.ts_ns)
            child.filled += report.lots
            self.parents[child.parent].sums.add(mark)
            if child.stage < Stage.WORKING:
                child.stage = Stage.WORKING
                child.stood_ns = report.ts_ns
            self._finish_if_filled(child)
            return
        content = encode(report).decode()
        child.heard[content] = child.heard.get(content, 0) + 1
        if isinstance(report, Busted | Corrected):
            self._correct(child, report)
        else:
            self._stands(child, report)

    def _stands(self, child: Child, report: Report) -> None:
        if isinstance(report, Acked):
            if child.stage < Stage.WORKING:
                child.stage, child.stood_ns = Stage.WORKING, report.ts_ns
        elif isinstance(report, Replaced):
            if child.stage is Stage.DONE:
                return
            child.stage, child.stood_ns = Stage.WORKING, report.ts_ns
            child.crossing = child.replace is not None and child.replace_crosses
            child.price_ticks, child.lots, child.replace = report.price_ticks, report.lots, None
            self._finish_if_filled(child)
        elif isinstance(report, ReplaceRejected):
            child.replace = None
            self._finish_if_filled(child)
        elif isinstance(report, CancelRejected):
            child.cancel_key = ""
        elif isinstance(report, Rejected):
            self._finish(child, f"rejected: {report.reason}")
        elif isinstance(report, Cancelled):
            self._finish(child, "cancelled")

    def _correct(self, child: Child, report: Busted | Corrected) -> None:
        execution = child.executions.get(report.exec_id)
        if execution is None:
            return
        sums, mark = self.parents[child.parent].sums, execution.mark
        sums.add(mark, -1)
        child.filled -= mark.lots
        if isinstance(report, Corrected):
            mark = mark._replace(price_ticks=report.price_ticks, lots=report.lots)
            sums.add(mark)
            child.filled += mark.lots
        else:
            mark = mark._replace(lots=0)  # its number stays used: a repeated report must not count again
        execution.mark = mark

    def _finish_if_filled(self, child: Child) -> None:
        if child.is_open and child.filled >= child.lots and child.replace is None:
            self._finish(child, "")

    def _finish(self, child: Child, reason: str) -> None:
        child.stage, child.reason = Stage.DONE, reason
        child.replace, child.cancel_key, child.crossing = None, "", False


_EFFECTS: dict[type, Callable[[State, Any], None]] = {
    Snapshot: State._snapshot,
    Opened: State._opened,
    Session: State._session,
    Taken: State._taken,
    Began: State._began,
    Decided: State._decided,
    Shadowed: State._shadowed,
    FellBack: State._fell_back,
    Changed: State._changed,
    Cancelling: State._cancelling,
    Finishing: State._finishing,
    Ended: State._ended,
    Restated: State._restated,
    Sent: State._sent,
    Answered: State._answered,
    Lost: State._lost,
    Heard: State._heard,
}
