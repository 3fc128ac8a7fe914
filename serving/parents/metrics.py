"""What the EMS shows of itself."""

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.contracts.decisions import Denied
from serving.contracts.orders import Filled
from serving.parents.core import Core
from serving.parents.orders import Phase
from serving.parents.outputs import Alert
from serving.parents.records import Answered, Decided, Ended, FellBack, Heard, Record, Sent, Shadowed, Taken

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """Counts what is recorded, and shows what stands."""

    def __init__(self, registry: CollectorRegistry, core: Core) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"shortfall_parents_{name}", what, labels, registry=registry)

        self.taken = counter("taken", "Parent orders taken", "source")
        self.ended = counter("ended", "Parent orders done", "how")
        self.decisions = counter("decisions", "Decisions of the policy", "held")
        self.shadowed = counter("shadow_decisions", "Decisions of the challenger", "failed")
        self.fallbacks = counter("fallbacks", "Parents that the fallback took over")
        self.requests = counter("requests", "Requests to the gateway", "kind")
        self.denied = counter("denied", "Requests that the gateway denied", "control")
        self.filled = counter("filled_lots", "Lots filled", "passive")
        self.alerts = counter("alerts", "Alerts", "what")
        self.decide_s = Histogram(
            "shortfall_parents_decide_seconds", "Until a policy answered", buckets=SECONDS, registry=registry
        )
        self.journal_s = Histogram(
            "shortfall_parents_journal_seconds", "Until a group of records was durable", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self._gauges(registry, core)
        lag = Gauge("shortfall_parents_feed_lag_seconds", "The feed's latest message was on its way", registry=registry)
        lag.set_function(lambda: float("nan") if core.feed_lag_ns is None else core.feed_lag_ns / 1e9)
        late = Gauge("shortfall_parents_feed_late", "1 while nothing is sent since the feed lags", registry=registry)
        late.set_function(lambda: float(core.is_late))
        Gauge("shortfall_parents_market_seconds", "Time of the market, UTC", registry=registry).set_function(
            lambda: core.now_ns / 1e9
        )

    @staticmethod
    def _gauges(registry: CollectorRegistry, core: Core) -> None:
        def at_work(phase: Phase) -> float:
            return float(sum(parent.phase is phase for parent in list(core.state.parents.values())))

        def known(symbol: str) -> float:
            return float(core.markets[symbol].is_known)

        parents = Gauge("shortfall_parents_parents", "Parents by where they stand", ("phase",), registry=registry)
        for phase in Phase:
            parents.labels(phase.name.lower()).set_function(partial(at_work, phase))
        lines = Gauge("shortfall_parents_line_up", "The line to the gateway is open", ("account",), registry=registry)
        for account in core.rules.accounts:
            lines.labels(account).set_function(partial(_number, core.lines.is_up, account))
        books = Gauge("shortfall_parents_book_known", "The book is known", ("symbol",), registry=registry)
        for symbol in core.markets:
            books.labels(symbol).set_function(partial(known, symbol))

    def follow(self, records: Sequence[Record]) -> None:
        """Count what was recorded."""
        for record in records:
            if isinstance(record, Sent):
                self.requests.labels(type(record.request).__name__.lower()).inc()
            elif isinstance(record, Answered):
                if isinstance(record.decision, Denied):
                    self.denied.labels(record.decision.control).inc()
            elif isinstance(record, Heard):
                if isinstance(record.report, Filled):
                    self.filled.labels(str(record.passive).lower()).inc(record.report.lots)
            elif isinstance(record, Decided):
                self.decisions.labels(str(bool(record.held)).lower()).inc()
            elif isinstance(record, Shadowed):
                self.shadowed.labels(str(bool(record.error)).lower()).inc()
            elif isinstance(record, FellBack):
                self.fallbacks.inc()
            elif isinstance(record, Taken):
                self.taken.labels(record.source).inc()
            elif isinstance(record, Ended):
                self.ended.labels(record.how).inc()

    def alerted(self, alert: Alert) -> None:
        """Count an alert."""
        self.alerts.labels(alert.what).inc()


def _number(ask: Callable[[str], bool], name: str) -> float:
    return float(ask(name))
