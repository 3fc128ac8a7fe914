"""What of the gateway people must hear of at once: events that are alerts, and conditions that become true."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.gateway import events as e
from serving.gateway.admin_views import use_view
from serving.observe.alerts import Alerts, Severity

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)
DENIALS_EVERY_S = 60.0
"""Denials of one control for one strategy are told once in this time, with how many there were."""
POLL_EVERY_S = 0.25
LIMITS_EVERY_S = 5.0
NEAR_BPS = 8_000
"""A limit that adds up is near when this much of it is used."""
FEED_OLD_S = 5.0


class Alerting:
    """`hear` takes events in the deciding thread and never waits; conditions are looked for in a thread of its own."""

    def __init__(self, service: "GatewayService", alerts: Alerts) -> None:
        self._service, self._alerts = service, alerts
        self.admin_ended: Callable[[], bool] = lambda: False
        self._true: set[str] = set()
        self._denied: dict[tuple[str, str], tuple[float, int]] = {}
        self._limits = 0.0
        self._near: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerting", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(POLL_EVERY_S + 1.0)

    def _run(self) -> None:
        while not self._stop.wait(POLL_EVERY_S):
            try:
                self.look()
            except Exception:  # whoever looks must not stop looking
                log.exception("looking for alerts failed")

    def hear(self, event: e.Event) -> None:
        """Alert where an event is one."""
        told = _of_event(event)
        if told is not None:
            severity, what, message = told
            self._alerts.raise_(severity, what, message)
        elif type(event) is e.Refused:
            self._deny(event)

    def look(self) -> None:
        """Alert where something has become wrong, or right again."""
        now = time.monotonic()
        wrong = self._conditions(now)
        for name in wrong.keys() - self._true:
            self._alerts.raise_("critical", name.partition(" ")[0], wrong[name])
        for name in self._true - wrong.keys():
            self._alerts.raise_("info", name.partition(" ")[0], f"{name} is well again")
        self._true = set(wrong)

    def _conditions(self, now: float) -> dict[str, str]:
        service, wrong = self._service, {}
        gateway = service.gateway
        if gateway.broken:
            wrong["broken"] = gateway.broken
        if gateway.disk_full:
            wrong["disk"] = gateway.disk_full
        if self.admin_ended():
            wrong["admin"] = "the admin plane has ended: `gateway kill` on the machine is the only command left"
        if stuck := service.pulse.why_not():
            wrong["stuck"] = stuck
        for name, session in service.sessions.items():
            if session.not_well and session.not_well != "not yet probed":
                wrong[f"session {name}"] = f"venue {name}: {session.not_well}"
        for name, feed in service.feeds.items():
            if feed.heard_ns and feed.age_s > FEED_OLD_S:
                wrong[f"feed {name}"] = f"the feed of {name} says nothing for {feed.age_s:.0f} s"
            elif feed.heard_ns and feed.is_late:
                lag_s = feed.lag_s
                how = "does not say when it sends"
                if lag_s is not None:
                    how = f"is {lag_s:.3f} s late" if lag_s >= 0 else f"sends from {-lag_s:.3f} s ahead"
                wrong[f"feed {name}"] = f"the feed of {name} {how}: no price of it is a reference"
        for name in service.venues:
            node = gateway.state.nodes.get(("venue", name))
            if node is not None and node.tripped:
                wrong[f"tripped venue {name}"] = f"venue {name} is stopped: {node.tripped}"
        if now - self._limits >= LIMITS_EVERY_S:
            self._limits, self._near = now, self._near_limits()
        return {**wrong, **self._near}

    def _near_limits(self) -> dict[str, str]:
        return {
            f"limit {item['scope']} {item['name']} {item['limit']}": f"{item['scope']} {item['name']}".strip()
            + f" uses {item['used']} of {item['limit']} {item['most']}"
            for item in use_view(self._service, symbols=False)  # symbols are too many while orders wait: see the page
            if item["used_bps"] is not None and item["used_bps"] >= NEAR_BPS
        }

    def _deny(self, event: e.Refused) -> None:
        now, key = time.monotonic(), (event.denied.control, event.request.strategy)
        told, count = self._denied.get(key, (-DENIALS_EVERY_S, 0))
        if now - told < DENIALS_EVERY_S:
            self._denied[key] = (told, count + 1)
            return
        more = f" ({count} more since the last alert)" if count else ""
        message = f"{event.request.strategy} was denied by {event.denied.control}: {event.denied.message}{more}"
        self._alerts.raise_("warning", "denial", message)
        self._denied[key] = (now, 0)


def _of_event(event: e.Event) -> tuple[Severity, str, str] | None:
    if isinstance(event, e.Killed):
        return "critical", "kill", f"{_place(event)} is killed by {event.by}: {event.reason}"
    if isinstance(event, e.Rearmed):
        return "warning", "kill", f"{_place(event)} is re-armed by {event.by}"
    if isinstance(event, e.LiquidationOrdered):
        return "warning", "liquidation", f"{event.by} orders {_place(event)} to be liquidated"
    if isinstance(event, e.Halted):
        return "critical", "halted", f"halted: {event.reason}"
    if isinstance(event, e.Armed):
        return "warning", "armed", f"armed by {event.by}"
    if isinstance(event, e.Reconciled) and event.breaks:
        return "critical", "reconciliation", f"{len(event.breaks)} breaks, the first one: {event.breaks[0]}"
    if isinstance(event, e.LimitsSet):
        return "warning", "limits", f"new limits hold: {event.why}"
    if isinstance(event, e.Proposed):
        what = {"limits": "looser limits", "day": "a day's book", "access": "more clients or people"}[event.kind]
        return "warning", event.kind, f"{event.by} proposes {what}: change {event.change}"
    if isinstance(event, e.DayTightened):
        return "warning", "day", f"the day is tightened by {event.by}"
    if isinstance(event, e.AccessSet):
        return "warning", "access", f"clients and people: {event.why}"
    if isinstance(event, e.Enabled):
        return "warning", "reset", f"{_place(event)} is reset by {event.by}"
    if isinstance(event, e.Unsent) and event.what != "cancel":
        return "warning", "unsent", f"order {event.order_id}, {event.what}: {event.reason}"
    return None


def _place(event: e.Killed | e.Rearmed | e.LiquidationOrdered | e.Enabled) -> str:
    return f"{event.scope} {event.name}".strip()
