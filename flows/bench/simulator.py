"""`shortfall bench simulator`: what the market costs a message, an environment step and a reactive event."""

import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.ticks.reader import IngestRequest
from flows.bench.environments import environment_rows, reactive_rows
from flows.bench.machine import Row, result

if TYPE_CHECKING:
    import pyarrow as pa

    from training.market.messages import Messages
    from training.market.order_replay import OrderReplay

SEED, REPEATS, PEER_REPEATS = 7, 15, 5
MESSAGES_A_DECISION = 100
LATENCY_NS = 10_000_000
REPLAY_TARGET, OWN_TARGET, PEER_TARGET, BYTES_TARGET = 50e6, 40e6, 2.0, 32.0
PEER = "hftbacktest"
OWN_IMPACT = {
    "permanent_bps": 800.0, "transient_bps": (200.0, 200.0, 200.0, 200.0), "decay_s": (1.0, 6.0, 36.0, 216.0),
    "temporary": 0.5, "volatility_bps": 47.0, "adv_lots": 176_000.0,
}  # fmt: skip
"""Impact of about the size that calibration finds on the synthetic market, all its parts there."""


def run(data: Path | None = None) -> dict[str, Any]:
    """Measure on a day of the seeded synthetic market, and on the second day of the ES sample below `data` where given.

    `replay msgs/s` is one thread over the day's messages without an agent; `own orders msgs/s` the same with an agent
    that sends a message every MESSAGES_A_DECISION historical ones (quotes at both best prices, cancels, and market
    orders) under a latency of 10 ms, prices moving away from what it trades (OWN_IMPACT). Both are historical
    messages over the median time of REPEATS runs, taken in turn; the compiled code is warm and the arrays of the market
    are made before the clock starts. `ratio to hftbacktest` is that package's time for the same events over ours
    (`peer_run`); without the package the row is left out and `notes` says so. `bytes per event` is what a day keeps
    resident for each message: 32 of the message, and its share of the index of prices. Then come
    the rows of `flows.bench.environments`: the environments on the synthetic day, and the reactive market. Raises
    InputError where `data` holds no such sample.
    """
    from training.market.messages import pack_messages

    events = synthetic_events()
    days = {"": pack_messages(events)}
    if data is not None:
        days[", ES"] = pack_messages(_futures_day(data), "ES")
    rows, notes = [], []
    for name, day in days.items():
        alone, joined = measure(day)
        count = len(day.events)
        rows += [
            Row(f"replay msgs/s{name}", count / alone, "msgs/s", REPLAY_TARGET, count / alone >= REPLAY_TARGET),
            Row(f"own orders msgs/s{name}", count / joined, "msgs/s", OWN_TARGET, count / joined >= OWN_TARGET),
        ]
        if not name and importlib.util.find_spec(PEER) is None:
            notes.append(f"ratio to {PEER} left out: the package is not installed")
        elif not name:
            ratio = peer_run(events, day)
            rows.append(Row(f"ratio to {PEER}", ratio, "ratio", PEER_TARGET, ratio >= PEER_TARGET))
        size = day.bytes_per_event
        rows.append(Row(f"bytes per event{name}", size, "bytes", BYTES_TARGET, size <= BYTES_TARGET))
        rows.append(Row(f"messages{name}", count, "messages"))
    rows += [*environment_rows(events), *reactive_rows()]
    return {**result(rows), "notes": notes}


def measure(day: "Messages", repeats: int = REPEATS) -> tuple[float, float]:
    """Median seconds of a replay without an agent and of one with own orders, over `repeats` runs of each."""
    from training.market.impact import ImpactParameters
    from training.market.order_replay import OrderReplay, ReplaySettings

    commands = agent_commands(day)
    settings = ReplaySettings(order_latency_ns=LATENCY_NS, impact=ImpactParameters.from_dict(OWN_IMPACT))

    def joined() -> "OrderReplay":
        market = OrderReplay(day, settings)
        market.schedule(commands)
        return market

    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for kind, make in enumerate((lambda: OrderReplay(day), joined)):
            seconds = _timed(make().advance)
            if turn > 0:  # the first turn compiles
                times[kind].append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def agent_commands(day: "Messages") -> NDArray[np.void]:
    """What a simple agent sends: a message every MESSAGES_A_DECISION historical ones, priced by the book it sees.

    In turn: a post-only bid and ask of 5 lots at the best prices, a market order of 2 lots on alternate sides, and the
    cancels of the bid and the ask.
    """
    from training.market.order_replay import COMMAND_DTYPE, OrderReplay
    from training.market.replay_state import CommandFlag, CommandKind

    book = OrderReplay(day).record(1)
    decided = day.events["ts_ns"][MESSAGES_A_DECISION::MESSAGES_A_DECISION]
    seen = np.searchsorted(book.ts_ns, decided, side="right") - 1
    usable = (seen >= 0) & book.two_sided[np.maximum(seen, 0)]
    decided, seen = decided[usable], seen[usable]
    turn = np.arange(len(decided)) % 5
    rounds = np.arange(len(decided)) // 5
    commands = np.zeros(len(decided), COMMAND_DTYPE)
    commands["arrive_ns"] = decided + LATENCY_NS
    kinds = [CommandKind.LIMIT, CommandKind.LIMIT, CommandKind.MARKET, CommandKind.CANCEL, CommandKind.CANCEL]
    commands["kind"] = np.array([int(kind) for kind in kinds])[turn]
    commands["order"] = 3 * rounds + np.array([0, 1, 2, 0, 1])[turn]
    commands["side"] = np.where(turn == 2, rounds % 2, turn % 2)
    commands["price"] = np.where(turn == 0, book.bid_px[seen, 0], book.ask_px[seen, 0])
    commands["lots"] = np.where(turn == 2, 2, 5)
    commands["flags"] = np.where(turn < 2, int(CommandFlag.POST_ONLY), 0)
    return commands


def synthetic_events() -> "pa.Table":
    """Clean events of one day of the seeded synthetic market."""
    import pyarrow as pa

    from feature_repo.ticks.batches import event_batch
    from feature_repo.ticks.synthetic import SyntheticOptions, SyntheticReader, clean_events

    reader, request = SyntheticReader(), IngestRequest("synthetic", options={"days": 1, "seed": SEED, "dirt": 0.0})
    (plan,) = reader.plan(request)
    events = clean_events(SyntheticOptions.parse(plan.options), plan.partition)
    return pa.Table.from_batches([event_batch(events, 0)])


def peer_run(events: "pa.Table", day: "Messages") -> float:
    """How many times longer hftbacktest takes for the same day without an agent: medians, runs taken in turn.

    It gets each event as its order-by-order format has it: an execution is a fill, then the cancel of the order or its
    modification to what is left. Its fastest book, orders first in first out, no latency, the whole day in one call.
    """
    from training.market.order_replay import OrderReplay

    messages = peer_events(events)
    low, span = day.low, day.span
    ours, theirs = [], []
    for turn in range(PEER_REPEATS + 1):
        mine = _timed(OrderReplay(day).advance)
        other = _timed(_peer(messages, low, span))
        if turn > 0:
            ours.append(mine)
            theirs.append(other)
    return statistics.median(theirs) / statistics.median(ours)


def _peer(messages: NDArray[np.void], low: int, span: int) -> Callable[[], object]:
    """One call that lets hftbacktest play the whole day."""
    from hftbacktest import BacktestAsset, ROIVectorMarketDepthBacktest

    asset = (
        BacktestAsset()
        .data([messages.copy()])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .l3_fifo_queue_model()
        .no_partial_fill_exchange()
        .tick_size(1.0)
        .lot_size(1.0)
        .roi_lb(float(low))
        .roi_ub(float(low + span))
        .last_trades_capacity(0)
    )
    backtest = ROIVectorMarketDepthBacktest([asset])
    length = int(messages["exch_ts"][-1] - messages["exch_ts"][0]) + 1
    return lambda: backtest.elapse(length)


def peer_events(events: "pa.Table") -> NDArray[np.void]:
    """Events in hftbacktest's order-by-order format; prices in ticks, sizes in lots."""
    import hftbacktest as peer

    from feature_repo.ticks.schema import Kind, Side

    columns = (events[name].to_pylist() for name in ("ts_event_ns", "kind", "side", "price_ticks", "size", "order_id"))
    both = peer.EXCH_EVENT | peer.LOCAL_EVENT
    resting: dict[int, list[int]] = {}
    out: list[tuple[int, int, int, float, float, int, int, float]] = []
    for ts, kind, side, price, size, order in zip(*columns, strict=True):
        if order == 0 or kind not in (Kind.ADD, Kind.CANCEL, Kind.TRADE):
            continue
        if kind == Kind.ADD:
            resting[order] = [side, size]
            left, what = size, peer.ADD_ORDER_EVENT
        else:
            resting[order][1] -= size
            left = resting[order][1]
            what = peer.MODIFY_ORDER_EVENT if left else peer.CANCEL_ORDER_EVENT
        way = peer.BUY_EVENT if resting[order][0] == Side.BUY else peer.SELL_EVENT
        if kind == Kind.TRADE:
            out.append((both | way | peer.FILL_EVENT, ts, ts, float(price), float(size), order, 0, 0.0))
        out.append((both | way | what, ts, ts, float(price), float(left), order, 0, 0.0))
    return np.array(out, peer.event_dtype)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of one core: the thread's own time, which a busy machine changes less than the wall's."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _futures_day(data: Path) -> "pa.Table":
    """Events of the second day of the Databento sample: a session of trading, the first holds an opening book only."""
    import pyarrow as pa

    from feature_repo.ticks.reader import ReadCount
    from feature_repo.ticks.registry import get_reader
    from feature_repo.ticks.schema import EVENT_SCHEMA

    folder = data / "databento"
    if not folder.is_dir():
        raise InputError(f"{folder}: not there; give --data the folder that holds databento/ with its MBO files")
    reader, request = get_reader("databento"), IngestRequest("databento", folder)
    plans = sorted(reader.plan(request), key=lambda plan: plan.partition.date)
    if len(plans) < 2:
        raise InputError(f"{folder}: {len(plans)} day of messages, two are wanted")
    table = pa.Table.from_batches(list(reader.read(plans[1], ReadCount())), EVENT_SCHEMA)
    return table.sort_by([("ts_event_ns", "ascending"), ("sequence", "ascending")])
