"""The gateway's Prometheus metrics, read from the state when they are scraped."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.gateway.admin_views import use_view
from serving.gateway.observing import Observing
from serving.observe.alerts import Alerts

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

PREFIX = "shortfall_gateway_"


class GatewayCollector(Collector):
    """Reads a running service. `shows_book`: positions, profit and use of limits too, which are not for everybody."""

    def __init__(self, service: "GatewayService", seen: Observing, alerts: Alerts, shows_book: bool = True) -> None:
        self._service, self._seen, self._alerts, self._shows_book = service, seen, alerts, shows_book

    def describe(self) -> list[Metric]:
        """Nothing beforehand: names come with the values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield from self._decisions()
        yield from self._standing()
        yield _gauge("open_orders", "In flight and working", len(self._service.gateway.state.open_orders))
        yield from self._venues()
        if self._shows_book:
            yield from self._book()
            yield from self._limits()

    def _decisions(self) -> Iterator[Metric]:
        seen = self._seen
        allowed = CounterMetricFamily(PREFIX + "allowed", "Requests that passed every control", labels=["request"])
        for what, count in seen.allowed.items():
            allowed.add_metric([what], count)
        yield allowed
        denied = CounterMetricFamily(PREFIX + "denied", "Requests denied, by control", labels=["control"])
        for control, count in seen.denied.copy().items():
            denied.add_metric([control], count)
        yield denied
        reports = CounterMetricFamily(PREFIX + "reports", "What venues reported", labels=["kind"])
        for kind, count in seen.reports.copy().items():
            reports.add_metric([kind], count)
        yield reports
        answer = HistogramMetricFamily(
            PREFIX + "answer_seconds", "From a group's first request until it is durable, sent and answered"
        )
        answer.add_metric([], seen.answer.buckets(), seen.answer.sum_us / 1e6)
        yield answer
        commit = HistogramMetricFamily(PREFIX + "commit_seconds", "Journal lag: to make a group durable and send it")
        commits = self._service.commits
        commit.add_metric([], commits.buckets(), commits.sum_us / 1e6)
        yield commit
        yield CounterMetricFamily(PREFIX + "groups", "Groups of decisions made durable together", value=seen.groups)
        for name in ("raised", "sent", "dropped", "failed"):
            yield CounterMetricFamily(f"{PREFIX}alerts_{name}", f"Alerts {name}", value=getattr(self._alerts, name))

    def _standing(self) -> Iterator[Metric]:
        service = self._service
        gateway, state = service.gateway, service.gateway.state
        yield _gauge("armed", "1 where new orders may pass", not (state.halted or gateway.broken))
        yield _gauge("broken", "1 where memory and disk are apart: restart", bool(gateway.broken))
        yield _gauge("reconciled", "1 where the book agrees with the venues'", state.reconciled)
        yield _gauge("day_open", "1 while a trading day is open", state.day_open)
        yield _gauge("reconciliation_breaks", "Breaks that the last reconciliation found", len(service.breaks))
        killed = GaugeMetricFamily(PREFIX + "killed", "1 for a killed scope", labels=["scope", "name"])
        tripped = GaugeMetricFamily(
            PREFIX + "tripped", "1 for a scope that a breaker stopped", labels=["scope", "name"]
        )
        killed.add_metric(["all", ""], state.all.killed)
        for node in list(state.nodes.values()):
            if node.killed and node.scope != "all":
                killed.add_metric([node.scope, node.name], 1)
            if node.tripped:
                tripped.add_metric([node.scope, node.name], 1)
        yield killed
        yield tripped
        journal = gateway.journal
        yield CounterMetricFamily(PREFIX + "journal_records", "Records on the disk", value=journal.sequence)
        yield _gauge("journal_pending", "1 while events are not on the disk yet", int(journal.has_pending))
        yield _gauge("journal_failed", "1 where the journal can no longer be written", bool(journal.failed))
        yield _gauge("epoch", "Of the writer: grows with each start", state.epoch)
        yield _gauge("clock_offset_seconds", "Measured offset from UTC", gateway.live.clock.offset_ns / 1e9)

    def _book(self) -> Iterator[Metric]:
        state = self._service.gateway.state
        names = ["account", "strategy", "symbol"]
        position = GaugeMetricFamily(PREFIX + "position_lots", "Position of a leg", labels=names)
        for leg_name, leg in state.legs.copy().items():
            position.add_metric(list(leg_name), leg.position)
        yield position
        realised = GaugeMetricFamily(
            PREFIX + "realised", "Today's realised profit, minor units", labels=["scope", "name"]
        )
        marked = GaugeMetricFamily(
            PREFIX + "unrealised", "Today's marked profit, minor units", labels=["scope", "name"]
        )
        for node in list(state.nodes.values()):
            if node.scope in ("all", "account", "strategy"):
                realised.add_metric([node.scope, node.name], node.realised)
                marked.add_metric([node.scope, node.name], node.unrealised)
        yield realised
        yield marked

    def _venues(self) -> Iterator[Metric]:
        service = self._service
        session = GaugeMetricFamily(
            PREFIX + "session_up", "1 where the probe finds the FIX session well", labels=["venue"]
        )
        drop = GaugeMetricFamily(PREFIX + "drop_copy_up", "1 where the drop copy is logged on", labels=["venue"])
        age = GaugeMetricFamily(PREFIX + "feed_age_seconds", "Since the feed said anything", labels=["venue"])
        lag = GaugeMetricFamily(
            PREFIX + "feed_lag_seconds", "From sending to arrival of the feed's latest message", labels=["venue"]
        )
        gaps = CounterMetricFamily(PREFIX + "feed_gaps", "Symbols lost by the feed", labels=["venue"])
        for name in service.venues:
            session.add_metric([name], not service.sessions[name].not_well)
            drop.add_metric([name], name in service.drops and service.drops[name].is_up)
            age.add_metric([name], service.feeds[name].age_s)
            lag_s = service.feeds[name].lag_s
            lag.add_metric([name], float("inf") if lag_s is None else lag_s)
            gaps.add_metric([name], service.feeds[name].gaps)
        yield from (session, drop, age, lag, gaps)
        lines = GaugeMetricFamily(
            PREFIX + "strategy_connected", "1 while the strategy's line is up", labels=["strategy"]
        )
        for name, beat in service.gateway.live.beats.copy().items():
            lines.add_metric([name], beat.connected)
        yield lines

    def _limits(self) -> Iterator[Metric]:
        use = GaugeMetricFamily(
            PREFIX + "limit_used_ratio", "How much of a limit that adds up is used", labels=["scope", "name", "limit"]
        )
        for item in use_view(self._service, symbols=False):
            if item["used_bps"] is not None:
                use.add_metric([item["scope"], item["name"], item["limit"]], item["used"] / item["most"])
        yield use


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))
