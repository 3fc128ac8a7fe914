"""Whatever clients send, the venue's account of each order stays whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.wire.messages import CancelOrder, NewOrder, ReplaceOrder
from training.market.messages import blank_day
from training.market.order_replay import ReplaySettings
from training.market.venue.core import CancelReject, Execution, Shown, Venue
from training.market.venue.order_world import OrderWorld

LATENCY_NS, STEP_NS, STEPS = 1_000, 500, 60
SIDES = {"buy": 1, "sell": -1}
new = st.tuples(
    st.just("new"), st.sampled_from(["a", "b"]), st.sampled_from(["buy", "sell"]), st.integers(95, 105),
    st.integers(1, 30), st.sampled_from(["day", "day", "day", "ioc", "market", "fok"]),
)  # fmt: skip
change = st.tuples(st.just("change"), st.integers(0, 20), st.integers(95, 105), st.integers(1, 40))
cancel = st.tuples(st.just("cancel"), st.integers(0, 20))
moves = st.lists(st.tuples(st.integers(0, 3), new | change | cancel), min_size=1, max_size=STEPS)


def message_of(move, number, orders):
    if move[0] == "new":
        _, account, side, price, lots, tif = move
        kind = "market" if tif == "market" else "limit"
        return NewOrder(
            str(number), account, "X", side, kind, None if kind == "market" else price, lots,
            "ioc" if tif == "market" else tif,
        )  # fmt: skip
    if not orders:
        return None
    order = orders[move[1] % len(orders)]
    own = f"{order.cl_ord_id}-{number}"
    if move[0] == "cancel":
        return CancelOrder(own, order.cl_ord_id, "X", order.side)
    return ReplaceOrder(own, order.cl_ord_id, "X", order.side, *move[2:])


@given(moves)
@settings(max_examples=150, deadline=None)
def test_every_message_is_answered_once_and_every_order_adds_up(steps):
    world = OrderWorld(blank_day(0, 200), ((0, 10**9),), 5, ReplaySettings(order_latency_ns=LATENCY_NS))
    venue = Venue({"X": world})
    orders, sent, outputs = [], [], []
    for number, (pause, move) in enumerate(steps, 1):
        message = message_of(move, number, orders)
        if message is None:
            continue
        if isinstance(message, NewOrder):
            orders.append(message)
        sent.append(message)
        venue.take("G", message)
        outputs += venue.advance(venue.now_ns + pause * STEP_NS)
    outputs += venue.advance(venue.now_ns + 2 * LATENCY_NS)
    told = [item for item in outputs if not isinstance(item, Shown)]
    _each_request_once(sent, told)
    limits = {order.cl_ord_id: order.price_ticks for order in orders}
    state = {}
    bought = sold = 0
    for item in told:
        if isinstance(item, CancelReject):
            continue
        first = item.state.cl_ord_id.split("-")[0]
        before = state.get(first)
        now = item.state
        assert 0 <= now.filled_lots <= now.lots and now.left_lots == (now.lots - now.filled_lots if now.is_open else 0)
        if item.what == "replaced":
            limits[first] = now.price_ticks
        if item.what == "trade":
            assert item.last[1] == now.filled_lots - (before.filled_lots if before else 0) > 0
            assert limits[first] is None or (item.last[0] - limits[first]) * SIDES[now.side] <= 0
            bought += item.last[1] * (now.side == "buy")
            sold += item.last[1] * (now.side == "sell")
        assert before is None or before.is_open or item.what == "replaced", (before, item)
        state[first] = now
    assert bought == sold  # on a blank day own orders meet one another alone
    assert {item.cl_ord_id.split("-")[0] for item in venue.open_orders()} == {
        first for first, item in state.items() if item.is_open
    }


def _each_request_once(sent, told):
    """A new order is acknowledged or refused, a request is taken or rejected: each once, under its own id."""
    for message in sent:
        answers = [
            item for item in told
            if (isinstance(item, CancelReject) and item.cl_ord_id == message.cl_ord_id)
            or (
                isinstance(item, Execution) and item.state.cl_ord_id == message.cl_ord_id
                and (item.what in ("new", "rejected") if isinstance(message, NewOrder)
                     else item.orig == message.orig_cl_ord_id)
            )
        ]  # fmt: skip
        assert len(answers) == 1, (message, answers)
