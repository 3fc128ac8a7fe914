"""What one order-by-order market remembers: its arrays, their layouts, and how they are made and grown."""

from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.market.impact import IMPACT_DTYPE, PARAMETER_DTYPE
from training.market.message_kernel import SPARE_PAGES
from training.market.queues import BEST, NODE_DTYPE, NONE, OFFSET_1, OFFSET_2, SPAN, STRIDE, bit_layout

if TYPE_CHECKING:
    from training.market.messages import Messages


class OrderStatus(IntEnum):
    """Where an own order stands."""

    SENT = 0  # on its way to the venue
    RESTING = 1
    FILLED = 2
    CANCELLED = 3
    REJECTED = 4
    HELD = 5  # waits for the end of a halt


class Reason(IntEnum):
    """Why an own order was rejected or cancelled."""

    NONE = 0
    ASKED = 1  # cancelled by its owner
    WOULD_TAKE = 2  # post-only, and it would have met the other side
    REMAINDER = 3  # immediate-or-cancel or market: what met nothing
    SELF_TRADE = 4
    HALTED = 5  # trading is halted or the book unknown, and orders are refused then
    PRICE = 6  # beyond the prices that the day's window holds, or no page left for it


class CommandKind(IntEnum):
    """What an own message asks for."""

    LIMIT = 1
    MARKET = 2
    CANCEL = 3
    REPLACE = 4  # new price and new total lots, those filled included


class CommandFlag(IntFlag):
    """How an own order may trade."""

    POST_ONLY = 1
    IOC = 2


class SelfTrade(IntEnum):
    """What happens where two orders of one trader would meet."""

    ALLOW = 0
    CANCEL_RESTING = 1
    CANCEL_INCOMING = 2


OWN_DTYPE = np.dtype(
    [
        ("trader", np.int32),
        ("price", np.int32),  # ticks
        ("lots", np.int32),  # in all, those filled included
        ("filled", np.int32),
        ("level", np.int32),  # where it rests or last rested
        ("key", np.int32),
        ("shift", np.int32),  # ticks that its own prices are above those of the book (`own_impact`)
        ("side", np.int8),  # 0 bid, 1 ask
        ("status", np.int8),  # OrderStatus
        ("reason", np.int8),  # Reason
        ("flags", np.int8),  # CommandFlag
    ]
)
"""One own order; its node is `OWN_BASE` plus its place here."""

COMMAND_DTYPE = np.dtype(
    [
        ("arrive_ns", np.int64),
        ("order", np.int32),
        ("price", np.int32),  # ticks
        ("lots", np.int32),
        ("kind", np.int8),  # CommandKind
        ("side", np.int8),  # 0 bid, 1 ask
        ("flags", np.int8),  # CommandFlag
        ("trader", np.int8),
    ]
)
"""One own message at the time when it meets the market."""

FILL_DTYPE = np.dtype(
    [
        ("ts_ns", np.int64),  # at the venue; its owner hears of it one feed latency later
        ("order", np.int32),
        ("price", np.int32),  # ticks
        ("lots", np.int32),
        ("maker", np.int8),  # 1: the order rested; 0: it took
        ("side", np.int8),  # 0 bought, 1 sold
        ("history", np.int16),  # 1: the other side was the history's, 0: another own order
    ]
)
"""One own fill."""

# Places in `state`, after those of `queues`: where the replay stands.
(
    LOW,
    AT,  # next message
    NOW,  # time of the last message or command
    HALTED,
    UNKNOWN,  # the book is unknown after a CLEAR
    PAGES,  # pages of the index in use
    MOST_PAGES,
    COMMAND_AT,
    COMMANDS,
    FILLS,
    ORDERS,  # own orders
    GHOST_BASE,  # first node for historical lots whose own slot is wanted again
    GHOSTS_FREE,
    OWN_BASE,
    STOPPED,  # self-trade prevention ended the incoming order
    RECORDED,
    # settings
    SELF_TRADE,
    HOLD,  # 1: orders that arrive in a halt wait for its end
    REACH,  # price levels behind the historical price that re-routed lots may walk
    REACTS,  # 0: prices never move for own trades; 1: they will, from the first own message on; 2: they do
) = range(6, 26)
# Counters, all in lots; `Divergence` names and explains them.
(
    TAKEN,
    MADE_BY_TRADES,
    MADE_BY_ARRIVALS,
    ARRIVALS_MET,
    REROUTED,
    NOTHING_FOUND,
    LEFT_OVER,
    CUT_CONSUMED,
    CUT_SURPLUS,
    REPLACE_CONSUMED,
    REPLACE_CHANGED,
    GHOSTS_DROPPED,
) = range(26, 38)
STATE = 38
GHOSTS = 4096
"""Historical orders that outlive their history, each in a node of its own; more are dropped and counted."""


class Market(NamedTuple):
    """The arrays of one market; the kernels take it whole."""

    nodes: NDArray[np.void]  # levels, the day's slots, ghosts, own orders
    bits: NDArray[np.uint64]
    state: NDArray[np.int64]
    pages: NDArray[np.int32]  # (2, span / 64)
    keys: NDArray[np.int32]  # (levels,) key of a level times two, plus its side
    own: NDArray[np.void]
    fills: NDArray[np.void]
    commands: NDArray[np.void]
    ghosts: NDArray[np.int32]  # free ghost nodes
    parameters: NDArray[np.void]  # (1,) PARAMETER_DTYPE, of the impact of own trades
    impact: NDArray[np.void]  # (1,) IMPACT_DTYPE


def new_market(day: "Messages", orders: int = 64) -> Market:
    """A market before the first message of `day`, with room for `orders` own orders."""
    levels, span = day.levels, day.span
    first, second, stride = bit_layout(span)
    nodes = np.zeros(levels + day.slots + GHOSTS + orders, NODE_DTYPE)
    nodes["prev"][:levels] = nodes["next"][:levels] = nodes["home"][:levels] = np.arange(levels)
    state = np.zeros(STATE, np.int64)
    state[BEST : BEST + 2] = NONE
    state[OFFSET_1], state[OFFSET_2], state[STRIDE], state[SPAN], state[LOW] = first, second, stride, span, day.low
    count = len(day.pages)
    state[PAGES], state[MOST_PAGES] = count, count + SPARE_PAGES
    state[GHOST_BASE] = levels + day.slots
    state[GHOSTS_FREE] = GHOSTS
    state[OWN_BASE] = state[GHOST_BASE] + GHOSTS
    state[NOW] = np.iinfo(np.int64).min
    pages, keys = np.full((2, span // 64), -1, np.int32), np.zeros(levels, np.int32)
    side, group = day.pages & 1, day.pages >> 1
    pages[side, group] = np.arange(count)
    keys[: 64 * count] = (2 * (64 * group[:, None] + np.arange(64)) + side[:, None]).ravel()
    return Market(
        nodes,
        np.zeros(2 * stride, np.uint64),
        state,
        pages,
        keys,
        np.zeros(orders, OWN_DTYPE),
        np.zeros(room_for_fills(levels, orders) + 256, FILL_DTYPE),
        np.zeros(64, COMMAND_DTYPE),
        (state[GHOST_BASE] + np.arange(GHOSTS)).astype(np.int32),
        np.zeros(1, PARAMETER_DTYPE),
        np.zeros(1, IMPACT_DTYPE),
    )


def room_for_fills(levels: int, orders: int) -> int:
    """Most fills that one message or command can give: the taker's of each level, its maker's and its own of each own
    order that it meets, and one more of the level after that."""
    return levels + 4 * orders + 2


def with_room(market: Market, orders: int = 0, commands: int = 0) -> Market:
    """The same market with room for more own orders and commands, and for the fills of one message."""
    nodes, own, fills, sent, state = market.nodes, market.own, market.fills, market.commands, market.state
    if state[ORDERS] + orders > len(own):
        more = max(len(own), orders)
        nodes = np.concatenate([nodes, np.zeros(more, nodes.dtype)])
        own = np.concatenate([own, np.zeros(more, own.dtype)])
    if state[COMMANDS] + commands > len(sent):
        sent = np.concatenate([sent, np.zeros(max(len(sent), commands), sent.dtype)])
    need = int(state[FILLS]) + room_for_fills(len(market.keys), len(own))
    if need > len(fills):
        fills = np.concatenate([fills, np.zeros(max(len(fills), need), fills.dtype)])
    return market._replace(nodes=nodes, own=own, fills=fills, commands=sent)
