"""Everything of the gateway's process: the service, and what shows and commands it (admin plane, metrics, alerts)."""

import logging

from serving.gateway.admin import create_app
from serving.gateway.admin_server import AdminServer
from serving.gateway.alerting import Alerting
from serving.gateway.config import read_token
from serving.gateway.gateway_metrics import GatewayCollector
from serving.gateway.observing import Observing
from serving.gateway.service import GatewayService
from serving.gateway.settings import GatewaySettings
from serving.observe.alerts import Alerts
from serving.observe.metrics import MetricsServer, Probes, new_registry
from serving.wire.identity import is_loopback

log = logging.getLogger(__name__)


class GatewayProcess:
    """Starts and stops the parts in order. Made and run in the deciding thread."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Bind every port and take the journal. Raises what `GatewayService` does, OSError for a port."""
        self.service = service = GatewayService(settings)
        token = "" if settings.alert_token_file is None else read_token(settings.alert_token_file)
        self.alerts = Alerts("gateway", settings.alert_url, token)
        self.seen = Observing(service.gateway.state)
        self.alerting = Alerting(service, self.alerts)
        service.listeners += [self.seen.hear, self.alerting.hear]
        service.orders.took_ns = self.seen.took
        registry = new_registry()
        scrape = "" if settings.metrics_token_file is None else read_token(settings.metrics_token_file)
        shows_book = bool(scrape) or is_loopback(settings.metrics_host)
        registry.register(GatewayCollector(service, self.seen, self.alerts, shows_book))
        self.admin_app = create_app(service, self.seen)
        self.admin = AdminServer(self.admin_app, settings.admin_host, settings.admin_port, settings.tls())
        self.alerting.admin_ended = lambda: self.admin.has_ended
        self.metrics = MetricsServer(
            registry, Probes(live=service.pulse.why_not, ready=self._ready), settings.metrics_host,
            settings.metrics_port, scrape,
        )  # fmt: skip
        service.ports |= {"admin": self.admin.port, "metrics": self.metrics.port}

    async def run(self) -> None:
        """Serve until a signal comes or `service.stop` is called."""
        self.alerts.start()
        try:
            await self.service.run(ready=self._start)
        finally:
            self.alerting.stop()
            self.admin.stop()
            self.metrics.stop()
            self.alerts.stop()

    def _start(self) -> None:
        self.admin.start()
        self.metrics.start()
        self.alerting.start()

    def _ready(self) -> str:
        """Ready for cancels and for people: also while halted, since both must still be possible then."""
        if self.service.stopping:
            return "the gateway is stopping"
        if self.service.gateway.broken:
            return self.service.gateway.broken
        return "" if self.admin.is_up else "the admin plane does not serve"
