"""The limits' document is strict, the tightest applies, and loosening takes two people and one exact change."""

import copy

import msgspec
import pytest
from gateway_world import ANN, BOB, EVE, SYMBOL, WIDE, World, limits_of

from serving.contracts.orders import INT64_MAX
from serving.gateway.approvals import APPROVAL_LASTS_NS
from serving.gateway.changes import approve_limits, propose_limits
from serving.gateway.limits import KINDS, Limits, LimitsError
from serving.gateway.live import SECOND_NS
from serving.gateway.people import PersonError, person

SOUND = limits_of(
    scopes={
        "venue": {"SIM": {"max_order_lots": 900}},
        "account": {"A1": {"max_credit": 10**9, "allowed_symbols": [SYMBOL, "MSFT"]}},
        "strategy": {"S1": {"max_order_lots": 100, "restricted_symbols": ["XOM"]}},
        "symbol": {SYMBOL: {"max_position_lots": 500}},
    }
).document()


def changed(path, value):
    document = copy.deepcopy(SOUND)
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_document_comes_back_whatever_its_layout():
    import yaml

    limits = Limits.parse(SOUND)
    assert Limits.load(yaml.safe_dump(SOUND)) == limits
    assert Limits.parse(msgspec.json.decode(limits.canonical())).canonical() == limits.canonical()
    backwards = {key: SOUND[key] for key in reversed(SOUND)}
    assert Limits.parse(backwards).canonical() == limits.canonical()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("version",), 2, "version"),
        (("version",), True, "version"),
        (("extra",), 1, "extra"),
        (("venues",), "SIM", "venues"),
        (("venues",), ["SIM", "SIM"], "venues"),
        (("accounts",), ["A1"], "accounts"),
        (("accounts", "A1"), "S1", "A1"),
        (("accounts", "A1"), [1], "A1"),
        (("limits", "everything"), {}, "everything"),
        (("limits", "all", "max_order_lots"), KeyError, "max_order_lots"),
        (("limits", "all", "max_orderlots"), 5, "max_orderlots"),
        (("limits", "all", "max_order_lots"), -1, "max_order_lots"),
        (("limits", "all", "max_order_lots"), 1.5, "max_order_lots"),
        (("limits", "all", "max_order_lots"), float("nan"), "max_order_lots"),
        (("limits", "all", "max_order_lots"), float("inf"), "max_order_lots"),
        (("limits", "all", "max_order_lots"), True, "max_order_lots"),
        (("limits", "all", "max_order_lots"), "5", "max_order_lots"),
        (("limits", "all", "max_order_lots"), None, "max_order_lots"),
        (("limits", "all", "max_order_lots"), INT64_MAX + 1, "max_order_lots"),
        (("limits", "all", "max_messages_per_second"), 100_001, "max_messages_per_second"),
        (("limits", "all", "restricted_symbols"), ["X"], "restricted_symbols"),
        (("limits", "venue", "SIM", "max_position_lots"), 5, "max_position_lots"),
        (("limits", "strategy", "S1", "max_credit"), 5, "max_credit"),
        (("limits", "symbol", SYMBOL, "max_messages_per_second"), 5, "max_messages_per_second"),
        (("limits", "symbol"), [], "symbol"),
        (("limits", "symbol", SYMBOL), 5, "symbol"),
        (("limits", "strategy", ""), {}, "strategy"),
        (("limits", "all"), KeyError, "all"),
    ],
)
def test_document_when_an_entry_is_wrong_then_names_it(path, value, words):
    with pytest.raises(LimitsError, match=words):
        Limits.parse(changed(path, value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nversion: 1\n", "twice"),
        ("1: 2\n", "not text"),
        ("a: [", "not YAML"),
        ("version: 1\nvenues: !!python/object:os.system []\n", "not YAML"),
        ("- 1", "map"),
        ("", "map"),
        ("no: 1", "not text"),
    ],
)
def test_yaml_when_it_is_ambiguous_then_is_refused(text, words):
    with pytest.raises(LimitsError, match=words):
        Limits.load(text)


@pytest.mark.parametrize("limit", KINDS)
def test_each_limit_has_a_looser_direction(limit):
    wide = limits_of()
    up = limits_of(**{limit: WIDE[limit] + 1})
    looser, tighter = (wide, up) if KINDS[limit].larger_is_tighter else (up, wide)
    assert tighter.looser_than(looser) == []
    assert [words for words in looser.looser_than(tighter) if limit in words]
    assert looser.tightest(tighter).canonical() == tighter.canonical() == tighter.tightest(looser).canonical()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("venues",), ["SIM", "DARK"]),
        (("accounts", "A2"), ["S3", "S1"]),
        (("accounts", "A9"), ["S9"]),
        (("limits", "strategy", "S1", "max_order_lots"), KeyError),
        (("limits", "strategy", "S1"), KeyError),
        (("limits", "strategy", "S1", "restricted_symbols"), []),
        (("limits", "account", "A1", "allowed_symbols"), [SYMBOL, "MSFT", "XOM"]),
        (("limits", "account", "A1", "allowed_symbols"), KeyError),
    ],
)
def test_every_way_of_loosening_is_seen(path, value):
    new, old = Limits.parse(changed(path, value)), Limits.parse(SOUND)
    assert new.looser_than(old)
    assert old.looser_than(new) == []
    assert new.tightest(old).looser_than(old) == [] == old.tightest(new).looser_than(new)


def test_lowering_is_instant_and_needs_nobody_else():
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=50), EVE, world.clock())
    assert change == (True, "", ())
    assert world.send(lots=51).control == "order_lots"


def test_loosening_waits_for_two_people():
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=200), EVE, world.clock())
    assert not change.tightened and change.looser == ("all.max_order_lots 100 becomes 200",)
    assert not approve_limits(world.gateway, change.change, ANN, world.clock())
    assert world.send(lots=101).control == "order_lots"
    assert approve_limits(world.gateway, change.change, BOB, world.clock())
    assert world.send(lots=101).key


def test_mixed_document_tightens_at_once_and_the_rest_waits():
    world = World(limits_of(max_order_lots=100, max_open_orders=10))
    change = propose_limits(world.gateway, limits_of(max_order_lots=50, max_open_orders=20), ANN, world.clock())
    assert change.tightened and change.looser == ("all.max_open_orders 10 becomes 20",)
    assert world.state.limits.numbers["all", ""]["max_order_lots"] == 50
    assert world.state.limits.numbers["all", ""]["max_open_orders"] == 10


@pytest.mark.parametrize(
    "twin", [ANN, "cn=ann,o=risk", "O=Risk,CN=Ann", " CN = ANN , O=  Risk", "CN=Ａnn,O=Risk", "CN=An\u200bn,O=Risk"]
)
def test_one_person_is_never_two(twin):
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=200), ANN, world.clock())
    approve_limits(world.gateway, change.change, ANN, world.clock())
    with pytest.raises(PersonError, match="another person"):
        approve_limits(world.gateway, change.change, twin, world.clock())
    assert world.send(lots=101).control == "order_lots"


@pytest.mark.parametrize("nobody", ["", "Ann", "O=Risk", "CN=", "CN= ", None, 5, "CN=\u200b", "x" * 2_000])
def test_nobody_is_no_person(nobody):
    with pytest.raises(PersonError):
        person(nobody)


def test_approval_expires_even_when_the_clock_jumps_back():
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=200), ANN, world.clock())
    approve_limits(world.gateway, change.change, ANN, world.clock())
    world.clock.mono_ns += APPROVAL_LASTS_NS
    world.clock.utc_ns -= 3600 * SECOND_NS
    with pytest.raises(PersonError, match="expired"):
        approve_limits(world.gateway, change.change, BOB, world.clock())
    world.see()
    assert type(world.send(lots=101)).__name__ == "Denied"
    assert world.state.limits.numbers["all", ""]["max_order_lots"] == 100


def test_approval_of_one_change_is_none_of_another():
    world = World(limits_of(max_order_lots=100, max_open_orders=50))
    first = propose_limits(world.gateway, limits_of(max_order_lots=200, max_open_orders=50), ANN, world.clock())
    approve_limits(world.gateway, first.change, ANN, world.clock())
    second = propose_limits(world.gateway, limits_of(max_order_lots=300, max_open_orders=50), ANN, world.clock())
    assert first.change != second.change
    assert not approve_limits(world.gateway, second.change, BOB, world.clock())
    # the limits change underneath: what was approved is void
    propose_limits(world.gateway, limits_of(max_order_lots=100, max_open_orders=40), ANN, world.clock())
    with pytest.raises(PersonError):
        approve_limits(world.gateway, first.change, BOB, world.clock())
    with pytest.raises(PersonError):
        approve_limits(world.gateway, "0" * 64, BOB, world.clock())


def test_approval_does_not_outlive_a_restart():
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=200), ANN, world.clock())
    approve_limits(world.gateway, change.change, ANN, world.clock())
    world.disk.crash()
    world.restart()
    with pytest.raises(PersonError):
        approve_limits(world.gateway, change.change, BOB, world.clock())
    assert world.state.limits.numbers["all", ""]["max_order_lots"] == 100


def test_proposing_again_begins_again():
    world = World(limits_of(max_order_lots=100))
    change = propose_limits(world.gateway, limits_of(max_order_lots=200), ANN, world.clock())
    approve_limits(world.gateway, change.change, ANN, world.clock())
    assert propose_limits(world.gateway, limits_of(max_order_lots=200), EVE, world.clock()).change == change.change
    assert not approve_limits(world.gateway, change.change, BOB, world.clock())


def test_first_limits_take_two_people_too():
    from gateway_world import BadDisk, Clock, Venue

    from serving.gateway.recovery import open_gateway

    clock = Clock()
    gateway = open_gateway(BadDisk(), Venue(), clock())
    change = propose_limits(gateway, limits_of(), ANN, clock())
    assert gateway.state.limits is None
    assert not approve_limits(gateway, change.change, ANN, clock())
    assert approve_limits(gateway, change.change, BOB, clock())


def test_limits_and_who_approved_them_stand_in_the_journal():
    world = World(limits_of(max_order_lots=100))
    last = [event for event in world.events if type(event).__name__ == "LimitsSet"][-1]
    assert last.why == "approved by cn=ann,o=risk and cn=bob,o=risk" and last.change
