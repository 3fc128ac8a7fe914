"""The day's book takes two people, for exactly it; one may tighten it; journals from before stay readable."""

import msgspec
import pytest
from gateway_world import ACCOUNT, ANN, BOB, CLOSES_NS, EVE, SYMBOL, World, limits_of

from serving.gateway.approvals import APPROVAL_LASTS_NS, PROPOSALS_MAX
from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.day import Book, DayError, approve_day, end_day, propose_day, said_of_book, tighten_day
from serving.gateway.dump import decode_dump
from serving.gateway.events import DayTightened, Holding, Instrument, Locate, Proposed, decode_event, encode_event
from serving.gateway.live import SECOND_NS
from serving.gateway.people import PersonError
from serving.gateway.state import State

TOMORROW = "2026-03-03"


def book(**changes):
    one = Instrument(symbol=SYMBOL, tick_value=10, mark_ticks=10_000, adv_lots=10_000_000)
    values = {"instruments": (one,), "opens_ns": CLOSES_NS, "closes_ns": CLOSES_NS + 3600 * SECOND_NS, **changes}
    return Book(TOMORROW, **values)


@pytest.fixture()
def evening():
    """A world whose day is over, with 100 lots held."""
    world = World()
    world.hold(100)
    end_day(world.gateway, world.clock())
    return world


def propose(world, wanted=None, by=EVE):
    return propose_day(world.gateway, wanted or book(), by, world.clock())


def approve(world, change, by):
    return approve_day(world.gateway, change, by, world.clock())


def test_day_starts_with_the_second_person_and_says_what_differs(evening):
    proposed = propose(evening)
    differs = [f"{ACCOUNT}/S1/{SYMBOL}: 100 lots at the end of the day before, 0 now"]
    assert proposed.differs == differs and not evening.state.day_open
    assert approve(evening, proposed.change, ANN) is None and not evening.state.day_open
    assert approve(evening, proposed.change, BOB) == differs
    assert evening.state.day_open and evening.state.date == TOMORROW and not evening.state.proposals


@pytest.mark.parametrize("twin", ["CN=ANN, O=risk", "o=Risk,cn=ann", "CN=Ａｎｎ,O=Risk"])
def test_one_person_is_never_two_however_spelled(evening, twin):
    change = propose(evening).change
    approve(evening, change, ANN)
    with pytest.raises(PersonError, match="another person must"):
        approve(evening, change, twin)
    assert not evening.state.day_open


def test_proposals_of_one_person_that_wait_are_bounded_and_crowd_out_nobody_elses(evening):
    of_another = propose(evening, by=ANN).change
    changes = [propose(evening, book(closes_ns=CLOSES_NS + seconds * SECOND_NS)).change for seconds in range(1, 40)]
    assert list(evening.state.proposals) == [of_another, *changes[-PROPOSALS_MAX:]]
    propose(evening, book(closes_ns=CLOSES_NS + 39 * SECOND_NS))  # the last one again
    assert len(evening.state.proposals) == PROPOSALS_MAX + 1
    with pytest.raises(PersonError, match="not proposed"):
        approve(evening, changes[0], BOB)


def test_approval_is_for_one_exact_book(evening):
    loose = Instrument(symbol=SYMBOL, tick_value=1, mark_ticks=10_000, adv_lots=10**9, needs_locate=False)
    first, second = propose(evening).change, propose(evening, book(instruments=(loose,))).change
    assert first != second
    assert approve(evening, first, ANN) is None and approve(evening, second, BOB) is None
    assert not evening.state.day_open
    with pytest.raises(PersonError, match="not proposed"):
        approve(evening, "0" * 64, BOB)


def test_approval_expires_and_is_void_after_a_restart(evening):
    change = propose(evening).change
    approve(evening, change, ANN)
    evening.clock.pass_(APPROVAL_LASTS_NS / SECOND_NS + 1)
    with pytest.raises(PersonError, match="expired"):
        approve(evening, change, BOB)
    assert change not in evening.state.proposals
    change = propose(evening).change
    approve(evening, change, ANN)
    evening.disk.crash()
    evening.restart()
    with pytest.raises(PersonError, match="not proposed"):
        approve(evening, change, BOB)


def test_approval_is_void_once_what_is_held_is_another(evening):
    change = propose(evening).change
    approve(evening, change, ANN)
    evening.state.legs[ACCOUNT, "S1", SYMBOL].position -= 1  # as a late bust would
    with pytest.raises(PersonError, match="expired"):
        approve(evening, change, BOB)
    assert not evening.state.day_open


def test_book_that_cannot_start_is_refused_before_anybody_is_counted(evening):
    with pytest.raises(DayError, match="AIG is not among"):
        propose(evening, book(instruments=(), holdings=(Holding(account="A1", strategy="S1", symbol="AIG", lots=1),)))
    change = propose(evening, book(closes_ns=evening.clock.utc_ns + CLOSES_NS)._replace(closes_ns=CLOSES_NS + 1)).change
    evening.clock.utc_ns = CLOSES_NS + 2
    with pytest.raises((DayError, PersonError)):
        approve(evening, change, ANN)
    assert not evening.state.day_open


def test_no_day_is_proposed_while_one_is_open():
    with pytest.raises(DayError, match="still open"):
        propose(World())


def test_change_of_limits_is_no_change_of_the_day_and_neither_voids_the_other(evening):
    day = propose(evening).change
    limits = propose_limits(evening.gateway, limits_of(max_order_lots=10**16), ANN, evening.clock()).change
    with pytest.raises(PersonError, match="not proposed"):
        approve(evening, limits, ANN)
    with pytest.raises(PersonError, match="not proposed"):
        approve_limits(evening.gateway, day, ANN, evening.clock())
    approve(evening, day, ANN)
    assert [approve_limits(evening.gateway, limits, who, evening.clock()) for who in (ANN, BOB)] == [False, True]
    assert approve(evening, day, BOB) is not None


def test_words_of_a_book_name_what_is_looser_than_the_day_before():
    world = World(restricted=(SYMBOL,))
    end_day(world.gateway, world.clock())
    loose = Instrument(symbol=SYMBOL, tick_value=1, mark_ticks=10_000, adv_lots=10**9, needs_locate=False)
    words = said_of_book(world.state, msgspec.json.encode(book(instruments=(loose,))).decode())
    assert f"{SYMBOL} is no longer restricted" in words
    assert "tick_value 1 (was 10)" in words[1] and "needs_locate False (was True)" in words[1]


def tighter(**what):
    return DayTightened(utc_ns=0, by=ANN, **what)


def test_one_person_lowers_a_locate_at_once():
    world = World(locates=[Locate(account=ACCOUNT, symbol=SYMBOL, lots=500)])
    assert hasattr(world.send("sell", 400), "order_id")
    tighten_day(world.gateway, tighter(locates=(Locate(account=ACCOUNT, symbol=SYMBOL, lots=450),)), world.clock())
    assert world.send("sell", 100).control == "locate"


def test_one_person_lowers_volume_and_restricts_at_once_and_a_restart_keeps_it():
    world = World(limits_of(max_order_adv_bps=10))
    assert hasattr(world.send(lots=10_000), "order_id")
    tighten_day(world.gateway, tighter(adv_lots=((SYMBOL, 1_000_000),)), world.clock())
    assert world.send(lots=10_000).control == "order_adv"
    tighten_day(world.gateway, tighter(restricted=(SYMBOL,)), world.clock())
    assert world.send().control == "symbol_lists"
    world.disk.crash()
    world.restart()
    book = world.state.symbols[SYMBOL]
    assert book.restricted and book.instrument.adv_lots == 1_000_000


def test_locate_that_was_not_needed_is_needed_once_a_person_says_so():
    free = Instrument(symbol=SYMBOL, tick_value=10, mark_ticks=10_000, adv_lots=10**7, needs_locate=False)
    world = World(instruments=(free,), locates=[])
    assert hasattr(world.send("sell", 10), "order_id")
    tighten_day(world.gateway, tighter(needs_locate=(SYMBOL,)), world.clock())
    assert world.send("sell", 10).control == "locate"


@pytest.mark.parametrize(
    "looser",
    [
        {"adv_lots": ((SYMBOL, 10_000_001),)},
        {"locates": (Locate(account=ACCOUNT, symbol=SYMBOL, lots=10**9 + 1),)},
        {"locates": (Locate(account="A9", symbol=SYMBOL, lots=1),)},
        {"restricted": ("GONE",)},
    ],
)
def test_nothing_of_the_day_is_loosened_by_one_person(looser):
    world = World()
    before = world.state.hash()
    with pytest.raises(DayError):
        tighten_day(world.gateway, tighter(**looser), world.clock())
    assert world.state.hash() == before


def test_journal_from_before_there_were_kinds_reads_and_hashes_as_it_did():
    old = b'{"event":"proposed","utc_ns":5,"change":"c","document":"d","by":"cn=ann","expires_ns":9}'
    event = decode_event(old)
    assert isinstance(event, Proposed) and event.kind == "limits"
    state = State()
    state.apply(event)
    dumped = state.encoded()
    assert b"kind" not in dumped and b"access" not in dumped  # a snapshot of then has neither, and its hash must hold
    again = State()
    again.load(decode_dump(dumped))
    assert again.hash() == state.hash()
    assert decode_event(encode_event(event)) == event
