"""The gateway's core: one thread, no sockets. Decides, reserves, journals, then sends; follows what the venue reports.

`decide` checks a request and reserves for it; nothing leaves and nothing may be told to the sender before `commit` made
the group of decisions durable. `submit` does both for one request. After a failure that leaves memory and disk apart
the gateway is `broken`: it denies everything, cancels what is open, and must be restarted.
"""

from collections.abc import Callable
from typing import Literal

from serving.contracts.decisions import Allowed, Decision, Denied
from serving.contracts.orders import Acked, Cancel, ChildOrder, Replace, Report, Request
from serving.gateway import last_line
from serving.gateway.compiled import At, Intent, at_place
from serving.gateway.controls import message_rate, registry
from serving.gateway.events import Accepted, CancelSent, Event, Halted, Refused, Reported, Unsent
from serving.gateway.journal import Journal, JournalError
from serving.gateway.live import Live, Now, alike
from serving.gateway.money import BPS
from serving.gateway.order_table import Order
from serving.gateway.state import Place, State
from serving.gateway.transport import CancelMessage, NewMessage, ReplaceMessage, Transport, VenueMessage
from serving.gateway.unanswered import Unanswered

RECENT_MAX = 512
"""Equal orders are remembered up to this many a place before the old ones are thrown out."""

Listener = Callable[[Event], None]


class Gateway:
    """Decides over requests. Every method takes the present `Now`; times that go back are not believed."""

    def __init__(
        self, journal: Journal, state: State, transport: Transport, now: Now, listener: Listener | None = None
    ) -> None:
        self.journal, self.state, self.transport = journal, state, transport
        self.live = Live(now.mono_ns)
        self.broken = ""  # why memory may differ from the disk
        self.disk_full = ""
        self._listener = listener
        self._now = Now(now.mono_ns, max(now.utc_ns, state.utc_ns), now.utc_ns)
        self._places: dict[str, dict[str, dict[str, dict[str, At]]]] = {}  # by strategy, account, venue, symbol
        self._revision = state.revision
        self._intent = Intent()
        self._outbox: list[tuple[VenueMessage, int]] = []  # with the time of the decision
        self.unanswered = Unanswered(self.live)
        self.unanswered.assume(state.open_orders.values(), now.mono_ns)

    def submit(self, request: Request, now: Now) -> Decision:
        """Decide, make it durable, send. What cannot be made durable is denied."""
        decision = self.decide(request, now)
        try:
            self.commit(now)
        except JournalError as error:
            return _denied(request, "journal", f"not journalled, not sent: {error}")
        return decision

    def decide(self, request: Request, now: Now) -> Decision:
        """Check and reserve. The answer counts, and may be told, only after `commit` returned."""
        clock = self.read_clock(now)
        if self.broken:
            return _denied(request, "journal", self.broken)
        try:
            if type(request) is ChildOrder:
                return self._decide_new(request, clock)
            known = self.state.keys.of(request.account, request.strategy).get(request.key)
            if known is not None:
                return self._again(request, *known)
            if type(request) is Replace:
                return self._decide_replace(request, clock)
            if type(request) is Cancel:
                return self._decide_cancel(request, clock)
            raise TypeError(f"{type(request).__name__} is no request")
        except Exception as error:
            reason = f"a request could not be decided: {type(error).__name__}: {error}"
            if self.broken:  # it may count already, and is denied here: the disk must not say otherwise
                self._break(reason, now)
            else:
                self.halt(reason, now)
            return _denied(request, "gateway", f"the gateway halted: {type(error).__name__}: {error}")

    def commit(self, now: Now) -> None:
        """Make everything decided durable, then send it.

        Raises JournalError, nothing written or sent, where the disk refuses or the gateway is broken.
        """
        if self.broken:
            raise JournalError(self.broken)
        if self.journal.has_pending or self.journal.failed:
            try:
                self.journal.commit()
            except JournalError as error:
                self._break(str(error), now)
                raise
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, []
        mono_ns = self.read_clock(now).mono_ns
        for window in self.live.leaving:
            window.leave(mono_ns)
        self.live.leaving.clear()
        for message, decided_ns in outbox:
            self._send(message, decided_ns, now)

    def read_clock(self, now: Now) -> Now:
        """The time to go by: neither clock ever goes back, and UTC runs at least as fast as the monotonic clock."""
        clock = self._now
        clock.raw_utc_ns = now.utc_ns
        elapsed_ns = now.mono_ns - clock.mono_ns
        if elapsed_ns > 0:
            clock.mono_ns = now.mono_ns
            clock.utc_ns += elapsed_ns
        if now.utc_ns > clock.utc_ns:
            clock.utc_ns = now.utc_ns
        return clock

    def record(self, event: Event) -> None:
        """Let an event happen: apply it, and put it into the group that is journalled next."""
        try:
            self.state.apply(event)
            self.journal.append(event)
        except Exception as error:
            self._did_not_apply(error)
            raise
        if self._listener is not None:
            self._tell(event)

    def _did_not_apply(self, error: Exception) -> None:
        self.broken = self.broken or f"an event did not apply: {type(error).__name__}: {error}"

    def _tell(self, event: Event) -> None:
        assert self._listener is not None
        try:
            self._listener(event)
        except Exception as error:
            self.broken = self.broken or f"a listener failed: {type(error).__name__}: {error}"
            raise

    def halt(self, reason: str, now: Now) -> None:
        """Refuse every new order from here on, whatever else works. Never raises."""
        clock = self.read_clock(now)
        try:
            self.record(Halted(utc_ns=clock.utc_ns, reason=reason))
        except Exception as error:
            self.broken = self.broken or f"{reason}; and halting failed: {error}"

    def on_report(self, venue: str, report: Report, now: Now) -> None:
        """Follow a venue's report. Durable with the next `commit`. Never raises: what cannot be followed halts."""
        clock = self.read_clock(now)
        try:
            if self.broken:
                self.state.apply(Reported(utc_ns=clock.utc_ns, venue=venue, report=report))
            else:
                self.record(Reported(utc_ns=clock.utc_ns, venue=venue, report=report))
            order = self.state.orders.get(report.order_id)
            if order is not None:
                self.unanswered.answered(order, report)
                if type(report) is not Acked:
                    self._cancel_what_must_go(order, now)
        except Exception as error:
            self.halt(f"a report could not be followed: {type(error).__name__}: {error}", now)

    def cancel_order(self, order: Order, reason: str, now: Now) -> None:
        """Cancel by the gateway's own decision; the message leaves with the next `commit`, or at once when broken."""
        clock = self.read_clock(now)
        request_id = self.state.next_id
        message = CancelMessage(order.id, request_id, order.request.venue)
        event = CancelSent(utc_ns=clock.utc_ns, order_id=order.id, request_id=request_id, reason=reason)
        if not self.broken:
            self.record(event)
            self._outbox.append((message, clock.mono_ns))
        else:
            self.state.apply(event)
            self._hand_over(message, now)
        self.unanswered.sent_cancel(order, clock.mono_ns)

    def veto(self, message: VenueMessage, decided_ns: int, now: Now) -> str | None:
        """The last line before a message leaves: why it must not, or None."""
        return last_line.why_not(self, message, decided_ns, self.read_clock(now))

    def unsent(self, message: VenueMessage, reason: str, now: Now) -> None:
        """Release what a veto held back."""
        clock = self.read_clock(now)
        what: Literal["new", "replace", "cancel"] = "cancel"
        if not isinstance(message, CancelMessage):
            what = "new" if isinstance(message, NewMessage) else "replace"
        event = Unsent(utc_ns=clock.utc_ns, order_id=message.order_id, what=what, reason=reason)
        if self.broken:
            self.state.apply(event)
        else:
            self.record(event)
        order = self.state.orders[message.order_id]
        if order.is_open:
            self.unanswered.forget(order, what)
        else:
            self.unanswered.forget_all(order)

    def at(self, place: Place) -> At:
        """What an order at a place meets, compiled once until limits, postures or the day change."""
        if self._revision != self.state.revision:
            self._places.clear()
            self._revision = self.state.revision
        venue, account, strategy, symbol = place
        of_strategy = self._places.get(strategy)
        if of_strategy is not None:
            of_account = of_strategy.get(account)
            if of_account is not None:
                of_venue = of_account.get(venue)
                if of_venue is not None:
                    at = of_venue.get(symbol)
                    if at is not None:
                        return at
        at = at_place(self.state, self.live, place, self._now.mono_ns)
        if not at.unknown:  # unknown places come from outside and may be any number
            of_venue = self._places.setdefault(strategy, {}).setdefault(account, {}).setdefault(venue, {})
            of_venue[at.symbol.name] = at  # one text a symbol, for all who trade it
        return at

    def _decide_new(self, request: ChildOrder, now: Now) -> Decision:
        at = self.at((request.venue, request.account, request.strategy, request.symbol))
        known = at.answers.get(request.key)
        if known is not None:
            return self._again(request, *known)
        if self.disk_full:
            return self._refuse(request, Denied(control="journal", message=self.disk_full), now)
        order = self._intent
        order.request, order.is_new, order.target, order.reduce_only = request, True, None, request.reduce_only
        order.sign = sign = 1 if request.side == "buy" else -1
        order.price = price = request.price_ticks or 0
        order.total = order.lots = order.added = lots = request.lots
        if not at.unknown:
            ask, book = at.market.ask, at.leg.book
            if not price and sign > 0:
                price = ask + ask * at.limits.collar_bps // BPS + 1
            elif price < ask:
                price = ask
            order.unit = unit = price * book.tick_value
            order.value = order.added_value = lots * unit
            order.at_mark = lots * book.mark * book.tick_value
        denied = registry.run(at, order, now)
        if denied is not None:
            return self._refuse(request, denied, now)
        order_id, mono_ns = self.state.next_id, now.mono_ns
        decision = self._accept_new(request, at, order_id, order.unit, now)
        self._outbox.append((NewMessage(order_id, request), mono_ns))
        for node in at.nodes:
            if node.messages is not None:
                node.messages.count(mono_ns)
        self._remember(at, order, mono_ns)
        at.unanswered.add(order_id * 4, mono_ns)
        return decision

    def _decide_replace(self, request: Replace, now: Now) -> Decision:
        if self.disk_full:
            return self._refuse(request, Denied(control="journal", message=self.disk_full), now)
        target = self.state.order_of(request.account, request.strategy, request.order_key)
        if target is None or not target.is_open:
            return self._refuse(request, _not_open(request, target), now)
        first = target.request
        at = self.at((first.venue, first.account, first.strategy, first.symbol))
        order = self._intent
        order.request, order.is_new, order.target, order.reduce_only = request, False, target, first.reduce_only
        order.sign, order.price = target.sign, request.price_ticks
        order.total = request.lots
        order.lots = order.total - target.filled
        order.added = order.lots - target.open_lots
        if not at.unknown:
            order.unit = max(request.price_ticks, at.market.ask) * at.leg.book.tick_value
            order.value = order.total * order.unit
            order.added_value = (
                max(order.lots, target.open_lots) * max(order.unit, target.unit_value) - target.open_value
            )
            order.at_mark = order.added * at.leg.book.mark * at.leg.book.tick_value
        denied = registry.run(at, order, now)
        if denied is not None:
            return self._refuse(request, denied, now)
        request_id = self.state.next_id
        decision = self._accept(request, at, target.id, order.unit, now)
        message = ReplaceMessage(target.id, request_id, first.venue, request.price_ticks, request.lots)
        self._outbox.append((message, now.mono_ns))
        for node in at.nodes:
            if node.messages is not None:
                node.messages.count(now.mono_ns)
        at.unanswered.add(target.id * 4 + 1, now.mono_ns)
        return decision

    def _decide_cancel(self, request: Cancel, now: Now) -> Decision:
        target = self.state.order_of(request.account, request.strategy, request.order_key)
        if target is None or not target.is_open:
            return self._refuse(request, _not_open(request, target), now)
        first = target.request
        at = self.at((first.venue, first.account, first.strategy, first.symbol))
        if not at.unknown:  # a place that was struck from the limits still lets its orders be cancelled
            denied = message_rate.check_cancel(at, now)
            if denied is not None:
                return self._refuse(request, denied, now)
            for node in at.nodes:
                if node.cancel_messages is not None:
                    node.cancel_messages.count(now.mono_ns)
        request_id = self.state.next_id
        event = Accepted(
            utc_ns=now.utc_ns, request=request, order_id=target.id, request_id=request_id, unit_value=0, mark_ticks=0
        )
        self.record(event)
        self._outbox.append((CancelMessage(target.id, request_id, first.venue), now.mono_ns))
        self.unanswered.sent_cancel(target, now.mono_ns)
        assert self.state.last is not None
        return self.state.last

    def _accept_new(self, request: ChildOrder, at: At, order_id: int, unit_value: int, now: Now) -> Allowed:
        """What `record` does, for a new order, whose sums are at hand."""
        event = Accepted(
            utc_ns=now.utc_ns,
            request=request,
            order_id=order_id,
            request_id=order_id,
            unit_value=unit_value,
            mark_ticks=(at.market.bid + at.market.ask) // 2,
        )
        try:
            decision = self.state.apply_new(event, request, at)
            self.journal.append(event)
        except Exception as error:
            self._did_not_apply(error)
            raise
        if self._listener is not None:
            self._tell(event)
        return decision

    def _accept(self, request: Replace, at: At, order_id: int, unit_value: int, now: Now) -> Allowed:
        self.record(
            Accepted(
                utc_ns=now.utc_ns,
                request=request,
                order_id=order_id,
                request_id=self.state.next_id,
                unit_value=unit_value,
                mark_ticks=(at.market.bid + at.market.ask) // 2,
            )
        )
        assert self.state.last is not None
        return self.state.last

    def _remember(self, at: At, order: Intent, mono_ns: int) -> None:
        recent = at.recent
        sent = recent.sent
        if len(sent) >= RECENT_MAX:
            old_ns = mono_ns - at.limits.duplicate_window_ns
            for key in [key for key, sent_ns in sent.items() if sent_ns < old_ns]:
                del sent[key]
        sent[alike(order.sign, order.price, order.lots)] = recent.last_ns = mono_ns

    def _again(self, request: Request, first: Request, decision: Decision) -> Decision:
        if first == request:
            return decision
        return _denied(request, "idempotency", f"key {request.key} was used before, with another payload")

    def _refuse(self, request: Request, denied: Denied, now: Now) -> Denied:
        answer = Denied(
            control=denied.control,
            message=denied.message,
            value=denied.value,
            limit=denied.limit,
            key=request.key,
            algorithm=request.algorithm,
            trader=request.trader,
        )
        self.record(Refused(utc_ns=now.utc_ns, request=request, denied=answer))
        return answer

    def _send(self, message: VenueMessage, decided_ns: int, now: Now) -> None:
        reason = self.veto(message, decided_ns, now)
        if reason is not None:
            self.unsent(message, reason, now)
            return
        self._hand_over(message, now)

    def _hand_over(self, message: VenueMessage, now: Now) -> None:
        try:
            self.transport.send(message)
        except Exception as error:
            self.halt(f"a message may or may not have left: {type(error).__name__}: {error}", now)

    def _cancel_what_must_go(self, order: Order, now: Now) -> None:
        for other, reason in list(last_line.must_go(self.state, order)):
            if not other.cancelling:
                self.cancel_order(other, reason, now)

    def _break(self, reason: str, now: Now) -> None:
        """Memory is ahead of the disk: deny everything, and cancel what the venue may hold."""
        self.broken = f"the gateway must be restarted: {reason}"
        self.journal.drop_pending()
        never_left = {message.order_id for message, _ in self._outbox if isinstance(message, NewMessage)}
        self._outbox.clear()
        for order in list(self.state.open_orders.values()):
            if order.id not in never_left and self.unanswered.may_have_left(order):
                self.cancel_order(order, "the journal failed", now)


def _not_open(request: Replace | Cancel, target: Order | None) -> Denied:
    if target is None:
        return Denied(control="order", message=f"no order with key {request.order_key} of this strategy and account")
    return Denied(control="order", message=f"order {request.order_key} is {target.stage}")


def _denied(request: Request, control: str, message: str) -> Denied:
    return Denied(control=control, message=message, key=request.key, algorithm=request.algorithm, trader=request.trader)
