"""The EMS's core: what it takes, how it ends, and that it stays within a parent whatever fails around it."""

import numpy as np
import pytest
from ems_world import ACCOUNT, FALLBACK, NS, SHA, Ems, policy, request, rules
from market_fixtures import make_day, open_ns, random_rows
from msgspec.structs import replace

from feature_repo.errors import InputError
from serving.contracts.decisions import Denied
from serving.contracts.orders import (
    Busted,
    Cancel,
    Cancelled,
    ChildOrder,
    Corrected,
    Filled,
    Replace,
    ReplaceRejected,
    encode,
)
from serving.decide.protocol import DecideError, Policies
from serving.parents.core import Core
from serving.parents.orders import Phase, Stage
from serving.parents.outputs import CoreRules, Refusal
from serving.parents.planning import Move, Withdraw
from serving.parents.records import Answered, Decided, FellBack, Lost, Sent, Shadowed, decode_record, encode_record
from serving.parents.state import State
from serving.wire.feed_state import Gap
from training.market.venue.depth_world import DepthWorld

WAIT, PLACE, IMPROVE, CROSS = range(4)
START = open_ns() + 120 * NS
DAY = make_day(random_rows(np.random.default_rng(3), 1500, step_ns=NS))


def ems(decide=lambda seen, mask: PLACE if mask[PLACE] else WAIT, champion=None, start_ns=None, **more):
    return Ems(DepthWorld(DAY), DAY.instrument, decide, champion or policy(), start_ns=start_ns or open_ns(), **more)


def begun(decide=None, seconds=70, champion=None, asked=None, **more):
    """An EMS with one parent that has been at work for some seconds."""
    world = ems(champion=champion, **({"decide": decide} if decide else {}), **more)
    world.core.submit(asked or request(start_ns=START), 1)
    world.run(START + seconds * NS)
    return world, world.core.state.parents[1]


def patient(seconds=45, champion=None, **more):
    """As `begun`, with a policy that rests far behind the best price."""
    rests = champion or policy(action_set="continuous")
    return begun(lambda seen, mask: (1.0, -1.0), seconds, rests, **more)


def deaf(world):
    """The feed's line is down until `hearing`."""
    world.follower.take = lambda raw: []


def hearing(world):
    del world.follower.take
    for event in world.follower.disconnected("was down"):
        world.core.on_feed(event)
    world.follower.connected()
    world._feed(world.publisher.opening)


def requests(world):
    return [record.request for record in world.records if isinstance(record, Sent)]


def check_within(world):
    """Whatever was sent, filled and open never exceeded a parent, and nothing new was sent after its end."""
    state = State()
    for record in world.records:
        state.apply(record)
        for parent in state.parents.values():
            assert parent.filled + parent.exposed <= parent.lots, f"{parent.filled} + {parent.exposed}: {record}"
        if isinstance(record, Sent):
            parent = state.parents[record.number]
            assert not parent.is_ended
            if not isinstance(record.request, Cancel):
                assert parent.phase in (Phase.WORKING, Phase.FINISHING)
                assert record.market_ns <= parent.end_ns + 5 * NS
    return state


# What is taken --------------------------------------------------------------------------------------------------------


def test_parent_id_taken_twice_is_one_parent_and_another_order_under_it_is_refused():
    world = ems()
    world.run(open_ns() + 5 * NS)
    first = world.core.submit(request(), 1)
    assert world.core.submit(request(), 2) is first and len(world.core.state.parents) == 1
    for other in (request(lots=201), request(side=-1), request(horizon_ns=NS), request(start_ns=START)):
        with pytest.raises(Refusal, match="used before") as refused:
            world.core.submit(other, 3)
        assert refused.value.what == "conflict"


@pytest.mark.parametrize(
    ("asked", "what", "why"),
    [
        (request(lots=0), "invalid", "lots 0 is not an integer from 1"),
        (request(lots=10**9), "invalid", "lots 1000000000 is not"),
        (request(lots=1.5), "invalid", "lots 1.5"),
        (request(lots=True), "invalid", "lots True"),
        (request(side=0), "invalid", "side 0 is neither"),
        (request(horizon_ns=0), "invalid", "horizon_ns 0"),
        (request(horizon_ns=10**18), "invalid", "horizon_ns 1000"),
        (request(symbol="X"), "unknown", "symbol 'X' is not followed"),
        (request(parent_id=""), "invalid", "parent_id ''"),
        (request(parent_id="p" * 65), "invalid", "parent_id 'ppp"),
        (request(parent_id="é"), "invalid", "parent_id 'é'"),
        (request(parent_id="a\x01b"), "invalid", "parent_id"),
        (request(strategy="other"), "invalid", "strategy other is not agent"),
        (request(start_ns=-1), "invalid", "start -1"),
        (request(start_ns=open_ns() - 700 * NS), "invalid", "the horizon ends at"),
        (request(start_ns=open_ns() + 7000 * NS), "invalid", "closes at"),
        (request()._replace(account="b"), "unknown", "account b is not worked here"),
    ],
)
def test_parent_that_cannot_be_worked_is_refused_with_value_and_limit(asked, what, why):
    world = ems()
    world.run(open_ns() + 5 * NS)
    with pytest.raises(Refusal, match=why) as refused:
        world.core.submit(asked, 1)
    assert refused.value.what == what and not world.core.state.parents


def test_no_more_parents_are_taken_than_the_limit():
    world = ems(core_rules=rules(max_parents=1))
    world.core.submit(request(), 1)
    with pytest.raises(Refusal, match="1 parents are at work, limit 1"):
        world.core.submit(request("p2"), 1)


# The policy and the fallback ------------------------------------------------------------------------------------------


def failing(reason, after=1, times=10**9):
    asked = []

    def decide(seen, mask):
        asked.append(1)
        if after < len(asked) <= after + times:
            raise DecideError(reason, "as the test wants it")
        return PLACE if mask[PLACE] else WAIT

    return decide


def answering(action, after=1):
    asked = []

    def decide(seen, mask):
        asked.append(1)
        return action if len(asked) > after else PLACE if mask[PLACE] else WAIT

    return decide


@pytest.mark.parametrize(
    ("decide", "why"),
    [
        (failing("unknown"), "unknown: as the test"),
        (failing("refused"), "refused: as the test"),
        (failing("unauthorised"), "unauthorised"),
        (failing("late"), "late: as the test"),
        (answering(9), "action 9 is not a number from 0 to 3"),
        (answering(-1), "action -1"),
        (answering((0.5, 0.5)), r"action \(0.5, 0.5\)"),
        (lambda seen, mask: int(np.argmin(mask)) if not mask.all() else PLACE, "is masked"),
    ],
)
def test_policy_that_fails_hands_over_to_the_fallback_which_completes_under_its_own_strategy(decide, why):
    world, parent = begun(decide, seconds=610)
    assert parent.how == "filled" and parent.fallback
    told = next(record for record in world.records if isinstance(record, FellBack))
    assert why.replace("\\", "") in told.reason
    assert [alert.message for alert in world.alerts if alert.what == "fallback"]
    after = [record.request for record in world.records[world.records.index(told) :] if isinstance(record, Sent)]
    orders = [item for item in after if isinstance(item, ChildOrder)]
    assert (
        orders
        and {item.strategy for item in orders} == {FALLBACK}
        and not any(isinstance(item, Replace) for item in after)
    )
    assert {(item.symbol, item.side, item.type, item.tif) for item in orders} == {("T", "buy", "market", "ioc")}
    check_within(world)


@pytest.mark.parametrize("action", [(np.nan, 0.0), (0.0, 1.5), (0.0,), 1])
def test_continuous_action_beyond_its_bounds_hands_over(action):
    world, parent = begun(lambda seen, mask: action, champion=policy(action_set="continuous"))
    assert "the policy failed: action" in parent.fallback


def test_answer_of_another_policy_than_asked_hands_over():
    world = ems()
    world.core.submit(request(start_ns=START), 1)
    world.run(START - NS)
    world.policies = Policies(policy("b" * 64, 2), None, ())
    real = world.core.decided
    world.core.decided = lambda ask_id, answer, utc: real(ask_id, answer.__class__("c" * 64, 1, answer.action, ()), utc)
    world.run(START + NS)
    assert "the answer is of policy cccc" in world.core.state.parents[1].fallback


def test_late_answers_that_pass_leave_the_order_resting_and_the_policy_in_place():
    world, parent = begun(failing("late", after=1, times=2), seconds=100)
    assert not parent.fallback and parent.step == 2
    assert len([alert for alert in world.alerts if alert.what == "policy"]) == 2
    assert parent.resting is not None or parent.filled == parent.lots


def test_fallback_keeps_to_the_even_schedule():
    world, parent = begun(failing("unknown", after=0), seconds=301)
    assert parent.fallback and 0.5 * parent.lots <= parent.filled <= 0.56 * parent.lots


def test_parent_without_a_champion_begins_with_the_fallback():
    world = ems()
    world.policies = Policies(None, None, ())
    world.core = world.new_core(State())
    world._feed(world.publisher.opening)
    world.follower.connected()
    world.core.submit(request(start_ns=START), 1)
    world.run(START + 610 * NS)
    parent = world.core.state.parents[1]
    assert parent.fallback == "no policy is loaded" and parent.how == "filled"
    assert {item.strategy for item in requests(world)} == {FALLBACK}


def test_features_that_are_missing_too_long_hand_over_and_those_that_come_in_time_do_not():
    late = ems()
    deaf(late)
    late.run(open_ns() + 100 * NS)
    hearing(late)
    late.core.submit(request("p1", horizon_ns=200 * NS), 1)  # patience: a fifth of the horizon, forty seconds
    late.core.submit(request("p2", horizon_ns=600 * NS), 1)  # ninety
    late.run(open_ns() + 190 * NS)
    first, second = late.core.state.parents[1], late.core.state.parents[2]
    assert "no features of T that may be trusted yet" in first.fallback and not second.fallback
    assert second.step == 1 and first.step == 0
    decided = next(record for record in late.records if isinstance(record, Decided))
    assert decided.market_ns == second.began_ns + 60 * NS


def test_decisions_on_the_event_grid_come_with_every_so_many_rows():
    champion = policy(decision_every_events=20)
    world, parent = begun(lambda seen, mask: WAIT, champion=champion, seconds=100)
    moments = [record.market_ns for record in world.records if isinstance(record, Decided)]
    stamps = [row.ts_ns for row in world.core.markets["T"].rows]
    places = [np.searchsorted(stamps, moment, side="right") - 1 for moment in moments]
    assert moments[0] == START and len(moments) >= 4 and set(np.diff(places)) == {20}


# Challenger and promotion ---------------------------------------------------------------------------------------------


def test_challenger_decides_on_the_same_state_and_nothing_of_it_is_sent():
    challenger = policy("b" * 64, 2, stack=3)
    world, parent = begun(
        lambda seen, mask: WAIT, challenger=challenger, shadow=lambda seen, mask: CROSS if mask[CROSS] else WAIT,
        seconds=100,
    )  # fmt: skip
    shadows = [record for record in world.records if isinstance(record, Shadowed)]
    assert [record.step for record in shadows] == [0, 1, 2, 3] and {record.version for record in shadows} == {2}
    assert all(record.action == (3.0,) and record.order[2] > 0 for record in shadows)
    assert not requests(world) and not parent.children
    stacked = [ask.observation for ask in world.asks if ask.shadow]
    assert {len(seen) for seen in stacked} == {93}  # three observations of 31
    assert world.core.state.shadows == [replace(record, seen="") for record in shadows]


def test_challenger_goes_on_with_its_own_history_after_a_restart():
    def world_with(restarted):
        world, _ = begun(
            lambda seen, mask: WAIT, challenger=policy("b" * 64, 2, stack=4), shadow=lambda seen, mask: WAIT,
            champion=policy(stack=2), seconds=70,
        )  # fmt: skip
        if restarted:
            restart(world)
        world.run(START + 100 * NS)
        return world.asks[-2:]

    for mine, again in zip(world_with(False), world_with(True), strict=True):
        assert mine.shadow == again.shadow and np.array_equal(mine.observation, again.observation)


def restart(world, now_ns=None):
    """Kill the process and start it again behind its journal; the market was told all the while."""
    state, markets = State(), world.core.markets
    for record in world.records:
        state.apply(decode_record(encode_record(record)))
    world.core = world.new_core(state)
    world.core.markets.update(markets)
    for parent in state.working:
        world.core.run_of(parent).market = markets["T"]
    if now_ns is not None:
        world.core.advance(now_ns, now_ns)
    world.settle()
    return state


def test_challenger_that_fails_is_noted_and_harms_nothing():
    def fails(seen, mask):
        raise DecideError("unknown", "not loaded")

    world, parent = begun(challenger=policy("b" * 64, 2), shadow=fails)
    assert not parent.fallback and parent.step == 3
    assert all("not loaded" in record.error for record in world.records if isinstance(record, Shadowed))


def test_promotion_counts_for_new_parents_and_a_parent_ends_on_the_version_that_it_began_with():
    world, parent = begun()
    world.policies = Policies(policy("b" * 64, 2), None, ())
    world.core.on_policies(world.policies)
    world.core.submit(request("p2"), 1)
    world.run(START + 620 * NS)
    first, second = world.core.state.parents[1], world.core.state.parents[2]
    assert (first.plan.version, first.how, second.plan.version) == (1, "filled", 2)
    assert {ask.sha256 for ask in world.asks if ask.parent == 1} == {SHA}
    assert {ask.sha256 for ask in world.asks if ask.parent == 2} == {"b" * 64}


# The gateway ----------------------------------------------------------------------------------------------------------


def test_denial_is_kept_by_its_name_and_holds_the_parent_back_longer_each_time():
    world = ems(champion=policy(decisions_per_slice=15))
    world.gateway.deny = lambda order: Denied(control="order_lots", message="200 over 10", value=200, limit=10, key="")
    world.core.submit(request(start_ns=START), 1)
    world.run(START + 60 * NS)
    parent = world.core.state.parents[1]
    assert (parent.denied.control, parent.denied.value, parent.denied.limit) == ("order_lots", 200, 10)
    denied = [record for record in world.records if isinstance(record, Answered)]
    assert 4 <= len(denied) == parent.denials <= 6  # of thirty decisions: after 1, 2, 4, 8, 16, 30 s
    held = [record for record in world.records if isinstance(record, Decided) and record.held]
    assert len(held) > 20 and "held back after a denial by order_lots" in held[0].held
    world.gateway.deny = lambda order: None
    world.run(START + 620 * NS)
    assert parent.how == "filled" and parent.denials == 0
    check_within(world)


def test_parent_that_is_denied_to_its_end_says_what_is_left_and_why():
    world = ems()
    world.gateway.deny = lambda order: Denied(control="position", message="too much", key="")
    world.core.submit(request(start_ns=START), 1)
    world.run(START + 620 * NS)
    parent = world.core.state.parents[1]
    assert (parent.how, parent.left, parent.filled) == ("expired", 200, 0)
    assert "denial by position" in parent.reason
    assert len(requests(world)) < 40


def test_cancel_that_came_too_late_is_no_denial_and_is_not_asked_again_and_again():
    world, parent = patient()
    child = parent.resting
    world.gateway.deny = lambda order: (
        Denied(control="order", message="order is done", key="") if isinstance(order, Cancel) else None
    )
    world.core.cancel(parent, "enough", 1)
    world.settle()
    for _ in range(5):
        world.core.advance(world.core.now_ns, world.core.now_ns)
        world.settle()
    assert sum(isinstance(item, Cancel) for item in requests(world)) == 1
    assert parent.denied is None and parent.denials == 0
    assert not [alert for alert in world.alerts if alert.what == "denied"]
    world.core.reported(ACCOUNT, Cancelled(order_id=child.order_id, ts_ns=world.core.now_ns), 1)
    assert parent.how == "cancelled"


def drop_line(world, keep=True):
    """The line breaks: with `keep` what was sent arrived and its answer is lost, else it was lost itself."""
    world.core.line_down(ACCOUNT, "cut")
    world.line_is_up = False


def lift_line(world):
    world.line_is_up = True
    world.core.line_up(ACCOUNT)
    world.settle()


def test_line_that_comes_back_repeats_the_same_bytes_and_learns_what_was_missed():
    world, parent = begun(seconds=0)
    child = parent.resting
    world.run(START + 2 * NS)
    assert child.stage is Stage.WORKING and child.is_open
    drop_line(world)
    sent, before = len(world.gateway.sent), child.filled
    world.run(START + 140 * NS)  # it may fill meanwhile: nobody hears of it
    told = [report for report in world.gateway.reports[child.order_id] if isinstance(report, Filled)]
    assert (
        parent.filled == before
        and len(world.gateway.sent) == sent
        and "line to the gateway is down" in (world.core.runs[1].waits_for)
    )
    first = encode(world.gateway.first[child.key][0])
    repeated = []
    take = world.gateway.take
    world.gateway.take = lambda order: (repeated.append(encode(order)), take(order))[1]
    lift_line(world)
    assert first in repeated and child.filled == sum(report.lots for report in told) > before
    world.run(START + 620 * NS)
    assert parent.how == "filled"
    check_within(world)


def test_rejection_that_is_repeated_with_a_line_answers_no_later_replace():
    world, parent = patient()
    child, core = parent.resting, world.core
    world.gateway.venue = None  # the test is the venue
    rejected = ReplaceRejected(order_id=child.order_id, ts_ns=core.now_ns, reason="no")
    for price in (child.price_ticks - 1, child.price_ticks - 2):
        core.sender.carry_out(parent, Move(child, price, child.lots, False), parent.strategy)
        world.settle()
        assert child.replace.price_ticks == price
        if price == child.price_ticks - 1:
            core.reported(ACCOUNT, rejected, 1)
            assert child.replace is None
    drop_line(world)
    core.reported(ACCOUNT, rejected, 1)  # the day's reports, before the line is called open
    assert child.replace is not None and child.exposed >= child.replace.lots - child.filled
    lift_line(world)
    core.reported(ACCOUNT, rejected, 1)  # the same words once more, and now for the second
    assert child.replace is None


def test_order_that_was_sent_into_a_broken_line_is_sent_again_while_it_is_fresh():
    world, parent = begun(seconds=0)
    world.run(START + 29 * NS)
    take, lost = world.gateway.take, []
    world.gateway.take = lambda order: lost.append(order) or ([], None)
    answered = world.core.answered
    world.core.answered = lambda *arguments: None
    world.run(START + 30 * NS)
    world.core.answered, world.gateway.take = answered, take
    assert len(lost) == 1 and lost[0].key in world.core.state.unanswered
    drop_line(world)
    lift_line(world)  # within two seconds of the market
    assert world.gateway.first[lost[0].key][0] == lost[0] and not world.core.state.unanswered
    world.run(START + 620 * NS)
    assert parent.how == "filled"
    check_within(world)


def test_cancel_of_an_order_that_was_not_answered_follows_it_on_the_new_line():
    world, parent = begun(seconds=0)
    world.run(START + 29 * NS)
    take, answered = world.gateway.take, world.core.answered
    world.gateway.take = lambda order: ([], None)
    world.core.answered = lambda *arguments: None
    world.run(START + 30 * NS)
    child = parent.resting
    assert child.stage is Stage.UNANSWERED
    world.core.sender.carry_out(parent, Withdraw(child), parent.strategy)
    world.settle()
    world.core.answered, world.gateway.take = answered, take
    drop_line(world)
    lift_line(world)
    assert not world.core.state.unanswered
    world.run(START + 32 * NS)
    assert child.stage is Stage.DONE
    check_within(world)


def test_order_that_is_stale_when_the_line_is_back_is_asked_for_by_cancel_and_never_sent_again():
    world, parent = begun(seconds=0)
    take, lost = world.gateway.take, []
    world.gateway.take = lambda order: lost.append(order) or ([], None)
    answered = world.core.answered
    world.core.answered = lambda *arguments: None
    world.run(START + 31 * NS)
    world.core.answered, world.gateway.take = answered, take
    drop_line(world)
    world.run(START + 50 * NS)
    lift_line(world)
    key = lost[0].key
    assert [record.key for record in world.records if isinstance(record, Lost)] == [key]
    assert world.core.state.children[key].stage is Stage.DONE and key not in world.gateway.first
    world.run(START + 620 * NS)
    assert parent.how == "filled" and key not in world.gateway.first
    check_within(world)


def test_order_whose_answer_was_lost_and_that_is_stale_is_found_by_cancel_and_its_fills_count():
    world, parent = begun(lambda seen, mask: CROSS if mask[CROSS] else WAIT, seconds=0)
    answered = world.core.answered
    world.core.answered = lambda *arguments: None
    reported = world.core.reported
    world.core.reported = lambda *arguments: None
    world.run(START + 33 * NS)
    world.core.answered, world.core.reported = answered, reported
    drop_line(world)
    world.run(START + 50 * NS)
    assert parent.filled < 30 and parent.exposed > 0
    lift_line(world)
    assert parent.filled >= 10 and parent.exposed == 0
    world.run(START + 620 * NS)
    assert (
        parent.how == "filled"
        and sum(
            report.lots
            for reports in world.gateway.reports.values()
            for report in reports
            if isinstance(report, Filled)
        )
        == 200
    )
    check_within(world)


def test_line_that_stays_down_over_the_horizon_leaves_the_parent_open_until_what_is_out_is_known():
    world, parent = patient()
    drop_line(world)
    world.run(START + 700 * NS)
    assert parent.phase is Phase.FINISHING and parent.open_children and parent.left > 0
    lift_line(world)
    world.run(START + 720 * NS)
    assert parent.how == "expired" and parent.left == 200 - parent.filled and not parent.open_children
    check_within(world)


# The market -----------------------------------------------------------------------------------------------------------


def test_gap_stops_decisions_until_the_book_and_its_features_are_known_again():
    world, parent = begun(
        seconds=31, core_rules=rules(patience_ns=100 * NS), asked=request(horizon_ns=900 * NS, start_ns=START)
    )
    world.follower.take = lambda raw: []  # the feed is deaf from here on
    world.core.on_feed(Gap("T", "lost"))
    steps = parent.step
    world.run(START + 100 * NS)
    assert parent.step == steps and not parent.fallback
    assert "is not known" in world.core.runs[1].waits_for
    assert [alert.what for alert in world.alerts].count("feed_gap") == 1
    del world.follower.take
    world.follower.connected()
    world._feed(world.publisher.opening)
    world.run(START + 150 * NS)
    assert parent.step == steps and "may be trusted" in world.core.runs[1].waits_for
    world.run(START + 240 * NS)
    assert "no features" in parent.fallback or parent.step > steps


def halted(world, status):
    from serving.contracts.orders import encode as encoded
    from serving.wire.feed import SymbolStatus

    book = world.publisher.books["T"]
    book.sequence += 1
    book.status = status
    world._feed(encoded(SymbolStatus(symbol="T", sequence=book.sequence, ts_ns=book.ts_ns, sent_ns=1, status=status)))


def test_halt_lets_nothing_out_but_cancels():
    answers = [PLACE]
    world, parent = begun(lambda seen, mask: answers[0] if mask[answers[0]] else WAIT, seconds=40)
    halted(world, "halted")
    sent = len(requests(world))
    answers[0] = CROSS
    world.run(START + 61 * NS)
    assert len(requests(world)) == sent
    assert "trading in T is halted" in parent.last_decision["held"]
    if parent.resting is not None:
        answers[0] = WAIT
        world.run(START + 91 * NS)
        assert [type(item) for item in requests(world)[sent:]] == [Cancel]
    halted(world, "open")
    world.run(START + 620 * NS)
    assert parent.how == "filled"
    check_within(world)


def test_parent_whose_market_never_opens_ends_with_all_of_it_left():
    world = ems(start_ns=open_ns() - 100 * NS)
    world.core.submit(request(horizon_ns=20 * NS), 1)
    for second in range(60):
        world.core.advance(open_ns() - (100 - second) * NS, 1)
        world.settle()
    parent = world.core.state.parents[1]
    assert (parent.how, parent.left) == ("expired", 200) and "no two-sided open market" in parent.reason


# Ends -----------------------------------------------------------------------------------------------------------------


def test_cancelled_parent_withdraws_what_rests_and_sends_nothing_more():
    world, parent = patient()
    assert parent.resting is not None
    world.core.cancel(parent, "enough", 1)
    world.settle()
    sent = len(requests(world))
    assert isinstance(requests(world)[-1], Cancel) and parent.phase is Phase.CANCELLING
    world.run(START + 100 * NS)
    assert (parent.how, parent.reason) == ("cancelled", "enough") and len(requests(world)) == sent
    with pytest.raises(Refusal, match="is done: cancelled"):
        world.core.cancel(parent, "again", 1)
    check_within(world)


def test_parent_changes_its_size_but_never_below_what_is_filled_and_out():
    world, parent = begun(seconds=45)
    floor = parent.filled + parent.exposed
    with pytest.raises(Refusal, match=f"is less than {floor}"):
        world.core.replace(parent, floor - 1, 1)
    for wrong in (0, 10**9, 1.5):
        with pytest.raises(Refusal, match="is not an integer from 1"):
            world.core.replace(parent, wrong, 1)
    world.core.replace(parent, 300, 1, "p1b")
    assert world.core.state.find(ACCOUNT, "p1b") is parent is world.core.state.find(ACCOUNT, "p1")
    world.run(START + 620 * NS)
    assert (parent.how, parent.filled, parent.lots) == ("filled", 300, 300)
    check_within(world)


def test_busted_fill_is_worked_again_and_taken_out_of_the_cost():
    world, parent = begun(lambda seen, mask: CROSS if mask[CROSS] else WAIT, seconds=45)
    child = next(child for child in parent.children.values() if child.filled)
    exec_id, execution = next(iter(child.executions.items()))
    filled, cost, lots, price = parent.filled, parent.sums.cost, execution.mark.lots, execution.mark.price_ticks
    report = Busted(order_id=child.order_id, ts_ns=world.core.now_ns, exec_id=exec_id)
    for _ in range(2):  # told twice it counts once
        world.core.reported(ACCOUNT, report, 1)
    assert parent.filled == filled - lots and parent.sums.cost == cost - lots * price
    assert execution.mark.lots == 0
    world.run(START + 620 * NS)
    assert parent.how == "filled" and parent.filled == 200


def test_restart_goes_on_with_the_parent_and_its_version_and_doubles_nothing():
    world, parent = patient(champion=policy(action_set="continuous", stack=4))
    saved = [decode_record(encode_record(record)) for record in world.records]
    state = State()
    for record in saved:
        state.apply(record)
    world.policies = Policies(policy("b" * 64, 2), None, ())
    world.core = world.new_core(state)
    world.settle()
    world.follower.connected()
    world._feed(world.publisher.opening)
    parent = state.parents[1]
    assert parent.plan.version == 1 and parent.resting is not None and parent.phase is Phase.WORKING
    world.run(START + 620 * NS)
    assert parent.how in ("filled", "expired") and parent.filled > 0
    assert not parent.tca["window_whole"]
    keys = [item.key for item in requests(world)]
    assert len(keys) == len(set(keys))
    assert (
        sum(
            report.lots
            for reports in world.gateway.reports.values()
            for report in reports
            if isinstance(report, Filled)
        )
        == parent.filled
    )
    check_within(world)


def test_horizon_that_passed_while_the_process_was_away_leaves_nothing_at_the_venue_and_sends_nothing_new():
    world, parent = patient()
    child, sent = parent.resting, len(requests(world))
    world.line_is_up = False
    state = restart(world, parent.end_ns + 60 * NS)
    world.line_is_up = True
    world.core.line_up(ACCOUNT)
    world.settle()
    world.run(parent.end_ns + 70 * NS)
    parent = state.parents[1]
    assert [type(item) for item in requests(world)[sent:]] == [Cancel]
    assert (parent.how, parent.children[child.key].reason) == ("expired", "cancelled") and not parent.open_children
    check_within(world)


@pytest.mark.parametrize("gone", ["symbol", "account"])
def test_restart_without_what_a_parent_is_at_work_in_is_refused_by_name(gone):
    world, parent = patient()
    state = State()
    for record in world.records:
        state.apply(record)
    instruments = {} if gone == "symbol" else {"T": world.instrument}
    less = rules() if gone == "symbol" else CoreRules(venue="TEST", accounts={})
    with pytest.raises(InputError, match="parent p1 is at work in T for account main"):
        Core(less, instruments, state, "b1", 1)


def test_denials_before_the_horizon_do_not_cost_the_sweep():
    world = ems(champion=policy(decisions_per_slice=15), core_rules=rules(backoff_max_ns=300 * NS))
    world.gateway.deny = lambda order: Denied(control="message_rate", message="slower", key="")
    world.core.submit(request(lots=40, start_ns=START), 1)
    world.run(START + 598 * NS)
    parent = world.core.state.parents[1]
    assert parent.denials > 5 and world.core.runs[1].not_before_ns > parent.end_ns + 5 * NS
    world.gateway.deny = lambda order: None
    world.run(START + 606 * NS)
    assert parent.how == "filled" and parent.denials == 0


def test_parent_that_fills_while_it_is_being_cancelled_is_filled():
    world, parent = patient()
    child = parent.resting
    parent_lots = parent.filled + child.exposed
    world.core.replace(parent, parent_lots, 1)
    world.gateway.venue = None  # the test is the venue
    world.core.cancel(parent, "enough", 1)
    world.settle()
    assert parent.phase is Phase.CANCELLING and child.cancel_key
    fill = Filled(order_id=child.order_id, ts_ns=world.core.now_ns, exec_id="x", price_ticks=1000, lots=child.exposed)
    world.core.reported(ACCOUNT, fill, 1)
    assert (parent.how, parent.left, parent.reason) == ("filled", 0, "enough")


def test_cost_follows_what_the_venue_says_after_the_end():
    world, parent = begun(lambda seen, mask: CROSS if mask[CROSS] else WAIT, seconds=620)
    before = dict(parent.tca)
    assert parent.how == "filled" and before["filled_lots"] == 200
    child = next(child for child in parent.children.values() if child.filled)
    exec_id, execution = next(iter(child.executions.items()))
    lots, price = execution.mark.lots, execution.mark.price_ticks
    head = {"order_id": child.order_id, "ts_ns": world.core.now_ns, "exec_id": exec_id}
    world.core.reported(ACCOUNT, Corrected(**head, price_ticks=price + 50, lots=lots), 1)
    dearer = parent.tca["is_bps"] - before["is_bps"]
    assert dearer == pytest.approx(1e4 * 50 * lots / (200 * before["arrival_ticks"]))
    assert {name: parent.tca[name] for name in ("twap_ticks", "window_whole", "completion")} == {
        name: before[name] for name in ("twap_ticks", "window_whole", "completion")
    }
    world.core.reported(ACCOUNT, Busted(**head), 1)
    assert (parent.tca["filled_lots"], parent.tca["left_lots"]) == (200 - lots, lots)
    parts = sum(parent.tca[f"{name}_bps"] for name in ("spread", "impact", "timing", "fees", "left"))
    assert parent.tca["is_bps"] == pytest.approx(parts) and parent.tca["left_ticks"]
    world.settle()
    assert [alert.what for alert in world.alerts].count("late") == 2
    state = State()
    for record in world.records:
        state.apply(decode_record(encode_record(record)))
    assert state.parents[1].tca == parent.tca and parent.is_ended


def test_records_replayed_give_the_same_state():
    world, parent = begun(seconds=620, challenger=policy("b" * 64, 2), shadow=lambda seen, mask: WAIT)
    state = State()
    for record in world.records:
        state.apply(decode_record(encode_record(record)))
    again = state.parents[1]
    assert again == parent and state.sent == world.core.state.sent and state.heard == world.core.state.heard
