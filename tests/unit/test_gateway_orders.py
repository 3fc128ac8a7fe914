"""The order port's server in one thread: groups, what a journal's failure means, what a line that comes again hears."""

import asyncio

from gateway_world import ACCOUNT, STRATEGY, World

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import Acked, Cancelled
from serving.gateway import order_server
from serving.gateway.journal import JournalError
from serving.gateway.kill import stop
from serving.gateway.order_server import OrderServer
from serving.wire.identity import Identity


class Line:
    """A ServerLine that keeps what it is sent; `takes` says whether the other end reads."""

    def __init__(self):
        self.identity = Identity("token 1", ACCOUNT, frozenset({STRATEGY}))
        self.sent, self.closed, self.takes, self.writes = [], "", True, 0

    @property
    def unread(self):
        return 0 if self.takes else 10**9

    @property
    def is_up(self):
        return not self.closed

    def send(self, *messages):
        self.writes += 1
        self.sent += messages

    def close(self, reason):
        self.closed = reason


def server_of(world, commit=None, group_max=256):
    server = OrderServer(world.gateway, world.watch, commit or world.gateway.commit, group_max)
    world.watch.clock_offset(0, order_server.read_now())
    return server


def opened(server, line):
    server.opened(line, line.identity)
    return line


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_requests_of_several_lines_are_made_durable_together_and_answered_in_one_write_each(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    commits = []
    server = server_of(world, lambda now: (commits.append(1), world.gateway.commit(now)))

    async def go():
        one, two = opened(server, Line()), opened(server, Line())
        one.writes = two.writes = 0
        server.requests(one, [world.order(), world.order()])
        server.requests(two, [world.order()])
        assert not one.sent and not two.sent  # nothing is told before it is durable
        await settle()
        return one, two

    one, two = asyncio.run(go())
    assert [type(item) for item in one.sent] == [Allowed, Allowed] and [type(item) for item in two.sent] == [Allowed]
    assert (one.writes, two.writes, len(commits)) == (1, 1, 1)


def test_kill_overtakes_what_waits_in_a_group_and_one_sync_holds_it_and_the_denials(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    commits, kills, decide = [], [], world.gateway.decide
    server = server_of(world, lambda now: (commits.append(1), world.gateway.commit(now)))
    server.overtaking = kills
    server.overtake = lambda: stop(world.gateway, "strategy", kills.pop(), "ann", "runaway", world.clock())

    def decide_then_kill(request, now):
        decision = decide(request, now)
        if isinstance(decision, Allowed):
            kills.append(STRATEGY)
        return decision

    monkeypatch.setattr(world.gateway, "decide", decide_then_kill)

    async def go():
        line = opened(server, Line())
        server.requests(line, [world.order(), world.order(), world.order(strategy="S2"), world.order()])
        await settle()
        return line

    first, *rest = asyncio.run(go()).sent
    assert isinstance(first, Allowed)
    assert [getattr(item, "control", "") for item in rest] == ["kill_switch", "", "kill_switch"]
    assert len(commits) == 1
    world.disk.crash()
    world.restart()
    assert world.state.node("strategy", STRATEGY).killed


def test_answers_leave_before_anybody_else_is_told(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    server, order = server_of(world), []
    server.publish = lambda: order.append("told")

    async def go():
        line = opened(server, Line())
        line.send = lambda *messages: order.append("answered")
        server.requests(line, [world.order()])
        await settle()

    asyncio.run(go())
    assert order == ["answered", "told"]


def test_group_is_bounded_and_the_rest_follows(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    commits = []
    server = server_of(world, lambda now: (commits.append(1), world.gateway.commit(now)), group_max=4)

    async def go():
        line = opened(server, Line())
        server.requests(line, [world.order() for _ in range(10)])
        await settle()
        return line

    line = asyncio.run(go())
    assert len(line.sent) == 10 and len(commits) == 3


def test_group_that_the_disk_refused_is_denied_but_for_what_was_durable_before(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    failing = []

    def commit(now):
        if failing:
            raise JournalError("planted")
        world.gateway.commit(now)

    server = server_of(world, commit)
    first, second = world.order(), world.order()

    async def go():
        line = opened(server, Line())
        server.requests(line, [first])
        await settle()
        failing.append(1)
        server.requests(line, [first, second, second])
        await settle()
        return line.sent

    durable, again, denied, twice = asyncio.run(go())
    assert again == durable and isinstance(again, Allowed)
    for answer in (denied, twice):
        assert isinstance(answer, Denied) and answer.control == "journal" and answer.key == second.key


def test_group_that_may_have_left_in_part_is_answered_with_nothing_and_halts(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)

    def commit(now):
        world.gateway.commit(now)
        raise KeyError("a bug behind the wire")

    server = server_of(world, commit, group_max=1)

    async def go():
        line, other = opened(server, Line()), opened(server, Line())
        line.sent.clear()
        server.requests(other, [world.order()])
        server.requests(other, [world.order()])
        await settle()
        return other

    line = asyncio.run(go())
    assert not line.sent and line.closed == "the gateway failed"
    assert "a bug behind the wire" in world.gateway.state.halted
    assert not server._inbox and len(world.venue.news()) == 1  # the second met the halt, and both were decided


def test_lines_that_bring_more_than_can_be_decided_are_not_read_until_half_of_it_is(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    monkeypatch.setattr(order_server, "INBOX_MAX", 8)
    server = server_of(world, group_max=4)
    steps = []

    class Held(Line):
        def hold(self):
            steps.append(("hold", len(server._inbox)))

        def go_on(self):
            steps.append(("go on", len(server._inbox)))

    async def go():
        line = opened(server, Held())
        server.requests(line, [world.order() for _ in range(9)])
        server.requests(line, [world.order() for _ in range(3)])
        await settle()
        return line

    line = asyncio.run(go())
    assert steps == [("hold", 9), ("go on", 4)] and len(line.sent) == 12


def test_line_that_comes_again_hears_all_in_order_however_slowly_it_reads(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    monkeypatch.setattr(order_server, "REPEAT_AT_ONCE", 3)
    monkeypatch.setattr(order_server, "REPEAT_EVERY_S", 0.001)
    server = server_of(world)

    async def go():
        request = world.order()
        decision = world.gateway.submit(request, world.clock())
        order = world.gateway.state.orders[decision.order_id]
        for ts in range(10):
            server.tell(order, Acked(order_id=order.id, ts_ns=ts))
        line = Line()
        line.takes = False
        opened(server, line)
        assert not line.sent
        server.tell(order, Cancelled(order_id=order.id, ts_ns=10))  # while the past is still being told
        line.takes = True
        for _ in range(200):
            await asyncio.sleep(0.001)
            if len(line.sent) >= 11:
                break
        server.tell(order, Cancelled(order_id=order.id, ts_ns=11))
        return line

    line = asyncio.run(go())
    assert [report.ts_ns for report in line.sent] == list(range(12))


def test_older_line_of_a_strategy_is_closed_and_its_end_cancels_nothing(monkeypatch):
    world = World()
    monkeypatch.setattr(order_server, "read_now", world.clock)
    server = server_of(world)

    async def go():
        older, newer = opened(server, Line()), Line()
        opened(server, newer)
        assert "newer line" in older.closed and not newer.closed
        server.closed(older, older.closed)
        assert world.gateway.live.beat(STRATEGY).connected
        server.closed(newer, "gone")
        assert not world.gateway.live.beat(STRATEGY).connected

    asyncio.run(go())
