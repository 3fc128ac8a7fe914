"""What a venue may do to the gateway: wrong, late and hostile reports, refusals, orders that nobody knows."""

import asyncio
import itertools
import threading

import pytest
import yaml
from black_hole import BlackHole
from fix_peers import until
from gateway_process import Desk
from gateway_served import Served
from scripted_venue import ASK, BID, FixAcceptor, ScriptedVenue

from serving.contracts.decisions import Allowed, Denied
from serving.contracts.orders import Acked, Cancelled, CancelRejected, Filled, Rejected, ReplaceRejected
from serving.wire.feed import Ask
from serving.wire.messages import CancelOrder, NewOrder, OrderState, ReplaceOrder, StatusOrder

_WORLDS = itertools.count(1)


class World:
    """A served gateway, armed, with a scripted venue behind it and a desk in front."""

    def __init__(self, folder, acceptor=FixAcceptor, **settings):
        self.served = Served(folder, limits=True, auto_arm=True, probe_s=0.1, probe_timeout_s=0.5, **settings)
        venues = self.served.files.folder / "venues.yaml"
        config = self.served.settings
        from serving.gateway.config import load_venues

        venue = load_venues(venues)["SYN"]
        feed_port = int(venue.feed.url.rpartition(":")[2])
        self._desks = []
        tail = str(next(_WORLDS))
        self.venue = ScriptedVenue(folder, venue.fix.port, feed_port, tail, acceptor)
        assert config.paper
        self.hole = BlackHole(venue.fix.port)
        document = yaml.safe_load(venues.read_text())
        fix, drop = document["venues"]["SYN"]["fix"], document["venues"]["SYN"]["drop_copy"]
        fix |= {"port": self.hole.port, "comp_id": self.venue.gateway, "peer": f"VENUE{tail}"}
        drop |= {"comp_id": self.venue.drop, "peer": f"VENUE{tail}"}
        venues.write_text(yaml.safe_dump(document))

    def __enter__(self):
        self.venue.__enter__()
        self.served.__enter__()
        gateway = self.served.gateway
        until(lambda: not gateway.state.halted, "arming")
        until(lambda: gateway.live.market("SYN", "SYN1").status == "open", "the feed")
        started_ns = gateway.live.started_ns
        until(lambda: gateway._now.mono_ns - started_ns > 1_100_000_000, "message windows that are not full")
        return self

    def __exit__(self, *details):
        self.served.__exit__(*details)
        self.venue.__exit__(*details)
        self.hole.close()

    @property
    def gateway(self):
        return self.served.gateway

    async def desk(self):
        desk = await Desk(self.served.files.client_token).open(self.served.service.ports["order"])
        self._desks.append(desk)
        return desk

    def run(self, coroutine):
        async def go():
            try:
                return await asyncio.wait_for(coroutine, 60)
            finally:  # a line that nobody closes is silent for long before the gateway notices
                while self._desks:
                    self._desks.pop().line.close("done")
                await asyncio.sleep(0.01)

        return asyncio.run(go())

    def sent(self, count=1):
        """The first orders that reached the venue."""
        until(lambda: len(self.venue.of(NewOrder)) >= count, "an order at the venue")
        return self.venue.of(NewOrder)

    def halted(self, words):
        until(lambda: words in self.gateway.state.halted, f"a halt for {words}")

    def fresh(self):
        """Nothing open, nothing heard, armed: as at the beginning, but for positions."""
        until(lambda: not self.gateway.state.open_orders, "cancels on disconnect")
        self.venue.heard.clear()
        self.venue.states.clear()
        self.venue.answers = self.venue.copies = True
        with self.served.client() as client:
            client.post("/v1/reset", json={"scope": "venue", "name": "SYN"})
            if self.gateway.state.halted:
                assert client.post("/v1/reconcile", json={}).json()["breaks"] == []
                assert client.post("/v1/arm", json={}).status_code == 200
        return self

    @property
    def position(self):
        return self.gateway.state.leg("main", "policy", "SYN1").position


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with World(tmp_path_factory.mktemp("lasting")) as world:
        yield world


@pytest.fixture()
def world(lasting):
    """For tests after which the gateway goes on."""
    return lasting.fresh()


@pytest.fixture()
def own_world(tmp_path):
    """For tests after which it does not."""
    with World(tmp_path) as world:
        yield world


def order_of(world, desk_orders=1, lots=5, price=BID):
    """Have an order acknowledged; gives it as the venue knows it."""

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=price, lots=lots))
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        return desk

    world.run(go())
    return world.sent(desk_orders)[-1]


def test_orders_flow_and_the_feed_is_the_gateways_own(world):
    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        order = world.sent()[0]
        world.venue.say("F", world.venue.state(order, "filled", 5), last=(BID, 5), fee=12)
        await desk.until(lambda: desk.of(Filled))
        denied = await desk.ask(desk.order(price=ASK * 2, lots=5))
        return desk.of(Filled)[0], denied

    filled, denied = world.run(go())
    assert (filled.lots, filled.price_ticks, filled.fee) == (5, BID, 12)
    assert denied.control == "collar" and Ask  # against the scripted feed's quote


def test_report_that_cannot_be_understood_halts(world):
    order = order_of(world)
    world.venue.copies = False
    world.venue.say("F", world.venue.state(order, "filled", 5), last=(BID, 5), exec_id="X" * 65)
    world.halted("cannot be understood")


def test_report_that_quickfix_itself_refuses_halts(world):
    """It is answered by a Reject and handed to nobody: a fill might be lost so."""
    order = order_of(world)
    world.venue.copies = False
    world.venue.say("F", world.venue.state(order, "filled", 5), last=(BID, 5), text="")
    world.halted("was refused: Tag specified without a value")


def test_report_of_another_symbol_or_side_halts(world):
    order, before = order_of(world), len(world.gateway.state.executions)
    world.venue.copies = False
    world.venue.say("F", world.venue.state(order, "filled", 5, side="sell"), last=(BID, 5))
    world.halted("reports order")
    assert len(world.gateway.state.executions) == before


def test_fill_beyond_the_order_stops_the_venue_and_a_person_resets(world):
    order = order_of(world)
    for _ in range(2):
        world.venue.say("F", world.venue.state(order, "filled", 5), last=(BID, 5))
    until(lambda: world.gateway.state.node("venue", "SYN").tripped, "the breaker")

    async def go():
        desk = await world.desk()
        denied = await desk.ask(desk.order(price=BID, lots=1))
        with world.served.client() as client:
            place = {"scope": "venue", "name": "SYN"}
            assert (await asyncio.to_thread(client.post, "/v1/reset", json=place)).status_code == 200
        return denied, await desk.ask(desk.order(price=BID, lots=1))

    denied, allowed = world.run(go())
    assert denied.control == "false_fills" and isinstance(allowed, Allowed)


def test_execution_that_comes_twice_counts_once(world):
    before, executions = world.position, len(world.gateway.state.executions)
    order = order_of(world)
    for _ in range(2):
        world.venue.say("F", world.venue.state(order, "partially_filled", 2), last=(BID, 2), exec_id="same")
    until(lambda: len(world.gateway.state.executions) == executions + 1, "the fill")
    until(lambda: world.position == before + 2, "the position")
    assert not world.gateway.state.node("venue", "SYN").tripped


def test_fill_after_a_confirmed_cancel_still_counts(world):
    before = world.position

    async def go():
        desk = await world.desk()
        request = desk.order(price=BID, lots=5)
        answer = await desk.allowed(request)
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        await desk.allowed(desk.withdraw(request.key))
        await desk.until(lambda: desk.of(Cancelled, answer.order_id))
        world.venue.say("F", world.venue.state(world.sent()[0], "filled", 5), last=(BID, 3))
        await desk.until(lambda: desk.of(Filled, answer.order_id))

    world.run(go())
    assert world.position == before + 3


def test_cancel_that_tells_of_fills_that_never_came_halts(world):
    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        world.venue.say("4", world.venue.state(world.sent()[0], "cancelled", 3))
        await asyncio.to_thread(world.halted, "with 3 lots filled, 0 here")

    world.run(go())


def test_bust_that_opens_a_done_order_again_halts(world):
    order = order_of(world)
    exec_id = world.venue.say("F", world.venue.state(order, "filled", 5), last=(BID, 5))
    until(lambda: ("SYN", exec_id) in world.gateway.state.executions, "the fill")
    world.venue.say("H", world.venue.state(order), exec_ref=exec_id)
    world.halted("holds 5 lots of order")
    world.venue.say("F", world.venue.state(order, "filled", 5), world.venue.drop, last=(BID, 5), exec_id="again")
    world.venue.say("H", world.venue.state(order), world.venue.drop, exec_ref="again")
    world.venue.say("H", world.venue.state(order), world.venue.drop, exec_ref=exec_id)


@pytest.mark.parametrize("kind", ["replaced", "rejected"])
def test_echo_of_an_answered_replace_is_no_answer_to_the_next(world, kind):
    async def go():
        desk = await world.desk()
        request = desk.order(price=BID, lots=5)
        answer = await desk.allowed(request)
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        order = world.sent()[0]
        book = world.gateway.state.orders[answer.order_id]

        async def replace(lots):
            await desk.allowed(desk.change(request.key, BID, lots))
            found = lambda: [asked for asked in world.venue.of(ReplaceOrder) if asked.lots == lots]  # noqa: E731
            until(found, "the replace")
            return found()[-1]

        def say(asked):
            if kind == "rejected":
                world.venue.refuse(asked.cl_ord_id, "G")
            else:
                state = world.venue.state(order, cl_ord_id=asked.cl_ord_id)._replace(
                    lots=asked.lots, left_lots=asked.lots
                )
                world.venue.say("5", state, orig=order.cl_ord_id)

        first = await replace(6)
        say(first)
        await asyncio.to_thread(until, lambda: not book.new_lots, "its answer")
        second = await replace(50)
        say(first)
        say(first)
        await asyncio.sleep(0.1)
        held = book.open_lots
        say(second)
        await asyncio.to_thread(until, lambda: not book.new_lots, "its answer")
        settled = book.open_lots
        world.venue.say("4", world.venue.state(order, "cancelled"))
        await desk.until(lambda: desk.of(Cancelled, answer.order_id))
        return held, settled

    held, settled = world.run(go())
    assert held == 50 and settled == (50 if kind == "replaced" else 5)
    assert not world.gateway.state.node("venue", "SYN").tripped


def test_business_reject_is_the_answer_to_its_order(world):
    world.venue.answers = False

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        world.venue.refuse(world.sent()[0].cl_ord_id)
        await desk.until(lambda: desk.of(Rejected, answer.order_id))
        return desk.of(Rejected, answer.order_id)[0]

    assert world.run(go()).reason == "not today"
    assert not world.gateway.state.open_orders


def test_session_reject_is_the_answer_to_the_order_replace_or_cancel_of_its_number(world):
    venue = world.venue
    world.venue.answers = False

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        venue.reject(venue.number(world.sent()[0]))
        await desk.until(lambda: desk.of(Rejected, answer.order_id))
        venue.answers = True
        request = desk.order(price=BID, lots=5)
        held = await desk.allowed(request)
        await desk.until(lambda: desk.of(Acked, held.order_id))
        venue.answers = False
        await desk.allowed(desk.change(request.key, BID, 6))
        await desk.until(lambda: venue.of(ReplaceOrder), "the replace")
        venue.reject(venue.number(venue.of(ReplaceOrder)[0]))
        await desk.until(lambda: desk.of(ReplaceRejected, held.order_id))
        order = world.gateway.state.orders[held.order_id]
        assert (order.open_lots, order.new_lots) == (5, 0)
        await desk.allowed(desk.withdraw(request.key))
        await desk.until(lambda: venue.of(CancelOrder), "the cancel")
        venue.answers = True  # what the gateway asks next it hears
        venue.reject(venue.number(venue.of(CancelOrder)[0]))
        await desk.until(lambda: desk.of(CancelRejected, held.order_id))
        return desk.of(Rejected, answer.order_id)[0], desk.of(CancelRejected, held.order_id)[0]

    rejected, cancel = world.run(go())
    assert rejected.reason == cancel.reason == "rejected by the session: required tag"
    assert not world.gateway.state.halted


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("status", "of type H: required tag"),
        ("999999", "rejected message 999999, which is not among those sent: required tag"),
        ("", "rejected message 0, which is not among those sent"),
    ],
)
def test_session_reject_of_something_else_halts(world, reference, words):
    if reference == "status":
        world.served.service.sessions["SYN"].ask_one(1, "SYN1", "buy", "why")
        until(lambda: world.venue.of(StatusOrder), "the question")
        reference = world.venue.number(world.venue.of(StatusOrder)[0])
    world.venue.reject(reference)
    world.halted(words)


def test_callback_that_raises_halts_and_only_cancels_leave(own_world):
    world = own_world
    order_of(world)
    session = world.served.service.sessions["SYN"]
    session.received = lambda peer, message: 1 / 0
    world.venue.say("0", world.venue.state(world.sent()[0]))
    world.halted("ZeroDivisionError")

    async def go():
        desk = await world.desk()
        return await desk.ask(desk.order(price=BID, lots=1))

    assert isinstance(world.run(go()), Denied)
    with world.served.client() as client:
        assert client.post("/v1/kill", json={"scope": "all"}).status_code == 200
    until(lambda: world.venue.of(CancelOrder), "the cancel")
    assert len(world.venue.of(NewOrder)) == 1


def test_order_that_a_kill_overtakes_never_leaves_and_its_sender_hears(world):
    """The scope is blocked at the last line while the deciding thread still works on what came before."""
    world.served.service.transport.blocks.add("strategy", "policy")

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        await desk.until(lambda: desk.of(Rejected, answer.order_id))
        return desk.of(Rejected, answer.order_id)[0]

    try:
        rejected = world.run(go())
    finally:
        world.served.service.transport.blocks.remove("strategy", "policy")
    assert rejected.reason == "unsent: strategy policy is being killed"
    assert not world.venue.of(NewOrder) and not world.gateway.state.open_orders


def test_order_that_waited_too_long_is_held_back_at_the_last_line(world, monkeypatch):
    gateway = world.gateway
    real = gateway.unanswered.sent_ns
    monkeypatch.setattr(gateway.unanswered, "sent_ns", lambda order, kind: (real(order, kind) or 0) - 3_000_000_000)

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        await desk.until(lambda: desk.of(Rejected, answer.order_id))
        return desk.of(Rejected, answer.order_id)[0]

    assert "max_send_age_ns" in world.run(go()).reason
    assert not world.venue.of(NewOrder)


def test_order_that_the_venue_holds_and_nobody_knows_is_cancelled_and_is_a_break(world):
    stranger = OrderState("9000", "V9", "SYN1", "buy", "new", BID, 5, 0, 5)
    world.venue.states["9000"] = stranger
    with world.served.client() as client:
        breaks = client.post("/v1/reconcile", json={}).json()["breaks"]
    assert "holds order 9000, which is not open here" in breaks[0]
    until(lambda: any(c.orig_cl_ord_id == "9000" for c in world.venue.of(CancelOrder)), "its cancel")
    world.venue.states.clear()
    with world.served.client() as client:
        assert client.post("/v1/reconcile", json={}).json() == {"reconciled": True, "breaks": []}


def test_order_that_a_half_open_line_swallowed_is_never_sent_again(own_world):
    """The gateway handed it over and believes that it left; FIX asks for it again when the line is back."""
    world = own_world
    order_of(world)
    until(lambda: not world.gateway.state.open_orders, "cancel on disconnect")
    world.hole.swallows = True

    async def go():
        desk = await world.desk()
        answer = await desk.allowed(desk.order(price=BID, lots=5))
        await asyncio.to_thread(until, lambda: b"35=D" in world.hole.swallowed, "the order on its way to nowhere")
        await asyncio.to_thread(world.halted, "did not answer a test request")
        world.hole.swallows = False
        world.hole.cut()
        await desk.until(lambda: desk.of(Rejected, answer.order_id))  # once the book was compared
        return desk.of(Rejected, answer.order_id)[0]

    assert "the venue does not know it" in world.run(go()).reason
    assert len(world.venue.of(NewOrder)) == 1
    until(lambda: not world.gateway.state.halted, "arming")
    assert world.gateway.state.reconciled


def test_drop_copy_that_disagrees_is_a_break(own_world):
    world = own_world
    order = order_of(world)
    until(lambda: not world.gateway.state.open_orders, "cancel on disconnect")
    world.venue.copies = False
    state = world.venue.state(order, "filled", 5)
    world.venue.say("F", state, last=(BID, 5), exec_id="mine")
    until(lambda: ("SYN", "mine") in world.gateway.state.executions, "the fill")
    with world.served.client() as client:
        breaks = client.post("/v1/reconcile", json={}).json()["breaks"]
        assert breaks == ["execution mine at venue SYN stands here, not in the drop copy"]
        world.venue.say("F", state, world.venue.drop, last=(BID, 4), exec_id="mine")
        breaks = client.post("/v1/reconcile", json={}).json()["breaks"]
        assert "is 5 lots" in breaks[0] and "4 at" in breaks[0]


def test_clearer_that_disagrees_is_a_break(world):
    with world.served.client() as client:
        held = world.position
        positions = [{"account": "main", "symbol": "SYN1", "lots": held + 7}]
        breaks = client.post("/v1/reconcile", json={"positions": positions}).json()["breaks"]
        assert breaks == [f"account main holds {held} lots of SYN1 here, {held + 7} at the clearer"]
        assert client.post("/v1/arm", json={}).status_code == 409  # a break is never armed over


def test_kill_over_a_venue_that_hangs_is_blocked_not_flushed(own_world):
    world = own_world
    hold = threading.Event()
    real, world.venue.received = world.venue.received, lambda *_: hold.wait(20)
    try:

        async def go():
            desk = await world.desk()
            await desk.allowed(desk.order(price=BID, lots=1))

        world.run(go())
        with world.served.client() as client:
            said = client.post("/v1/kill", json={"scope": "venue", "name": "SYN"}).json()
        assert said["message"] == "blocked, not flushed" and said["persisted"]
    finally:
        world.venue.received = real
        hold.set()


def test_bug_in_following_the_venue_halts(world, monkeypatch):
    order = order_of(world)

    def bug(service, came, now):
        raise KeyError("planted")

    with monkeypatch.context() as planted:
        planted.setattr("serving.gateway.service.follow", bug)
        world.venue.say("F", world.venue.state(order, "partially_filled", 1), last=(BID, 1))
        world.halted("what venue SYN said could not be followed: KeyError")


def test_bug_in_a_callback_of_the_deciding_thread_halts(world):
    def bug():
        raise KeyError("planted")

    world.served.service.deciding.loop.call_soon_threadsafe(bug)
    world.halted("KeyError: 'planted'")


def test_book_that_was_compared_while_something_halted_is_not_reconciled(world, monkeypatch):
    service = world.served.service
    halts, drop_copy = [], service.reconciler._drop_copy

    async def lost_meanwhile():
        halts.append(1)
        service.halt("a line is lost")
        return await drop_copy()

    with world.served.client() as client, monkeypatch.context() as planted:
        planted.setattr(service.reconciler, "_drop_copy", lost_meanwhile)
        found = client.post("/v1/reconcile", json={}).json()
        assert not found["reconciled"] and "while the book was compared" in found["breaks"][0]
        assert len(halts) == 3 and client.post("/v1/arm", json={}).status_code == 409
    with world.served.client() as client:
        assert client.post("/v1/reconcile", json={}).json() == {"reconciled": True, "breaks": []}


def test_session_that_is_lost_while_the_book_is_compared_is_reconciled_again_and_armed(own_world):
    service = own_world.served.service
    rounds, drop_copy = [], service.reconciler._drop_copy

    async def lost_meanwhile():
        rounds.append(1)
        if len(rounds) <= 3:
            service.halt("a line is lost")
            service._recover("the line is back")  # too early: what is being compared is too old
        return await drop_copy()

    service.reconciler._drop_copy = lost_meanwhile
    own_world.served.do(service.halt, "planted")
    own_world.served.do(service._recover, "the test")
    until(lambda: not own_world.gateway.state.halted, "arming")
    assert len(rounds) == 4


def test_journal_that_fails_behind_what_has_left_is_no_denial_of_it(own_world, monkeypatch):
    world, journal, transport = own_world, own_world.gateway.journal, own_world.served.service.transport
    sync, last_line = journal._file.sync, transport._last_line

    def fail_behind():
        if any(b'"unsent"' in item for item in journal._pending):
            raise OSError(28, "No space left on device")
        sync()

    def hold_back(session, message):
        return "planted" if getattr(message, "order", None) and message.order.lots == 2 else last_line(session, message)

    monkeypatch.setattr(journal._file, "sync", fail_behind)
    monkeypatch.setattr(transport, "_last_line", hold_back)

    async def go():
        desk = await world.desk()
        return await desk.ask(desk.order(price=BID, lots=1), desk.order(price=BID, lots=2))

    assert all(isinstance(answer, Allowed) for answer in world.run(go()))  # the first one works at the venue
    assert [order.lots for order in world.sent()] == [1] and "No space left" in world.gateway.broken
    until(lambda: world.venue.of(CancelOrder), "cancels without the journal")


def test_journal_that_fails_denies_cancels_and_says_so(own_world):
    world = own_world
    order_of(world)

    def fail():
        raise OSError(28, "No space left on device")

    world.gateway.journal._file.sync = fail

    async def go():
        desk = await world.desk()
        return await desk.ask(desk.order(price=BID, lots=1), desk.order(price=BID, lots=2))

    for denied in world.run(go()):
        assert denied.control == "journal" and "No space left" in denied.message
    until(lambda: world.venue.of(CancelOrder), "cancels without the journal")
    assert len(world.venue.of(NewOrder)) == 1
    with world.served.client() as client:
        assert "No space left" in client.get("/v1/state").json()["broken"]
        assert client.post("/v1/arm", json={}).status_code == 409
        said = client.post("/v1/kill", json={"scope": "all"}).json()
    assert said["message"].startswith("blocked, not persisted")
