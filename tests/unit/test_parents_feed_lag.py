"""The EMS sends nothing on a feed that lags, though none of it is missing; cancels go, and it goes on afterwards."""

import time

import numpy as np
import pytest
from ems_world import NS, Ems, policy, request, rules
from market_fixtures import make_day, open_ns, random_rows
from prometheus_client import CollectorRegistry, generate_latest

from serving.contracts.orders import Cancel
from serving.parents.core import Core
from serving.parents.metrics import Metrics
from serving.parents.pacing import Pacer
from serving.parents.records import Sent
from serving.parents.state import State
from serving.wire.feed import encode_feed
from serving.wire.feed_state import Follower, Publisher
from training.market.venue.depth_world import DepthWorld

WAIT, PLACE = 0, 1
START = open_ns() + 120 * NS
DAY = make_day(random_rows(np.random.default_rng(3), 1500, step_ns=NS))
LIMIT = 2 * NS


def sent(world):
    return [record.request for record in world.records if isinstance(record, Sent)]


@pytest.fixture()
def world():
    """An EMS 70 s into a parent of 600 s."""
    world = Ems(
        DepthWorld(DAY), DAY.instrument, lambda seen, mask: PLACE if mask[PLACE] else WAIT, policy(),
        start_ns=open_ns(),
    )  # fmt: skip
    world.core.submit(request(start_ns=START), 1)
    world.run(START + 70 * NS)
    assert sent(world)
    return world


def test_nothing_but_cancels_is_sent_while_the_feed_lags_and_the_parent_goes_on_afterwards(world):
    parent, before = world.core.state.parents[1], len(sent(world))
    world.core.on_lag(LIMIT + 1)
    world.run(START + 110 * NS)  # the day goes on and all of it is told
    assert all(isinstance(item, Cancel) for item in sent(world)[before:])
    assert "not known" in world.core.runs[1].waits_for and not parent.is_ended
    world.core.on_lag(LIMIT // 2 + 1)  # not well enough yet: it would come and go
    world.run(START + 112 * NS)
    assert all(isinstance(item, Cancel) for item in sent(world)[before:])
    world.core.on_lag(LIMIT // 2)
    world.run(START + 620 * NS)
    assert parent.how == "filled" and len(sent(world)) > before
    assert [alert.message for alert in world.alerts if alert.what == "feed_late"] == [
        "the feed is 2.000 s late: nothing is sent", "the feed is 1.000 s late: it is acted on again",
    ]  # fmt: skip


def test_fallback_waits_too_and_the_parent_ends_with_what_is_left_said(world):
    parent, before = world.core.state.parents[1], len(sent(world))
    world.core.on_lag(None)
    world.run(START + 640 * NS)
    assert parent.fallback and all(isinstance(item, Cancel) for item in sent(world)[before:])
    assert parent.how == "expired" and parent.left > 0


@pytest.fixture()
def line():
    """A publisher whose clock a test sets, a follower and the pacer of a core."""
    return Line()


class Line:
    def __init__(self, lockstep=False, timeless=False, paces=False):
        self.late_s = 0.0
        self.core = Core(rules(), {"T": DAY.instrument}, State(), "b1", 1)
        self.pacer = Pacer(self.core, lambda: None, 1.0, paces, 1.0, timeless)
        self.publisher = Publisher("TEST", "s1", ["T"], lockstep, utc_ns=self._utc_ns)
        self.follower = Follower(["T"])
        self.hear(encode_feed(self.publisher.opening))

    def _utc_ns(self):
        return 0 if self.late_s is None else time.time_ns() - int(self.late_s * NS)

    def hear(self, raw):
        for event in self.follower.take(raw):
            self.pacer.on_feed(event)

    def lost(self, late_s, what="beat"):
        self.late_s = late_s
        self.hear(self.publisher.beat(START) if what == "beat" else self.publisher.snapshot("T"))
        return self.core.is_late


def test_lag_is_judged_by_the_clock_on_the_wall_whatever_day_is_played(line):
    assert not line.lost(0.0, "snapshot") and not line.lost(1.5)
    assert line.lost(2.5) and line.lost(1.5)
    assert not line.lost(0.0)
    assert line.lost(-2.5)  # from ahead: one of the clocks is wrong
    assert not line.lost(0.0) and line.lost(None, "snapshot")


def test_feed_without_a_send_time_is_acted_on_where_the_settings_say_so():
    assert not Line(timeless=True).lost(None)


def test_nothing_is_late_in_lockstep_where_the_venue_waits_for_us_and_a_feed_cannot_say_so_by_itself():
    assert not Line(lockstep=True, paces=True).lost(60.0)
    assert Line(lockstep=True).lost(60.0)


def test_lag_is_a_metric(line):
    registry = CollectorRegistry()
    Metrics(registry, line.core)
    line.lost(3.0)
    said = generate_latest(registry).decode()
    assert "shortfall_parents_feed_late 1.0" in said and "shortfall_parents_feed_lag_seconds 3.0" in said
