"""Parents as FIX messages: whatever the fields hold, they are a parent order or a typed refusal."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.tca import CostSums
from serving.parents.fix_inbound import FixInbound
from serving.parents.fix_messages import AskCancel, AskNew, AskReplace, AskStatus, decode_parent, state_of
from serving.parents.orders import Parent, Phase
from serving.parents.records import Ended
from serving.parents.state import State
from serving.wire.fix_fields import Fields, FixMessageError
from serving.wire.fix_numbers import Scale, utc_text

NS = 1_000_000_000
SCALES = {"SYN1": Scale.of("0.01", "10")}
NEW = {
    "35": "D", "11": "A1", "55": "SYN1", "54": "2", "38": "50", "40": "1", "847": "1001", "126": utc_text(90 * NS),
    "168": utc_text(30 * NS), "1": "main", "50": "ada",
}  # fmt: skip


def decoded(values):
    return decode_parent(Fields(values.items()), SCALES, {"1001"})


def test_new_replace_cancel_and_status_are_read():
    assert decoded(NEW) == AskNew("A1", "main", "SYN1", -1, 5, 30 * NS, 90 * NS, "ada")
    bare = {key: value for key, value in NEW.items() if key not in ("168", "1", "50")} | {"59": "6", "54": "1"}
    assert decoded(bare) == AskNew("A1", "", "SYN1", 1, 5, 0, 90 * NS, "")
    change = {"35": "G", "11": "A2", "41": "A1", "55": "SYN1", "54": "1", "38": "70", "40": "1"}
    assert decoded(change) == AskReplace("A2", "A1", "SYN1", 1, 7)
    assert decoded({**change, "35": "F"}) == AskCancel("A2", "A1", "SYN1", 1)
    assert decoded({"35": "H", "11": "A2", "790": "Q"}) == AskStatus("A2", "Q", False)
    assert decoded({"35": "AF", "584": "M", "585": "7"}) == AskStatus("", "M", True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"35": "8"}, "MsgType 8 is none of"), ({"38": "55"}, "no multiple of the lot"),
        ({"38": "0"}, "less than one lot"),
        ({"40": "2"}, r"ORD_TYPE\(40\) 2"), ({"44": "1.00"}, "Price"), ({"847": "9"}, "TargetStrategy"),
        ({"126": "tomorrow"}, "time 'tomorrow'"), ({"126": utc_text(30 * NS)}, "does not lie after"),
        ({"55": "X"}, "Symbol X"), ({"54": "7"}, "SIDE"), ({"59": "4"}, "TIME_IN_FORCE"),
        ({"11": "x" * 65}, "65 characters"),
        ({"1": "\x7f"}, "printable"),
    ],
)  # fmt: skip
def test_message_that_cannot_be_worked_names_its_field(change, why):
    with pytest.raises(FixMessageError, match=why):
        decoded({**NEW, **change})


TEXT = st.text(max_size=12) | st.integers(-(10**20), 10**20).map(str) | st.floats().map(str) | st.sampled_from(
    ["", "1", "2", "D", "G", "F", "H", "AF", "SYN1", "1001", utc_text(1), utc_text(99 * NS)]
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([*NEW, "41", "44", "59", "584", "585", "790"]), TEXT, max_size=12), st.booleans()
)
def test_any_fields_are_an_ask_or_a_typed_refusal(change, whole):
    try:
        ask = decoded({**NEW, **change} if whole else change)
    except FixMessageError:
        return
    assert isinstance(ask, AskNew | AskReplace | AskCancel | AskStatus)
    if isinstance(ask, AskNew):
        assert ask.lots >= 1 and ask.end_ns > ask.start_ns and ask.symbol == "SYN1" and ask.side in (1, -1)


def test_status_of_a_parent_follows_what_became_of_it():
    sums = CostSums(1, 200)
    parent = Parent(
        1, "b-1", "p", "main", "agent", "SYN1", "V", 1, 10, 1, 0, "fix", "OMS", "ada", 0, 10, "p", sums=sums
    )
    told = []
    course = [
        (0, Phase.WAITING, None), (4, Phase.WORKING, None), (4, Phase.CANCELLING, None),
        (4, Phase.ENDED, "cancelled"), (10, Phase.ENDED, "filled"), (6, Phase.ENDED, "expired"),
    ]  # fmt: skip
    for filled, phase, how in course:
        sums.filled, parent.phase, parent.how = filled, phase, how
        state = state_of(parent)
        told.append((state.status, state.filled_lots, state.left_lots))
    assert told == [
        ("new", 0, 10), ("partially_filled", 4, 6), ("pending_cancel", 4, 6), ("cancelled", 4, 0), ("filled", 10, 0),
        ("expired", 6, 0),
    ]  # fmt: skip


def test_cancel_that_came_too_late_is_answered_by_its_reject():
    parent = Parent(
        1, "b-1", "p", "main", "agent", "SYN1", "V", 1, 10, 1, 0, "fix", "OMS", "ada", 0, 10, "p",
        sums=CostSums(1, 200, filled=10), how="filled",
    )  # fmt: skip
    state = State()
    state.parents[1] = parent
    told = []
    inbound = FixInbound.__new__(FixInbound)  # without an acceptor
    inbound._peers, inbound._scales, inbound._cancels = {"OMS": None}, SCALES, {1: ("c2", "p")}
    inbound._desk = SimpleNamespace(state=state)
    inbound._acceptor = SimpleNamespace(send=lambda peer, message: told.append((peer, message)))
    ended = Ended(utc_ns=1, number=1, market_ns=1, how="filled")
    inbound.follow(ended, 7)
    inbound.follow(ended, 8)  # one cancel, one answer
    ((peer, message),) = told
    fields = Fields.of(message.toString())
    assert peer == "OMS" and fields.type == "9"
    assert [fields.get(tag) for tag in (11, 41, 39, 58)] == ["c2", "p", "2", "it is filled"]
