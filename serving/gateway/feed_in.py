"""The gateway's own market data: follows each venue's feed and tells the watch what it sees."""

import asyncio
import logging
import ssl
import time
from pathlib import Path

from serving.contracts.orders import LOTS_MAX
from serving.gateway.config import FeedConfig, VenueConfig
from serving.gateway.fix_out import read_now
from serving.gateway.live import UNKNOWN_LAG_NS, Now
from serving.gateway.watch import Watch
from serving.wire.feed import Beat, Opening, Until
from serving.wire.feed_socket import FeedClient
from serving.wire.feed_state import Event, Follower, Gap
from serving.wire.identity import client_tls

log = logging.getLogger(__name__)


class FeedIn:
    """One venue's feed, in the deciding thread."""

    def __init__(self, venue: str, config: VenueConfig, base: Path, watch: Watch) -> None:
        self.venue, self._watch = venue, watch
        self._timeless = config.feed_has_no_send_time
        self.follower = Follower(config.symbols)
        self.is_up = False
        self.heard_ns = 0  # monotonic; 0 for never
        self.gaps = 0
        self._client = FeedClient(config.feed.url, self.follower, self.take, tls=_tls(config.feed, base))
        self._task: asyncio.Task[None] | None = None
        self._alien = ""

    def start(self) -> None:
        """Follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name=f"feed {self.venue}")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def age_s(self) -> float:
        """Seconds since the feed said anything; infinite where it never did."""
        return (time.monotonic_ns() - self.heard_ns) / 1e9 if self.heard_ns else float("inf")

    def take(self, event: Event) -> None:
        """Take one event of the follower."""
        watch, venue = self._watch, self.venue
        if isinstance(event, Gap):
            self.gaps += 1
            self.is_up = bool(self.follower.books)
            watch.lose(venue, event.symbol, "unknown")
            return
        now = read_now()
        self.heard_ns = now.mono_ns
        if isinstance(event, Until):
            return
        if isinstance(event, Opening):
            self._alien = "" if event.venue == venue else f"the feed of {venue} says that it is {event.venue}"
            if self._alien:
                log.critical(self._alien)
                watch.gap(venue)
            return
        if self._alien:
            return
        watch.heard(venue, now.raw_utc_ns if self._timeless else event.sent_ns, now)
        if isinstance(event, Beat):  # no number is missing: what is known still stands, however quiet the symbol is
            watch.confirm(venue, self.follower.books, now)
            return
        self.is_up = True
        self._show(event.symbol, now)

    def show_all(self) -> None:
        """Tell the watch again what is known: it forgets prices when a day starts."""
        for symbol in () if self._alien else self.follower.books:
            self._show(symbol, read_now())

    @property
    def lag_s(self) -> float | None:
        """Seconds that the latest message was on its way; None where the feed does not say."""
        lag_ns = self._watch.gateway.live.feed(self.venue).lag_ns
        return None if lag_ns == UNKNOWN_LAG_NS else lag_ns / 1e9

    @property
    def is_late(self) -> bool:
        """Whether no price of it is a reference by the limits that hold for all, however lately it spoke: it lags,
        or it sends from ahead."""
        live, limits = self._watch.gateway.live, self._watch.gateway.state.limits
        lag_ns = live.feed(self.venue).lag_ns
        if limits is None:  # there is nothing yet to be late by, and nothing that passes
            return False
        numbers = limits.numbers["all", ""]
        most = numbers.get("max_feed_lag_ns")
        return most is None or lag_ns + abs(live.clock.offset_ns) > most or -lag_ns > numbers["max_clock_offset_ns"]

    def _show(self, symbol: str, now: Now) -> None:
        book, watch, venue = self.follower.books[symbol], self._watch, self.venue
        bid, _, ask, _ = book.best()
        if bid and ask:
            watch.quote(venue, symbol, bid, ask, now)
        else:
            watch.lose(venue, symbol)
        watch.volume(venue, symbol, min(book.volume_lots, LOTS_MAX))
        watch.status(venue, symbol, book.status)

    async def _follow(self) -> None:
        while True:
            try:
                await self._client.run()
            except Exception as error:  # nothing of a feed may end the gateway: without it everything is denied
                log.exception("the feed of %s failed", self.venue)
                for event in self.follower.disconnected(f"{type(error).__name__}: {error}"):
                    self.take(event)
                self._watch.gap(self.venue)
                await asyncio.sleep(1.0)


def _tls(config: FeedConfig, base: Path) -> ssl.SSLContext | None:
    if config.certificate is None or config.key is None or config.authority is None:
        return None
    return client_tls(base / config.certificate, base / config.key, base / config.authority)
