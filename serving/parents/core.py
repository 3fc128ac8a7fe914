"""The EMS without a wire: events in, requests out. Equal events in equal order give equal requests.

Durable state changes by records alone (`serving.parents.state`). What is wanted of the outside gathers in `Outputs`;
whoever drives the core journals the records first, and only then sends and asks. Time is the market's: `advance` says
that all up to a moment has been told, and whatever is due then happens then.
"""

from collections.abc import Mapping
from copy import copy

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.instruments import Instrument
from serving.contracts.decisions import Decision
from serving.contracts.orders import ChildOrder, Filled, Report, Request
from serving.decide.protocol import DecideError, Policies, PolicyDecision
from serving.parents.accepting import check, is_same
from serving.parents.catching_up import Lines
from serving.parents.closing import Closer
from serving.parents.deciding import Decider
from serving.parents.market import SymbolMarket
from serving.parents.orders import Child, Parent, Phase, Stage
from serving.parents.outputs import Alert, Ask, CoreRules, Outputs, ParentRequest, Refusal, Run
from serving.parents.queue import QueueTracker
from serving.parents.records import Answered, Cancelling, Changed, Heard, Opened, Record, Session, Taken
from serving.parents.sending import Sender
from serving.parents.state import State
from serving.wire.feed import Opening, Snapshot, SymbolStatus, Update
from serving.wire.feed_state import Event, Gap


class Core:
    """Works the parents of several accounts at one venue. Not for several threads."""

    def __init__(
        self, rules: CoreRules, instruments: Mapping[str, Instrument], state: State, birth: str, utc_ns: int
    ) -> None:
        """Go on from `state`, empty or replayed; `birth` names a new journal. `instruments` by symbol.

        Raises InputError where a parent of the state is of a symbol or an account that is worked here no more.
        """
        for parent in state.working:
            if parent.symbol not in instruments or parent.account not in rules.accounts:
                raise InputError(
                    f"parent {parent.parent_id} is at work in {parent.symbol} for account {parent.account}, which are "
                    "not both worked here any more: name them until it is done"
                )
        self.rules, self.state = rules, state
        self.markets = {symbol: SymbolMarket(instrument) for symbol, instrument in instruments.items()}
        self.now_ns = 0  # of the market
        self.feed_lag_ns: int | None = None
        self.is_late = False
        self.utc_ns = utc_ns
        self.policies: Policies | None = None
        self.runs: dict[int, Run] = {}
        self.out = Outputs()
        self.lines = Lines(self)
        self._asks = 0
        self._asked: dict[int, tuple[int, bool]] = {}  # parent and whether it is a shadow's, by ask
        self.sender, self.decider, self.closer = Sender(self), Decider(self), Closer(self)
        self.record(Opened(utc_ns=utc_ns, birth=state.birth or birth))
        for parent in state.working:
            self.run_of(parent)

    # What comes in ----------------------------------------------------------------------------------------------------

    def on_feed(self, event: Event) -> None:
        """An event of the feed, in order."""
        if isinstance(event, Opening):
            if event.session != self.state.session:
                self.record(Session(utc_ns=self.utc_ns, session=event.session))
            return
        market = self.markets.get(getattr(event, "symbol", ""))
        if market is None:
            return
        if isinstance(event, Update):
            market.update(event)
        elif isinstance(event, Snapshot):
            market.snapshot(event)
        elif isinstance(event, SymbolStatus):
            market.turn(event)
        elif isinstance(event, Gap):
            if market.is_known:
                self.alert("feed_gap", f"{event.symbol} is unknown: {event.reason}", symbol=event.symbol)
            market.lose()

    def on_lag(self, lag_ns: int | None) -> None:
        """How long the feed's latest message was on its way, ns of the clock; None where the feed does not say.

        While that is too long no book counts as known, so that nothing but cancels is sent; it must fall to half of the
        limit before one does again.
        """
        most = self.rules.max_feed_lag_ns
        self.feed_lag_ns = lag_ns
        late = lag_ns is None or abs(lag_ns) > (most // 2 if self.is_late else most)
        if late == self.is_late:
            return
        self.is_late = late
        for market in self.markets.values():
            market.is_late = late
        how = "does not say when it sent" if lag_ns is None else f"is {lag_ns / 1e9:.3f} s late"
        self.alert("feed_late", f"the feed {how}: {'nothing is sent' if late else 'it is acted on again'}")

    def advance(self, now_ns: int, utc_ns: int) -> None:
        """All up to `now_ns` has been told: do what is due. Time that goes back is not believed."""
        self.now_ns, self.utc_ns = max(self.now_ns, now_ns), max(self.utc_ns, utc_ns)
        for market in self.markets.values():
            market.advance(self.now_ns)
        for parent in self.state.working:
            if parent.phase is not Phase.WAITING or parent.start_ns <= self.now_ns:
                self._step(parent)

    def submit(self, request: ParentRequest, utc_ns: int) -> Parent:
        """Take a parent order; the same one again gives what it became. Raises Refusal."""
        known = self.state.find(request.account, request.parent_id)
        strategy, trader = check(self, request)
        if known is not None:
            if is_same(known, request, strategy):
                return known
            raise Refusal("conflict", f"parent id {request.parent_id} was used before, for another order")
        if len(self.state.working) >= self.rules.max_parents:
            raise Refusal("busy", f"{len(self.state.working)} parents are at work, limit {self.rules.max_parents}")
        number = self.state.taken + 1
        self.record(
            Taken(
                utc_ns=utc_ns,
                number=number,
                parent_id=request.parent_id,
                account=request.account,
                strategy=strategy,
                symbol=request.symbol,
                venue=self.rules.venue,
                side=request.side,
                lots=request.lots,
                horizon_ns=request.horizon_ns,
                start_ns=request.start_ns,
                source=request.source,
                peer=request.peer,
                trader=trader,
            )  # fmt: skip
        )
        parent = self.state.parents[number]
        run = self.run_of(parent)
        if self.now_ns <= 0:
            run.waits_for = "the feed has not told yet what time it is"
        return parent

    def cancel(self, parent: Parent, reason: str, utc_ns: int) -> None:
        """End a parent: what is open is cancelled, and nothing is sent any more. Raises Refusal where it is done."""
        if parent.is_ended:
            raise Refusal("conflict", f"parent {parent.parent_id} is done: {parent.how}")
        if parent.phase is not Phase.CANCELLING:
            self.record(Cancelling(utc_ns=utc_ns, number=parent.number, reason=reason))
        self._step(parent)

    def replace(self, parent: Parent, lots: int, utc_ns: int, parent_id: str = "") -> None:
        """Give a parent another total size, fills included; with `parent_id` it goes by another id. Raises Refusal."""
        if parent.phase in (Phase.CANCELLING, Phase.ENDED):
            raise Refusal("conflict", f"parent {parent.parent_id} is {parent.phase.name.lower()}: its size stands")
        if type(lots) is not int or not 1 <= lots <= self.rules.max_lots:
            raise Refusal("invalid", f"lots {lots!r} is not an integer from 1 to {self.rules.max_lots}")
        if lots < parent.filled + parent.exposed:
            raise Refusal(
                "conflict",
                f"lots {lots} is less than {parent.filled + parent.exposed}: {parent.filled} are filled and "
                f"{parent.exposed} on their way",
            )
        if parent_id and self.state.find(parent.account, parent_id) is not None:
            raise Refusal("conflict", f"parent id {parent_id} was used before")
        self.record(Changed(utc_ns=utc_ns, number=parent.number, lots=lots, parent_id=parent_id))
        self._step(parent)

    def answered(self, account: str, decision: Decision, utc_ns: int) -> None:
        """The gateway's answer to a request, for the first time or again."""
        self.utc_ns = max(self.utc_ns, utc_ns)
        request = self.state.unanswered.get(decision.key)
        child = self.state.children.get(decision.key if request is None else _order_key(request))
        before = None if child is None else _standing(child)
        if request is not None and not self.lines.never_arrived(child, request, decision):
            self.record(Answered(utc_ns=self.utc_ns, decision=decision, market_ns=self.now_ns))
        if child is None:
            return
        parent = self.state.parents[child.parent]
        self.lines.answered(account, parent, child, request, decision)
        self.closer.back_off(parent, request, decision)
        if before is not None:
            self._follow(parent, child, before, child.stood_ns)
        for report in self.lines.kept(account, child.order_id):
            self.reported(account, report, utc_ns)
        self._step(parent)

    def reported(self, account: str, report: Report, utc_ns: int) -> None:
        """What the venue said of an order."""
        self.utc_ns = max(self.utc_ns, utc_ns)
        child = self.state.orders.get((account, report.order_id))
        if child is None:
            self.lines.keep(account, report)
            return
        if self.lines.is_old_news(account, child, report):
            return
        parent, before = self.state.parents[child.parent], _standing(child)
        sums = copy(parent.sums)
        self.record(self._heard(account, report, parent, child))
        self._follow(parent, child, before, report.ts_ns)
        if parent.filled > parent.lots:
            self.alert(
                "overfill", f"parent {parent.parent_id}: {parent.filled} lots are filled, it has {parent.lots}",
                parent=parent.parent_id,
            )  # fmt: skip
        if parent.is_ended and parent.sums != sums:
            self.closer.restate(parent)
        self._step(parent)

    def line_up(self, account: str) -> None:
        """The line of an account to the gateway is open: catch up, then go on."""
        self.lines.up(account)

    def line_down(self, account: str, reason: str) -> None:
        """It is down: what was not answered is unknown."""
        self.lines.down(account, reason)

    def on_policies(self, policies: Policies | None) -> None:
        """What may be asked, None where the policy service is not there. New parents begin with this champion."""
        before = self.policies.champion if self.policies else None
        self.policies = policies
        now = policies.champion if policies else None
        if now is not None and (before is None or before.sha256 != now.sha256):
            self.alert("champion", f"new parents begin with version {now.version}", version=now.version)

    def decided(self, ask_id: int, answer: PolicyDecision | DecideError, utc_ns: int) -> None:
        """The answer to an ask for a decision, or why there is none."""
        self._answer(ask_id, utc_ns, decision=answer)

    def forecasted(self, ask_id: int, answer: NDArray[np.float32] | DecideError, utc_ns: int) -> None:
        """The answer to an ask for a forecast, `(H,) float32 bps`, or why there is none."""
        self._answer(ask_id, utc_ns, forecast=answer)

    def drain(self) -> Outputs:
        """What is to be done since the last call."""
        out, self.out = self.out, Outputs()
        return out

    # What the parts of the core share ---------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """Let something happen."""
        self.state.apply(record)
        self.out.records.append(record)

    def alert(self, what: str, message: str, **fields: object) -> None:
        """Tell people."""
        self.out.alerts.append(Alert(what, message, dict(fields)))

    def run_of(self, parent: Parent) -> Run:
        """What is held of a parent beside the journal, made anew after a restart."""
        run = self.runs.get(parent.number)
        if run is None:
            run = self.runs[parent.number] = Run(self.markets[parent.symbol], waiting_ns=self.now_ns)
            self.decider.restore(parent, run)
        return run

    def ask(self, parent: Parent, ask: Ask) -> Ask:
        """Number a question and have it asked."""
        self._asks += 1
        ask = ask._replace(ask_id=self._asks)
        self._asked[self._asks] = (parent.number, ask.shadow)
        self.out.asks.append(ask)
        return ask

    # One parent -------------------------------------------------------------------------------------------------------

    def _step(self, parent: Parent) -> None:
        """Do what is due for a parent now."""
        run = self.run_of(parent)
        self.lines.step(parent, run.not_before_ns)
        if parent.phase is Phase.WAITING:
            self.decider.begin(parent, run)
        if parent.phase in (Phase.WORKING, Phase.FINISHING):
            self.closer.measure(parent, run)
        if self.closer.step(parent, run):
            self.decider.step(parent, run)
        if parent.is_ended:
            self.runs.pop(parent.number, None)

    def _answer(
        self,
        ask_id: int,
        utc_ns: int,
        decision: PolicyDecision | DecideError | None = None,
        forecast: NDArray[np.float32] | DecideError | None = None,
    ) -> None:
        self.utc_ns = max(self.utc_ns, utc_ns)
        number, shadow = self._asked.pop(ask_id, (0, False))
        parent = self.state.parents.get(number)
        run = self.runs.get(number)
        if parent is None or run is None:
            return
        question = run.shadow if shadow else run.question
        if question is None or question.ask.ask_id != ask_id:
            return  # given up meanwhile
        if forecast is not None:
            self.decider.forecasted(parent, run, question, forecast)
        elif decision is not None:
            self.decider.decided(parent, run, question, decision)
        self._step(parent)

    def _heard(self, account: str, report: Report, parent: Parent, child: Child) -> Heard:
        """A report, and of a fill the market that it met."""
        if not isinstance(report, Filled):
            return Heard(utc_ns=self.utc_ns, account=account, report=report)
        row = self.markets[parent.symbol].row_at(report.ts_ns)
        mid2, best = (2 * report.price_ticks, report.price_ticks)
        if row is not None and row.mid2:
            mid2, best = row.mid2, row.best(parent.side)[2] or report.price_ticks
        passive = child.kind == "rest" and 0 < child.stood_ns < report.ts_ns
        return Heard(utc_ns=self.utc_ns, account=account, report=report, mid2=mid2, best_ticks=best, passive=passive)

    def _follow(self, parent: Parent, child: Child, before: tuple[int, int, int, int], ts_ns: int) -> None:
        """Let the estimate of the queue follow what became of the order that rests."""
        run = self.runs.get(parent.number)
        if run is None or child.kind != "rest":
            return
        stage, price, lots, filled = before
        if child.stage is Stage.DONE:
            if stage != Stage.DONE:
                run.queue = None
        elif child.stage is Stage.WORKING:
            if run.queue is None:
                run.queue = QueueTracker(run.market, parent.side, parent.plan.fill_model)
                run.queue.stands(child.stood_ns, child.price_ticks, child.lots - child.filled)
            elif (price, lots) != (child.price_ticks, child.lots):
                run.queue.stands(child.stood_ns, child.price_ticks, child.lots - child.filled)
            elif child.filled > filled:
                run.queue.filled(ts_ns, child.filled - filled)


def _order_key(request: Request) -> str:
    return request.key if isinstance(request, ChildOrder) else request.order_key


def _standing(child: Child) -> tuple[int, int, int, int]:
    return int(child.stage), child.price_ticks, child.lots, child.filled
