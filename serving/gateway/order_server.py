"""The order port: requests that arrived together are decided together, made durable once, then answered.

    requests of all lines -> inbox -> decide each -> commit (one fdatasync, then FIX) -> answers, one write a line

While a group waits for the disk the next one gathers in the sockets, so groups grow with the load by themselves.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized

from serving.contracts.decisions import Decision, Denied
from serving.contracts.orders import CancelRejected, Rejected, ReplaceRejected, Report, Request
from serving.gateway.disk import Disk
from serving.gateway.engine import Gateway
from serving.gateway.events import Event, Reported, Unsent, decode_event
from serving.gateway.fix_out import read_now
from serving.gateway.journal import JournalError
from serving.gateway.live import Now
from serving.gateway.order_table import Order
from serving.gateway.records import groups
from serving.gateway.watch import Watch
from serving.wire.identity import Identity
from serving.wire.link import ServerLine

log = logging.getLogger(__name__)
REPEAT_AT_ONCE, REPEAT_UNREAD, REPEAT_EVERY_S = 500, 256 * 1024, 0.002
"""Reports that are repeated in one go, while fewer bytes than this lie unread, and how soon the next ones go."""
INBOX_MAX = 8_192
"""Requests that may wait to be decided; beyond it no line that brings more is read until half of them are."""
Owner = tuple[str, str]
"""(account, strategy)"""


class OrderServer:
    """A `serving.wire.link.OrderPort` in the deciding thread. `commit` makes a group durable and sends it."""

    def __init__(self, gateway: Gateway, watch: Watch, commit: Callable[[Now], None], group_max: int) -> None:
        self.gateway, self.watch, self._commit, self._group_max = gateway, watch, commit, group_max
        self.lines: dict[Owner, ServerLine] = {}
        self.history: dict[int, list[Report]] = {}  # what the venue said of each of the day's orders
        self.took_ns: Callable[[int, int], None] = lambda requests, ns: None  # told after each group
        self.overtaking: Sized = ()  # while there is anything in it, `overtake` is called before the next request
        self.overtake: Callable[[], None] = lambda: None
        self.publish: Callable[[], None] = lambda: None  # told once the answers to a group, or none, are on their way
        self._inbox: deque[tuple[ServerLine, Request, int]] = deque()
        self._scheduled = False
        self._held: set[ServerLine] = set()  # lines that are not read until the inbox is shorter
        self._repeated: dict[ServerLine, deque[Report]] = {}  # what a line that came again has not been told yet

    @property
    def is_scheduled(self) -> bool:
        """Whether a group is about to be decided and committed."""
        return self._scheduled

    def opened(self, line: ServerLine, identity: Identity) -> None:
        """See OrderPort. A newer line of a strategy takes over: the older one may be dead without knowing it."""
        owners = [(identity.account, strategy) for strategy in sorted(identity.strategies)]
        for owner in owners:
            older = self.lines.get(owner)
            self.lines[owner] = line
            if older is not None and older is not line:
                older.close(f"a newer line of {identity.subject} speaks for strategy {owner[1]}")
            self.watch.connected(owner[1], read_now())
        log.info("%s opened a line for account %s", identity.subject, identity.account,
                 extra={"strategies": sorted(identity.strategies)})  # fmt: skip
        self._repeated[line] = deque(self._repeat(set(owners)))
        self._pump(line)

    def requests(self, line: ServerLine, requests: Sequence[Request]) -> None:
        """See OrderPort."""
        came_ns = time.monotonic_ns()
        self._inbox.extend((line, request, came_ns) for request in requests)
        if len(self._inbox) > INBOX_MAX and line not in self._held:
            self._held.add(line)
            line.hold()
        if not self._scheduled:
            self._schedule()

    def heartbeat(self, line: ServerLine) -> None:
        """See OrderPort."""
        if line.identity is not None:
            self._beat(line.identity, read_now())

    def closed(self, line: ServerLine, reason: str) -> None:
        """See OrderPort. What the strategies left is cancelled, unless another line took over."""
        assert line.identity is not None
        log.info("the line of %s is down: %s", line.identity.subject, reason)
        now = read_now()
        self._repeated.pop(line, None)
        self._held.discard(line)
        for strategy in line.identity.strategies:
            if self.lines.get((line.identity.account, strategy)) is line:
                del self.lines[line.identity.account, strategy]
                if not any(other == strategy for _, other in self.lines):
                    self.watch.disconnected(strategy, now)
        self._try_commit(now)

    def tell(self, order: Order, report: Report) -> None:
        """Pass what the venue said, once it is durable, to whoever sent the order."""
        self.history.setdefault(order.id, []).append(report)
        line = self.lines.get((order.request.account, order.request.strategy))
        if line is not None and line in self._repeated:
            self._repeated[line].append(report)  # behind what came before it
        elif line is not None:
            line.send(report)

    def strike(self, line: ServerLine, reason: str) -> None:
        """Take a line down whose client may no longer send: nothing that waits of it is decided."""
        self._inbox = deque(item for item in self._inbox if item[0] is not line)
        line.cut(reason)

    def close(self, reason: str) -> None:
        """Take every line down."""
        for line in set(self.lines.values()):
            line.close(reason)

    def _pump(self, line: ServerLine) -> None:
        """Repeat a part, and go on when it is taken: a long day must not end the line that it is told to."""
        waiting = self._repeated.get(line)
        if waiting is None:
            return
        if line.unread < REPEAT_UNREAD:
            line.send(*(waiting.popleft() for _ in range(min(len(waiting), REPEAT_AT_ONCE))))
        if waiting and line.is_up:
            asyncio.get_running_loop().call_later(REPEAT_EVERY_S, self._pump, line)
        else:
            del self._repeated[line]

    def _flush(self) -> None:
        gateway, now, inbox = self.gateway, read_now(), self._inbox
        answers: dict[ServerLine, list[Decision]] = {}
        group: list[tuple[ServerLine, Request, bool]] = []
        first_ns = inbox[0][2] if inbox else now.mono_ns
        fresh: set[tuple[str, str, str]] = set()
        for _ in range(min(len(inbox), self._group_max)):
            if self.overtaking:
                self.overtake()
            line, request, _ = inbox.popleft()
            key = (request.account, request.strategy, request.key)
            durable = key in gateway.state.keys and key not in fresh
            fresh.add(key)
            answers.setdefault(line, []).append(gateway.decide(request, now))
            group.append((line, request, durable))
        self._schedule()  # first: whatever happens below, what waits is decided
        for identity in {line.identity for line in answers}:
            if identity is not None:
                self._beat(identity, now)
        try:
            self._commit(now)
        except JournalError as error:
            answers = self._deny(group, answers, str(error))
        except Exception as error:  # some of it may have left: who hears nothing asks again, under the same keys
            log.exception("a group could not be sent")
            gateway.halt(f"a group could not be sent: {type(error).__name__}: {error}", now)
            for line in answers:
                line.close("the gateway failed")
            return
        for line, decisions in answers.items():
            line.send(*decisions)
        self.publish()
        if group:
            self.took_ns(len(group), time.monotonic_ns() - first_ns)

    def _schedule(self) -> None:
        self._scheduled = bool(self._inbox)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._flush)
        if self._held and len(self._inbox) <= INBOX_MAX // 2:
            for line in self._held:
                line.go_on()
            self._held.clear()

    def _deny(
        self,
        group: list[tuple[ServerLine, Request, bool]],
        answers: dict[ServerLine, list[Decision]],
        error: str,
    ) -> dict[ServerLine, list[Decision]]:
        """Nothing of the group is on the disk: deny it all, but for what an earlier group had made durable."""
        denied: dict[ServerLine, list[Decision]] = {}
        for line, request, durable in group:
            place = len(denied.setdefault(line, []))
            answer = answers[line][place]
            if not durable:
                answer = Denied(
                    control="journal", message=f"not journalled, not sent: {error}",
                    key=request.key, algorithm=request.algorithm, trader=request.trader,
                )  # fmt: skip
            denied[line].append(answer)
        return denied

    def _try_commit(self, now: Now) -> None:
        try:
            self._commit(now)
            self.publish()
        except JournalError as error:
            log.warning("what a line's end asked for was not journalled: %s", error)

    def _beat(self, identity: Identity, now: Now) -> None:
        for strategy in identity.strategies:
            self.watch.heartbeat(strategy, now)

    def _repeat(self, owners: set[Owner]) -> list[Report]:
        """What a client that comes again may have missed: the day's reports of its orders, in the order they came."""
        told: list[Report] = []
        for order in self.gateway.state.orders.values():
            if (order.request.account, order.request.strategy) in owners:
                told += self.history.get(order.id, ())
        return told


def told_by(event: Event) -> Report | None:
    """What an event means to whoever sent the order, or None. What never left is told as a refusal."""
    if type(event) is Reported:
        return event.report
    if type(event) is not Unsent:
        return None
    return _NEVER_LEFT[event.what](order_id=event.order_id, ts_ns=event.utc_ns, reason=f"unsent: {event.reason}")


def journalled_reports(disk: Disk, name: str) -> dict[int, list[Report]]:
    """What was told of the day's orders, by order, from the journal's present file. Raises CorruptError."""
    told: dict[int, list[Report]] = {}
    for group in groups(disk.read(name), name, None, is_last=True):
        for record in group:
            if record.payload.startswith(_TELLING):  # the others are many, and a snapshot is large
                report = told_by(decode_event(record.payload))
                if report is not None:
                    told.setdefault(report.order_id, []).append(report)
    return told


_NEVER_LEFT: dict[str, Callable[..., Report]] = {
    "new": Rejected,
    "replace": ReplaceRejected,
    "cancel": CancelRejected,
}
_TELLING = (b'{"event":"reported"', b'{"event":"unsent"')
