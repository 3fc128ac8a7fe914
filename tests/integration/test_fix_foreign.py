"""A foreign FIX engine at both doors: as a client of the paper venue, and as the venue of the gateway."""

import asyncio
import threading
import time

import pytest
from black_hole import BlackHole
from fix_foreign import ForeignAcceptor, ForeignEnd
from fix_peers import free_port, until
from parents_process import FIX_TOKEN
from scripted_venue import BID
from test_gateway_venue import World, order_of
from test_parents_inbound import Nowhere, fix_settings, served

from serving.contracts.orders import Acked, Cancelled, Filled
from serving.wire.fix_numbers import utc_text
from serving.wire.messages import NewOrder
from training.market.venue.days import synthetic_listings
from training.market.venue.received import read_received
from training.market.venue.service import VenueService
from training.market.venue.settings import VenueSettings

SYMBOL = "SYN1"


class OpenVenue:
    """The paper venue in a thread, in real time, and a relay before its FIX port."""

    def __init__(self, folder):
        ports = {"fix_port": free_port(), "feed_port": free_port()}
        self.settings = VenueSettings(
            folder=folder / "venue", hours=0.2, peers=["TRADES", "LOSES", "CUT", "RESETS"], **ports
        )
        self.service = VenueService(self.settings, synthetic_listings([SYMBOL], "2025-01-06", 0.2, 7, 0.6))
        self.hole = BlackHole(self.settings.fix_port)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.service.run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        until(lambda: self.service._loop is not None and self.service.ready.is_set(), "the venue")
        return self

    def __exit__(self, *_):
        self.hole.close()
        self.service.stop()
        self._thread.join(30)
        assert not self.service.failure

    def received(self, what):
        return [line for line in read_received(self.settings.folder / "received.jsonl") if line["what"] == what]


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    with OpenVenue(tmp_path_factory.mktemp("open")) as venue:
        yield venue


def client_of(venue, peer, folder, more=""):
    return ForeignEnd("initiator", peer, ("VENUE",), venue.hole.port, folder, more)


def order(own, price="99.60", lots=10, **more):
    fields = {1: "main", 11: own, 38: lots, 40: 2, 44: price, 54: 1, 55: SYMBOL, 59: 0, 60: utc_text(time.time_ns())}
    fields |= {5701: "a", 5702: "rule", 50: "ada"} | {int(tag): value for tag, value in more.items()}
    return [(tag, value) for tag, value in fields.items() if value is not None]


def asked(own, orig=None, **more):
    fields = {11: own, 41: orig, 54: 1, 55: SYMBOL, 60: utc_text(time.time_ns())} | more
    return [(tag, value) for tag, value in fields.items() if value is not None]


def report(client, exec_type, own):
    return client.wait("8", lambda values: values["150"] == exec_type and values["11"] == own)


def told(client):
    return [(m["150"], m["11"], m.get("43", "N")) for m in client.came if m["35"] == "8"]


def test_foreign_client_trades_with_the_venue(venue, tmp_path):
    with client_of(venue, "TRADES", tmp_path) as client:
        until(lambda: client.is_up("VENUE"), "logon")
        client.send("VENUE", "D", order("1"))
        assert report(client, "0", "1")["151"] == "10"
        client.send("VENUE", "G", [*order("1-2", price="99.59", lots=12), (41, "1")])
        replaced = report(client, "5", "1-2")
        assert (replaced["41"], replaced["38"], replaced["44"]) == ("1", "12", "99.59")
        client.send("VENUE", "H", [*asked("1-2"), (790, "S1")])
        assert report(client, "I", "1-2")["790"] == "S1"
        client.send("VENUE", "F", asked("1-3", "1-2"))
        assert report(client, "4", "1-3")["39"] == "4"
        client.send("VENUE", "F", asked("1-4", "1-2"))
        assert client.wait("9")["434"] == "1"
        client.send("VENUE", "D", order("2", **{"40": 1, "44": None, "59": 3}))
        report(client, "F", "2")
        until(lambda: [m for m in client.came if m.get("11") == "2" and m["39"] in "24"], "the end of a market order")
        client.send("VENUE", "AF", [(584, "M1"), (585, 7)])
        assert client.wait("8", lambda values: values.get("584") == "M1")["911"] == "0"
        client.send_admin("VENUE", "1", [(112, "alive?")])
        client.wait("0", lambda values: values.get("112") == "alive?")
        client.send("VENUE", "D", order("3", price="99.605"))
        assert "decimals" in client.wait("j")["58"]
        client.log_out()
        client.wait("5")
        until(lambda: not client.is_up("VENUE"), "logout")
        assert not [m for m in client.sent if m["35"] == "3"]  # all that came stood its dictionary


def test_orders_lost_on_the_way_to_the_venue_are_asked_for_and_taken_once(venue, tmp_path):
    with client_of(venue, "LOSES", tmp_path) as client:
        until(lambda: client.is_up("VENUE"), "logon")
        client.send("VENUE", "D", order("11"))
        report(client, "0", "11")
        client.lose = True
        client.send("VENUE", "D", order("12"))
        client.send("VENUE", "D", order("13"))
        client.lose = False
        client.send("VENUE", "D", order("14"))
        report(client, "0", "14")
        assert [own for kind, own, _ in told(client) if kind == "0"] == ["11", "12", "13", "14"]
        asked_again = client.wait("2")
        assert int(asked_again["7"]) > 1
    seen = [line["cl_ord_id"] for line in venue.received("NewOrder")]
    assert [own for own in seen if own in ("11", "12", "13", "14")] == ["11", "12", "13", "14"]


def test_reports_missed_while_the_line_was_cut_come_again_once(venue, tmp_path):
    with client_of(venue, "CUT", tmp_path) as client:
        until(lambda: client.is_up("VENUE"), "logon")
        client.send("VENUE", "D", order("21"))
        report(client, "0", "21")
        client.send("VENUE", "D", order("22", **{"40": 1, "44": None, "59": 3}))
        client.drop("VENUE")
        until(lambda: len(client.ups) == 2, "a second logon")
        until(lambda: [m for m in client.came if m.get("11") == "22" and m["39"] in "24"], "the end of the order")
        client.send("VENUE", "F", asked("21-9", "21"))
        report(client, "4", "21-9")
        execs = [m["17"] for m in client.came if m["35"] == "8"]
        assert len(execs) == len(set(execs))
        numbers = [int(m["34"]) for m in client.came]
        assert numbers == sorted(set(numbers))


def test_numbers_that_a_foreign_client_sets_forward_or_to_one_are_followed(venue, tmp_path):
    with client_of(venue, "RESETS", tmp_path, "ResetOnLogon=Y") as client:
        until(lambda: client.is_up("VENUE"), "logon")
        client.skip_to("VENUE", 500)
        client.send("VENUE", "D", order("31"))
        report(client, "0", "31")
        assert client.sent[-1]["34"] == "500"
        client.drop("VENUE")
        until(lambda: len(client.ups) == 2, "a second logon")
        logons = [m for m in client.admin if m["35"] == "A"]
        assert [(m["34"], m["141"]) for m in logons] == [("1", "Y"), ("1", "Y")]
        client.send("VENUE", "F", asked("31-9", "31"))
        assert report(client, "4", "31-9")["34"] == "2"
        assert client.sent[-1]["34"] == "2"


def test_foreign_client_sends_the_ems_a_parent_and_takes_it_back(tmp_path):
    async def run():
        async with served(fix_settings(tmp_path / "ems", Nowhere(), decide_wait_s=0.0)) as service:
            client = ForeignEnd("initiator", "OMS", ("PARENTS",), service.ports["fix"], tmp_path)
            client.password = FIX_TOKEN
            return await asyncio.to_thread(talk, client)

    def talk(client):
        with client:
            until(lambda: client.is_up("PARENTS"), "logon")
            soon = time.time_ns() + 600 * 1_000_000_000
            parent = {"40": 1, "44": None, "59": None, "847": 1001, "126": utc_text(soon)}
            parent["168"] = utc_text(soon - 60 * 1_000_000_000)
            client.send("PARENTS", "D", order("P1", **parent))
            report(client, "0", "P1")
            client.send("PARENTS", "H", [*asked("P1"), (790, "S1")])
            assert report(client, "I", "P1")["790"] == "S1"
            client.send("PARENTS", "F", asked("P2", "P1"))
            assert report(client, "4", "P2")["41"] == "P1"
            client.send("PARENTS", "F", asked("P3", "P1"))
            assert client.wait("9")["434"] == "1"
            assert not [m for m in client.sent if m["35"] == "3"]

    asyncio.run(run())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("foreign"), acceptor=ForeignAcceptor) as world:
        yield world


def test_gateway_trades_with_a_foreign_venue(world):
    async def go():
        desk = await world.desk()
        request = desk.order(price=BID, lots=5)
        answer = await desk.allowed(request)
        await desk.until(lambda: desk.of(Acked, answer.order_id))
        first = world.sent()[-1]
        world.venue.say("F", world.venue.state(first, "partially_filled", 2), last=(BID, 2))
        await desk.until(lambda: desk.of(Filled, answer.order_id))
        await desk.allowed(desk.withdraw(request.key))
        await desk.until(lambda: desk.of(Cancelled, answer.order_id))

    world.run(go())
    assert world.position == 2
    with world.served.client() as client:
        assert client.post("/v1/reconcile", json={}).json() == {"reconciled": True, "breaks": []}
    engine = world.venue._acceptor
    assert not [m for m in engine.sent if m["35"] == "3"]  # every message stood the foreign engine's dictionary
    assert [m for m in engine.admin if m["35"] == "1"]  # and the probe's test requests were answered by it


def test_fills_lost_on_the_way_from_a_foreign_venue_are_asked_for_and_counted_once(world):
    engine, before = world.venue._acceptor, world.position
    first = order_of(world.fresh())
    engine.lose = True
    world.venue.say("F", world.venue.state(first, "partially_filled", 2), last=(BID, 2))
    engine.lose = False
    world.venue.say("F", world.venue.state(first, "filled", 5), last=(BID, 3))
    until(lambda: world.position == before + 5, "both fills")
    assert [m for m in engine.admin if m["35"] == "2"]
    assert not world.gateway.state.node("venue", "SYN").tripped


def test_order_to_a_foreign_venue_is_never_repeated_and_its_line_comes_back(world):
    world.fresh()
    first, engine = order_of(world), world.venue._acceptor
    until(lambda: not world.gateway.state.open_orders, "cancel on disconnect")
    gateway = world.venue.gateway
    engine.send_admin(gateway, "2", [(7, 1), (16, 0)])  # from the beginning, please
    engine.send_admin(gateway, "1", [(112, "after")])
    engine.wait("0", lambda values: values.get("112") == "after")
    again = [line for line in engine.lines(gateway) if "|43=Y|" in line]  # FIXcore itself passes over what it knows
    assert [line for line in again if "|35=4|" in line] and not [line for line in again if "|35=D|" in line]
    engine.drop(gateway)
    until(lambda: world.gateway.state.halted, "a halt")
    until(lambda: engine.ups.count(gateway) == 2 and not world.gateway.state.halted, "arming")
    assert [order.cl_ord_id for order in world.venue.of(NewOrder)].count(first.cl_ord_id) == 1
    with world.served.client() as client:
        assert client.post("/v1/kill", json={"scope": "all"}).json()["message"] == "blocked, flushed"
