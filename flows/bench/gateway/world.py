"""The world that the gateway is measured in: an armed gateway with limits in every scope, and orders that pass."""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from serving.contracts.orders import ChildOrder
from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.day import start_day
from serving.gateway.disk import AppendFile, Disk, RealDisk
from serving.gateway.engine import Gateway
from serving.gateway.events import Instrument, Locate
from serving.gateway.limits import KINDS, Limits
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.recovery import arm, open_gateway, reconcile
from serving.gateway.transport import VenueMessage
from serving.gateway.watch import Watch

SEED, SYMBOLS, STRATEGIES, ACCOUNTS, VENUE = 7, 1_000, 20, 4, "SIM"


class Sink:
    """A venue that takes everything and says nothing."""

    def send(self, message: VenueMessage) -> None:
        """See Transport."""

    def barrier(self) -> bool:
        """See Transport."""
        return True


class Unsynced(RealDisk):
    """A folder with the same writes, without waiting for the disk."""

    def append_to(self, name: str) -> AppendFile:
        """See Disk."""
        file = super().append_to(name)
        file.sync = lambda: None  # type: ignore[method-assign]
        return file


class Clock:
    """Time that passes 5 ms a reading, more than a window of orders takes, so that no message window fills."""

    def __init__(self) -> None:
        self.mono_ns, self.utc_ns = 1_000 * SECOND_NS, 1_772_413_200 * SECOND_NS

    def now(self) -> Now:
        """The time, a little later than before."""
        self.skip(5_000_000)
        return Now(self.mono_ns, self.utc_ns)

    def skip(self, ns: int) -> None:
        """Let time pass."""
        self.mono_ns += ns
        self.utc_ns += ns

    def commit(self, gateway: Gateway) -> None:
        """Make what was decided durable and send it."""
        gateway.commit(self.now())


class RealClock(Clock):
    """The machine's own clocks."""

    def now(self) -> Now:
        """Both clocks."""
        return Now(time.monotonic_ns(), time.time_ns())

    def skip(self, ns: int) -> None:
        """Wait."""
        time.sleep(ns / 1e9)


class Orders:
    """Random small orders around the market over all symbols and strategies, from one seed."""

    def __init__(self, sent_ns: int = 1_772_413_200 * SECOND_NS) -> None:
        self._rng, self._keys, self._sent_ns = random.Random(SEED), 0, sent_ns

    def take(self, count: int) -> list[ChildOrder]:
        """The next orders."""
        return [self._order() for _ in range(count)]

    def everywhere(self) -> list[ChildOrder]:
        """An order of each strategy in each symbol, to meet every place once."""
        return [self._order(strategy, symbol) for strategy in range(STRATEGIES) for symbol in range(SYMBOLS)]

    def _order(self, strategy: int | None = None, symbol: int | None = None) -> ChildOrder:
        rng = self._rng
        self._keys += 1
        buys = rng.random() < 0.5
        strategy = rng.randrange(STRATEGIES) if strategy is None else strategy
        symbol = rng.randrange(SYMBOLS) if symbol is None else symbol
        return ChildOrder(
            key=f"k{self._keys}",
            strategy=f"S{strategy}",
            account=f"A{strategy % ACCOUNTS}",
            algorithm="twap",
            trader="bench",
            sent_ns=self._sent_ns,
            venue=VENUE,
            symbol=f"X{symbol}",
            side="buy" if buys else "sell",
            type="limit",
            price_ticks=9_990 - rng.randrange(200) if buys else 10_010 + rng.randrange(200),
            lots=rng.randrange(1, 200),
            tif="day",
            reduce_only=False,
        )


def build(disk: Disk, clock: Clock | None = None) -> tuple[Gateway, Clock]:
    """An armed gateway with a day of SYMBOLS symbols and limits in every scope."""
    clock = clock or Clock()
    gateway = open_gateway(disk, Sink(), clock.now())
    watch = Watch(gateway)
    change = propose_limits(gateway, Limits.parse(limits_document()), "CN=One", clock.now())
    for person in ("CN=One", "CN=Two"):
        approve_limits(gateway, change.change, person, clock.now())
    now = clock.now()
    opens = datetime.fromtimestamp(now.utc_ns // SECOND_NS, UTC) - timedelta(hours=1)
    opens_ns = int(opens.timestamp()) * SECOND_NS
    start_day(
        gateway,
        opens.date().isoformat(),
        opens_ns,
        opens_ns + 20 * 3600 * SECOND_NS,
        tuple(Instrument(symbol=s, tick_value=10, mark_ticks=10_000, adv_lots=10**7) for s in symbols()),
        now,
        locates=tuple(Locate(account=account, symbol=s, lots=10**9) for account in accounts() for s in symbols()),
    )
    reconcile(gateway, lambda venue, order_id: None, {}, (), clock.now())
    arm(gateway, "CN=One", clock.now())
    clock.skip(2 * SECOND_NS)  # message windows are full after a start
    watch.heard(VENUE, clock.now().utc_ns, clock.now())
    for symbol in symbols():
        watch.quote(VENUE, symbol, 9_990, 10_010, clock.now())
        watch.status(VENUE, symbol, "open")
    for number in range(STRATEGIES):
        watch.connected(f"S{number}", clock.now())
    watch.clock_offset(0, clock.now())
    return gateway, clock


def symbols() -> list[str]:
    """All symbols."""
    return [f"X{number}" for number in range(SYMBOLS)]


def accounts() -> dict[str, list[str]]:
    """Each account's strategies."""
    return {f"A{a}": [f"S{s}" for s in range(STRATEGIES) if s % ACCOUNTS == a] for a in range(ACCOUNTS)}


def limits_document() -> dict[str, Any]:
    """Every limit in every scope where it may stand, wide enough that the benchmark's orders pass."""
    wide = {
        **dict.fromkeys(KINDS, 10**15),
        "duplicate_window_ns": 1_000_000,
        "max_messages_per_second": 100_000,
        "max_cancels_per_second": 100_000,
        "collar_bps": 500,
        "drift_collar_bps": 2_000,
    }

    def of(scope: str) -> dict[str, int]:
        return {limit: value for limit, value in wide.items() if scope in KINDS[limit].scopes}

    return {
        "version": 1,
        "venues": [VENUE],
        "accounts": accounts(),
        "limits": {
            "all": wide,
            "venue": {VENUE: of("venue")},
            "account": {account: of("account") for account in accounts()},
            "strategy": {f"S{number}": of("strategy") for number in range(STRATEGIES)},
            "symbol": {symbol: of("symbol") for symbol in symbols()},
        },
    }
