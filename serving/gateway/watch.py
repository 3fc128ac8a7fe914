"""What the gateway sees, and what it does by itself as time passes.

Marks, cancels that must happen, things that expire.
"""

from collections.abc import Iterable

from serving.contracts.orders import INT64_MAX, LOTS_MAX, ContractError
from serving.gateway.books import Node
from serving.gateway.engine import Gateway
from serving.gateway.events import LiquidationEnded, Marked, PostureEnded, Withdrawn
from serving.gateway.live import NEVER, SECOND_NS, UNKNOWN_LAG_NS, Now
from serving.gateway.money import BPS
from serving.gateway.order_table import Order

MARK_EVERY_NS = SECOND_NS
MARK_MOVE_BPS = 10
"""Every symbol is marked at once when its mid moved by this much, and one that is held every second too."""
CANCEL_RETRY_NS = SECOND_NS
"""A cancel of the gateway's own that stays unanswered goes again after this."""
STATUSES = ("open", "halted", "closed", "auction", "unknown")


class Watch:
    """The gateway's senses and its clockwork. What it records is durable with the next `Gateway.commit`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._since: dict[tuple[str, ...], int] = {}  # monotonic time at which something that expires was first seen
        self._retried: dict[int, int] = {}
        self._marked_ns = 0
        self._swept = -1  # the state's revision at the last sweep of all orders
        self._dead_man_ns = 0  # the tightest of any scope then

    def heard(self, venue: str, sent_ns: int, now: Now) -> None:
        """The feed's latest message was sent at `sent_ns` UTC; 0 where that is unknown.

        Against the clock as it reads, not as the gateway believes it: one that jumped either way leaves no reference.
        """
        self.gateway.live.feed(venue).lag_ns = now.raw_utc_ns - sent_ns if sent_ns else UNKNOWN_LAG_NS

    def confirm(self, venue: str, symbols: Iterable[str], now: Now) -> None:
        """The feed says that these symbols stand as they were last told."""
        mono_ns = self.gateway.read_clock(now).mono_ns
        for symbol in symbols:
            self.gateway.live.market(venue, symbol).confirm(mono_ns)

    def quote(self, venue: str, symbol: str, bid: int, ask: int, now: Now) -> None:
        """Take a best bid and ask (ticks) from the gateway's own feed. Raises ContractError where one is no price."""
        clock = self.gateway.read_clock(now)
        self.gateway.live.market(venue, symbol).quote(bid, ask, clock.mono_ns)
        book = self.gateway.state.symbols.get(symbol)
        if book is not None and bid <= ask:
            moved2 = abs(bid + ask - 2 * book.mark)
            if moved2 * BPS > MARK_MOVE_BPS * 2 * book.mark:
                self.gateway.record(Marked(utc_ns=clock.utc_ns, marks=((symbol, (bid + ask) // 2),)))

    def volume(self, venue: str, symbol: str, lots: int) -> None:
        """Take the market's volume of the day so far. Raises ContractError where it is none."""
        if type(lots) is not int or not 0 <= lots <= LOTS_MAX:
            raise ContractError(f"volume {lots!r} is not an integer from 0 to {LOTS_MAX} lots")
        self.gateway.live.market(venue, symbol).traded(lots)

    def status(self, venue: str, symbol: str, status: str) -> None:
        """Take the state of the session; what is not one of STATUSES counts as unknown, which is closed."""
        self.gateway.live.market(venue, symbol).status = status if status in STATUSES else "unknown"

    def gap(self, venue: str) -> None:
        """The feed lost messages, or its line: no symbol of the venue has a reference until it speaks again."""
        self.gateway.live.feed(venue).lag_ns = UNKNOWN_LAG_NS
        for (at_venue, _), market in self.gateway.live.markets.items():
            if at_venue == venue:
                market.lose()
                market.status = "unknown"

    def lose(self, venue: str, symbol: str, status: str | None = None) -> None:
        """A symbol has no reference any more: a gap, or a side of its book is empty; `status` where it changes too."""
        market = self.gateway.live.market(venue, symbol)
        market.lose()
        if status is not None:
            self.status(venue, symbol, status)

    def clock_offset(self, offset_ns: int, now: Now) -> None:
        """Take a measurement of how far the clock is from UTC."""
        clock = self.gateway.live.clock
        clock.offset_ns, clock.measured_ns = offset_ns, self.gateway.read_clock(now).mono_ns

    def connected(self, strategy: str, now: Now) -> None:
        """A strategy's line came up."""
        beat = self.gateway.live.beat(strategy)
        beat.connected, beat.seen_ns = True, self.gateway.read_clock(now).mono_ns

    def heartbeat(self, strategy: str, now: Now) -> None:
        """A strategy is alive. Says nothing while its line is down."""
        beat = self.gateway.live.beat(strategy)
        if beat.connected:
            beat.seen_ns = self.gateway.read_clock(now).mono_ns

    def disconnected(self, strategy: str, now: Now) -> None:
        """A strategy's line went down: cancel what it left."""
        self.gateway.live.beat(strategy).connected = False
        self.sweep(now)

    def tick(self, now: Now) -> None:
        """Do what time demands: call ten times a second at least. Never raises: what fails halts."""
        try:
            clock = self.gateway.read_clock(now)
            self.gateway.disk_full = ""
            if self.gateway.journal.is_full():
                self.gateway.disk_full = "the journal's disk is full: no new order until there is space"
            if not self.gateway.broken:
                self._expire(clock)
                self._mark(clock)
            if not self._all_may_stand(clock):
                self.sweep(now)
        except Exception as error:
            self.gateway.halt(f"the watch failed: {type(error).__name__}: {error}", now)

    def sweep(self, now: Now, only: Node | None = None) -> None:
        """Cancel every order (of one scope, where that is named) that must not stand, until the venue confirms."""
        clock = self.gateway.read_clock(now)
        for order in list(self.gateway.state.open_orders.values()):
            if only is not None and only not in order.nodes:
                continue
            reason = self._must_cancel(order, clock)
            if reason is None:
                continue
            last_ns = self._retried.get(order.id)
            if last_ns is None and order.cancelling:
                last_ns = self.gateway.unanswered.cancel_sent_ns(order)
            if last_ns is None or clock.mono_ns - last_ns >= CANCEL_RETRY_NS:
                self._retried[order.id] = clock.mono_ns
                self.gateway.cancel_order(order, reason, now)
        for order_id in [order_id for order_id in self._retried if order_id not in self.gateway.state.open_orders]:
            del self._retried[order_id]
        limits = self.gateway.state.limits
        if only is None and limits is not None:
            self._swept = self.gateway.state.revision
            self._dead_man_ns = min(numbers.get("dead_man_ns", INT64_MAX) for numbers in limits.numbers.values())

    def _all_may_stand(self, now: Now) -> bool:
        """Whether none of `_must_cancel`'s reasons holds for any order: many are open, and this is asked often."""
        gateway, state = self.gateway, self.gateway.state
        if gateway.broken or self._retried or self._swept != state.revision or now.utc_ns >= state.closes_ns:
            return False
        for node in state.nodes.values():
            if not node.open_orders:
                continue
            if node.killed or node.tripped:
                return False
            if node.scope == "strategy":
                beat = gateway.live.beat(node.name)
                if not beat.connected or now.mono_ns - beat.seen_ns > self._dead_man_ns:
                    return False
        return True

    def _must_cancel(self, order: Order, now: Now) -> str | None:
        gateway, request = self.gateway, order.request
        if gateway.broken:
            return gateway.broken
        for node in order.nodes:
            if node.killed and not (node.liquidating and request.reduce_only):
                return f"{node.scope} {node.name}".strip() + " is killed"
        venue = gateway.state.node("venue", request.venue)
        if venue.tripped:
            return f"venue {venue.name} is stopped: {venue.tripped}"
        beat = gateway.live.beat(request.strategy)
        if gateway.state.halted and beat.seen_ns == NEVER:
            return None  # after a restart nobody is back yet: orders stand while the book is being compared
        if not beat.connected:
            return f"strategy {request.strategy} is not connected"
        at = gateway.at((request.venue, request.account, request.strategy, request.symbol))
        if at.unknown:
            return at.unknown
        silent_ns = now.mono_ns - beat.seen_ns
        if silent_ns > at.limits.dead_man_ns:
            return (
                f"no heartbeat of strategy {request.strategy} for {silent_ns} ns, dead_man_ns {at.limits.dead_man_ns}"
            )
        if now.utc_ns >= gateway.state.closes_ns:
            return "the trading day is over"
        return None

    def _mark(self, now: Now) -> None:
        if now.mono_ns - self._marked_ns < MARK_EVERY_NS:
            return
        self._marked_ns = now.mono_ns
        marks: dict[str, int] = {}
        for (_, symbol), market in self.gateway.live.markets.items():
            book = self.gateway.state.symbols.get(symbol)
            if book is None or not market.bid or not any(leg.position or leg.buys or leg.sells for leg in book.legs):
                continue
            mid = (market.bid + market.ask) // 2
            if mid != book.mark:
                marks.setdefault(symbol, mid)
        if marks:
            self.gateway.record(Marked(utc_ns=now.utc_ns, marks=tuple(sorted(marks.items()))))

    def _expire(self, now: Now) -> None:
        """Expire what loosens only when both clocks say so, and what a person may still use when either does."""
        gateway, live_keys = self.gateway, set()
        for (scope, name), posture in list(gateway.state.postures.items()):
            key = ("posture", scope, name, str(posture.expires_ns))
            live_keys.add(key)
            lasted = now.mono_ns - self._since.setdefault(key, now.mono_ns)
            if now.utc_ns >= posture.expires_ns and lasted >= posture.lasts_ns:
                gateway.record(PostureEnded(utc_ns=now.utc_ns, scope=scope, name=name))  # type: ignore[arg-type]
        for change, proposal in list(gateway.state.proposals.items()):
            if now.utc_ns >= proposal.expires_ns:
                gateway.record(Withdrawn(utc_ns=now.utc_ns, change=change, why="its approval expired"))
        for (scope, name), people in list(gateway.state.liquidations.items()):
            if now.utc_ns >= min(people.values()):
                gateway.record(LiquidationEnded(utc_ns=now.utc_ns, scope=scope, name=name))  # type: ignore[arg-type]
        self._since = {key: since for key, since in self._since.items() if key in live_keys}
