"""The images' health check: it asks the process that the container runs, where that process listens."""

import socket

import pytest
from prometheus_client import CollectorRegistry

from serving.decide.settings import DecideSettings
from serving.gateway.settings import GatewaySettings
from serving.observe.health import PORTS, VENUE_PORT, why_not_live
from serving.observe.metrics import MetricsServer, Probes
from serving.parents.settings import ParentsSettings
from training.market.venue.settings import VenueSettings

SETTINGS = {
    "serving.decide": DecideSettings,
    "serving.parents": ParentsSettings,
    "serving.gateway": GatewaySettings,
}


def test_ports_are_those_of_the_settings():
    assert set(PORTS) == set(SETTINGS)
    for name, kind in SETTINGS.items():
        prefix = kind.model_config["env_prefix"]
        assert PORTS[name] == (f"{prefix}METRICS_PORT", kind.model_fields["metrics_port"].default)
    assert ("SHORTFALL_VENUE_FEED_PORT", VenueSettings.model_fields["feed_port"].default) == VENUE_PORT


@pytest.mark.parametrize(("reason", "said"), [("", ""), ("the event loop stands still", "the event loop stands still")])
def test_process_when_asked_then_says_what_its_probe_says(reason, said):
    server = MetricsServer(CollectorRegistry(), Probes(live=lambda: reason, ready=lambda: "not yet"))
    server.start()
    try:
        command = "/usr/bin/tini\0--\0python\0-m\0serving.decide\0"
        assert why_not_live(command, {"SHORTFALL_DECIDE_METRICS_PORT": str(server.port)}) == said
    finally:
        server.stop()


def test_process_when_nothing_listens_then_is_not_live():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert why_not_live("sh\0-c\0exec python -m training.market.venue", {"SHORTFALL_VENUE_FEED_PORT": port}) == ""
    assert "refused" in why_not_live("python -m training.market.venue", {"SHORTFALL_VENUE_FEED_PORT": port})
    assert "refused" in why_not_live("python -m serving.gateway", {"SHORTFALL_GATEWAY_METRICS_PORT": port})


def test_process_when_it_has_nothing_to_be_asked_at_then_is_taken_for_live():
    assert why_not_live("python -m serving.mirror", {}) == ""
