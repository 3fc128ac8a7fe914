"""What people hear of the gateway, how often, and that a limit nearly used is said before it is reached."""

from types import SimpleNamespace

import pytest
from gateway_world import ANN, World

from serving.gateway import alerting as module
from serving.gateway.alerting import Alerting
from serving.gateway.events import Halted, Refused
from serving.gateway.kill import kill
from serving.observe.metrics import Pulse


class Heard:
    """Stands for the webhook."""

    def __init__(self):
        self.said = []

    def raise_(self, severity, what, message, **fields):
        self.said.append((severity, what, message))

    def of(self, what):
        return [item for item in self.said if item[1] == what]


@pytest.fixture()
def world(monkeypatch):
    monkeypatch.setattr(module, "LIMITS_EVERY_S", 0.0)
    world = World()
    session, feed = SimpleNamespace(not_well=""), SimpleNamespace(heard_ns=1, age_s=0.1, is_late=False)
    world.service = SimpleNamespace(
        gateway=world.gateway, sessions={"SIM": session}, feeds={"SIM": feed}, venues={"SIM": None},
        pulse=Pulse("the deciding thread", 60.0),
    )  # fmt: skip
    world.heard = Heard()
    world.alerting = Alerting(world.service, world.heard)
    world.gateway._listener = world.alerting.hear
    return world


def test_kill_and_halt_are_critical_and_name_who(world):
    kill(world.watch, "strategy", "S1", ANN, "runaway", world.clock())
    world.alerting.hear(Halted(utc_ns=1, reason="test"))
    assert ("critical", "kill", f"strategy S1 is killed by {ANN}: runaway") in world.heard.said
    assert ("critical", "halted", "halted: test") in world.heard.said


def test_denials_of_a_control_are_told_once_in_a_while_with_their_number(world, monkeypatch):
    times = iter([0.0, 1.0, 2.0, 61.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    denied = world.gateway.decide(world.order(price=20_000), world.clock())
    assert denied.control == "collar"
    event = Refused(utc_ns=1, request=world.order(price=20_000), denied=denied)
    for _ in range(3):
        world.alerting.hear(event)
    said = world.heard.of("denial")
    assert len(said) == 2 and said[1][2].endswith("(2 more since the last alert)")


def test_condition_is_told_when_it_comes_and_when_it_goes(world):
    world.alerting.look()
    assert not world.heard.said
    world.service.sessions["SIM"].not_well = "the session is down"
    world.service.feeds["SIM"].age_s = 9.0
    world.alerting.look()
    world.alerting.look()
    assert {item[:2] for item in world.heard.said} == {("critical", "session"), ("critical", "feed")}
    world.service.sessions["SIM"].not_well = ""
    world.alerting.look()
    assert world.heard.said[-1] == ("info", "session", "session SIM is well again")


def test_end_of_the_admin_plane_is_told(world):
    world.alerting.admin_ended = lambda: True
    world.alerting.look()
    assert [item[:2] for item in world.heard.said] == [("critical", "admin")]


def test_limit_that_is_nearly_used_is_told(world):
    from gateway_world import limits_of

    world.set_limits(limits_of(max_open_orders=5))
    for number in range(4):
        world.gateway.submit(world.order(price=9_980 + number), world.clock())
    world.alerting.look()
    assert world.heard.of("limit") == [("critical", "limit", "all uses 4 of max_open_orders 5")]


def test_deciding_thread_that_stands_still_and_a_stopped_venue_are_told(world):
    world.service.pulse = Pulse("the deciding thread", -1.0)
    world.gateway.state.node("venue", "SIM").tripped = "false fills"
    world.alerting.look()
    assert {item[1] for item in world.heard.said} == {"stuck", "tripped"}
