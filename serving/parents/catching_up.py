"""The lines to the gateway: what may be sent now, and how what was lost with a line is learned again.

When a line opens the gateway repeats the day's reports, then answers a ChildOrder repeated under its key as at first.
So each order that is not done is repeated when its line is back, byte for byte, and until the decision comes its parent
sends nothing. An order that was never answered, and that nobody wants any more, is not repeated, since it might be
taken only now: a cancel asks for it first. If the gateway does not know it, it never arrived, and is given up for good.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.contracts.decisions import Allowed, Decision, Denied
from serving.contracts.orders import Cancel, ChildOrder, Filled, Replace, Report, Request, encode
from serving.parents.orders import Child, Parent, Phase, Stage
from serving.parents.outputs import Outgoing
from serving.parents.records import Lost

if TYPE_CHECKING:
    from serving.parents.core import Core

NOT_KNOWN = "no order with key"
"""How the gateway's denial by `order` begins where it never heard of an order."""
KEPT_MAX = 10_000
"""Reports of orders whose number is not known yet; beyond them the oldest are forgotten, and asked for again."""


@dataclass
class Line:
    """The line of one account."""

    up: bool = False
    reason: str = "it was not open yet"
    doubt: set[str] = field(default_factory=set)  # orders that were repeated and not yet answered
    repeated: dict[tuple[str, bytes], int] = field(default_factory=dict)  # reports since it was down, by order


class Lines:
    """Lines by account."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._lines = {account: Line() for account in core.rules.accounts}
        self._kept: dict[tuple[str, int], list[Report]] = {}
        self._by_cancel: set[str] = set()  # orders that a cancel asks for

    def up(self, account: str) -> None:
        """The line is open: repeat what is not done."""
        core, line = self._core, self._lines[account]
        line.up, line.reason = True, ""
        line.doubt.clear()
        for parent in list(core.state.working):
            if parent.account != account:
                continue
            for child in parent.open_children:
                if child.stage is Stage.UNANSWERED and not self._is_wanted(parent, child):
                    line.doubt.add(child.key)
                    self._ask_by_cancel(parent, child)
                else:
                    self._repeat(line, child)
        for request in list(core.state.unanswered.values()):
            if request.account != account or isinstance(request, ChildOrder):
                continue
            child = core.state.children[request.order_key]
            if child.stage is not Stage.UNANSWERED or child.key not in self._by_cancel:
                self._out(account, request)  # behind the order that it is about

    def down(self, account: str, reason: str) -> None:
        """The line is gone."""
        line = self._lines[account]
        if line.up:
            self._core.alert("line_down", f"the line of account {account} to the gateway is down: {reason}",
                             account=account)  # fmt: skip
        line.up, line.reason = False, reason
        line.doubt.clear()
        line.repeated.clear()

    def is_up(self, account: str) -> bool:
        """Whether requests of an account may leave."""
        return self._lines[account].up

    def why_down(self) -> str:
        """Why a line is down, "" where all are open."""
        return next((f"account {name}: {line.reason}" for name, line in self._lines.items() if not line.up), "")

    def blocks(self, parent: Parent) -> str:
        """Why nothing may be sent for a parent now, or "" where it may."""
        line = self._lines[parent.account]
        if not line.up:
            return f"the line to the gateway is down: {line.reason}"
        if line.doubt and any(child.key in line.doubt for child in parent.open_children):
            return "what became of its orders while the line was down is not known yet"
        return ""

    def keep(self, account: str, report: Report) -> None:
        """A report of an order whose number is not known yet."""
        reports = self._kept.setdefault((account, report.order_id), [])
        if report not in reports:
            reports.append(report)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]

    def kept(self, account: str, order_id: int) -> list[Report]:
        """Reports that came before the number of their order was known; they are handed out once."""
        return self._kept.pop((account, order_id), []) if order_id else []

    def is_old_news(self, account: str, child: Child, report: Report) -> bool:
        """Whether a report that is repeated after a lost line, or with an order's status, is known already."""
        line = self._lines[account]
        if line.up and child.key not in line.doubt:
            return False
        if isinstance(report, Filled):
            return report.exec_id in child.executions
        # no report but a fill has a number of its own: an order may be refused the same change twice in the same words,
        # so what is repeated is counted against what was heard
        content = encode(report)
        count = line.repeated[child.key, content] = line.repeated.get((child.key, content), 0) + 1
        return count <= child.heard.get(content.decode(), 0)

    def never_arrived(self, child: Child | None, request: Request, decision: Decision) -> bool:
        """Record that an order that was asked for by cancel is unknown to the gateway."""
        if child is None or child.stage is not Stage.UNANSWERED or not isinstance(request, Cancel):
            return False
        if not isinstance(decision, Denied) or decision.control != "order":
            return False
        if not decision.message.startswith(NOT_KNOWN):
            return False
        core = self._core
        core.record(Lost(utc_ns=core.utc_ns, key=child.key, cancel_key=request.key))
        return True

    def answered(self, account: str, parent: Parent, child: Child, request: Request | None, decision: Decision) -> None:
        """A decision came, for the first time (`request`) or again."""
        line = self._lines[account]
        if decision.key == child.key or not child.is_open:
            line.doubt.discard(child.key)
            return
        if not isinstance(request, Cancel | Replace):
            return
        refused = isinstance(decision, Denied) and decision.control == "order"
        if child.stage is Stage.UNANSWERED and (refused or isinstance(decision, Allowed)):
            self._repeat(line, child)  # the gateway has it: repeated, it is no new order
        elif refused and child.is_open:
            self._repeat(line, child)  # it is done there, and here it is not: what was missed?

    def step(self, parent: Parent, not_before_ns: int) -> None:
        """Ask again by cancel where that was denied for another reason."""
        line = self._lines[parent.account]
        if not line.up or not line.doubt or self._core.now_ns < not_before_ns:
            return
        for child in parent.open_children:
            asked = child.cancel_key in self._core.state.unanswered or child.key not in line.doubt
            if child.stage is Stage.UNANSWERED and not asked and child.key in self._by_cancel:
                self._ask_by_cancel(parent, child)

    def _is_wanted(self, parent: Parent, child: Child) -> bool:
        core = self._core
        age = core.now_ns - child.sent_ns
        fresh = core.now_ns > 0 and age <= core.rules.stale_ns
        return fresh and parent.phase is Phase.WORKING and core.now_ns < parent.end_ns

    def _ask_by_cancel(self, parent: Parent, child: Child) -> None:
        core = self._core
        self._by_cancel.add(child.key)
        pending = core.state.unanswered.get(child.cancel_key)
        if pending is not None:
            self._out(parent.account, pending)
            return
        request = child.request
        core.sender.send(
            parent,
            Cancel(
                key=f"{parent.ref}/{parent.requests + 1}", strategy=request.strategy, account=request.account,
                algorithm=request.algorithm, trader=request.trader, sent_ns=core.utc_ns, order_key=child.key,
            ),
        )  # fmt: skip

    def _repeat(self, line: Line, child: Child) -> None:
        self._by_cancel.discard(child.key)
        line.doubt.add(child.key)
        self._out(child.request.account, child.request)

    def _out(self, account: str, request: Request) -> None:
        self._core.out.sends.append(Outgoing(account, request))
