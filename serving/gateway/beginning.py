"""What the settings propose when the process begins, and what paper trading lets happen without people."""

import asyncio
import logging
from typing import TYPE_CHECKING

from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.day import Book
from serving.gateway.engine import Gateway
from serving.gateway.fix_out import read_now

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)
PAPER = ("CN=paper one", "CN=paper two")
"""Who approves and arms where paper trading does it by itself: named so that the journal says what it was."""
PAPER_WAIT_S = 5.0


def propose_what_is_set(service: "GatewayService") -> None:
    """Propose the limits and the day of the settings, and in paper trading approve them. Durable on return."""
    gateway, settings = service.gateway, service.settings
    service.reloading.begin()
    if not settings.paper and settings.certificate is None:
        log.warning("people are known by tokens: nothing that takes two people can be approved (TLS, or paper)")
    _first_limits(service)
    book = service.book
    if book is not None and not gateway.state.day_open:
        if book.day <= gateway.state.date:
            log.warning("the day %s of the settings is over: none is started", book.day)
        else:
            _first_day(service, book)
    service.try_commit()


async def strategies_back(gateway: Gateway) -> None:
    """Wait a little for the strategies that have orders: arming without them cancels what they left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PAPER_WAIT_S
    while loop.time() < deadline and any(
        not gateway.live.beat(order.request.strategy).connected for order in gateway.state.open_orders.values()
    ):
        await asyncio.sleep(0.02)


def _first_limits(service: "GatewayService") -> None:
    gateway, paper, limits = service.gateway, service.settings.auto_arm, service.first_limits
    if limits is None:
        return
    first = gateway.state.limits is None
    change = propose_limits(gateway, limits, PAPER[0] if paper else "CN=settings", read_now())
    if change.looser and paper and first:
        log.warning("PAPER TRADING: the first limits are approved without people")
        for who in PAPER:
            approve_limits(gateway, change.change, who, read_now())
    elif change.looser:
        looser = {"looser": list(change.looser[:20])}
        log.warning("limits are proposed that two people must approve: change %s", change.change, extra=looser)


def _first_day(service: "GatewayService", book: Book) -> None:
    paper = service.settings.auto_arm
    proposed = service.propose_day(book, PAPER[0] if paper else "CN=settings")
    for line in proposed.differs:
        log.warning("holding differs: %s", line)
    if not paper:
        log.warning("a day is proposed that two people must approve: change %s", proposed.change)
        return
    log.warning("PAPER TRADING: the day is approved without people")
    for who in PAPER:
        service.approve_day(proposed.change, who)
