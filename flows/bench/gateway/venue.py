"""A venue that takes everything and trades nothing: `python -m flows.bench.gateway.venue FOLDER FIX FEED`.

Its log, `received.bin`, is one record of two int64 a NewOrderSingle: the gateway's number and monotonic ns.
"""

import asyncio
import os
import struct
import sys
import time
from pathlib import Path

import quickfix

from flows.bench.gateway.world import VENUE, symbols
from serving.wire.feed_socket import FeedServer
from serving.wire.feed_state import Publisher
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import Fields
from serving.wire.fix_numbers import Scale
from serving.wire.fix_orders import decode_inbound
from serving.wire.fix_reports import encode_cancel_reject, encode_execution, encode_no_orders
from serving.wire.fix_session import FixAcceptor
from serving.wire.fix_settings import FixSettings
from serving.wire.messages import CancelOrder, MassStatus, NewOrder, OrderState

RECORD = struct.Struct("<qq")
LOG = "received.bin"
TICK_SIZE = "0.01"
BID, ASK = 9_990, 10_010


class Venue:
    """A `FixHandler`; called in FIX's threads."""

    def __init__(self, folder: Path, port: int) -> None:
        self._scales = {symbol: Scale.of(TICK_SIZE, "1") for symbol in symbols()}
        self._log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._states: dict[str, OrderState] = {}
        self._executions = 0
        settings = FixSettings("VENUE", ("GATEWAY", "DROPCOPY"), folder / "fix", port)
        self.acceptor = FixAcceptor(GuardedApplication(self), settings)

    def logged_on(self, peer: str) -> None:
        """See FixHandler."""

    def logged_out(self, peer: str) -> None:
        """See FixHandler."""

    def received(self, peer: str, message: quickfix.Message) -> None:
        """Note a new order before anything else, then answer."""
        came_ns = time.monotonic_ns()
        asked = decode_inbound(Fields.of(message.toString()), self._scales)
        self._executions += 1
        exec_id, now_ns = f"x{self._executions}", time.time_ns()
        if isinstance(asked, NewOrder):
            os.write(self._log, RECORD.pack(int(asked.cl_ord_id), came_ns))
            state = self._states[asked.cl_ord_id] = OrderState(
                asked.cl_ord_id, f"v{asked.cl_ord_id}", asked.symbol, asked.side, "new", asked.price_ticks, asked.lots,
                0, asked.lots,
            )  # fmt: skip
            if asked.tif == "ioc":
                state = self._states.pop(asked.cl_ord_id)._replace(status="expired", left_lots=0)
            kind = "C" if asked.tif == "ioc" else "0"
            self.acceptor.send(peer, encode_execution(kind, state, self._scales[state.symbol], exec_id, now_ns))
        elif isinstance(asked, CancelOrder):
            self.acceptor.send(peer, self._cancelled(asked, exec_id, now_ns))
        elif isinstance(asked, MassStatus):
            self.acceptor.send(peer, encode_no_orders(asked.request_id, exec_id, now_ns))

    def _cancelled(self, asked: CancelOrder, exec_id: str, now_ns: int) -> quickfix.Message:
        own, orig = asked.cl_ord_id, asked.orig_cl_ord_id
        state = self._states.pop(orig, None)
        if state is None:
            return encode_cancel_reject(own, orig, f"v{orig}", "expired", "cancel", "too late", now_ns)
        state = state._replace(cl_ord_id=own, status="cancelled", left_lots=0)
        return encode_execution("4", state, self._scales[state.symbol], exec_id, now_ns, orig=orig)

    def veto(self, peer: str, message: quickfix.Message, resent: bool) -> str | None:
        """See FixHandler."""
        return None

    def vetoed(self, peer: str, message: quickfix.Message, reason: str, resent: bool) -> None:
        """See FixHandler."""

    def failed(self, reason: str) -> None:
        """End: without this venue nothing can be measured."""
        sys.stderr.write(f"the venue failed: {reason}\n")
        os._exit(1)


def received(folder: Path) -> list[tuple[int, int]]:
    """(order number, monotonic ns) of every new order that the venue has logged."""
    return list(RECORD.iter_unpack((folder / LOG).read_bytes()))


async def _serve(folder: Path, fix_port: int, feed_port: int) -> None:
    publisher = Publisher(VENUE, "bench", symbols(), lockstep=False)
    feed = FeedServer(publisher)
    for symbol in symbols():
        publisher.row(symbol, time.time_ns(), {BID: 1_000}, {ASK: 1_000})
        publisher.status(symbol, time.time_ns(), "open")
    await feed.start("127.0.0.1", feed_port)
    venue = Venue(folder, fix_port)
    venue.acceptor.start()
    print("ready", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not ended.done():
        feed.beat(time.time_ns())
        await asyncio.wait([ended], timeout=1.0)
    venue.acceptor.stop()
    await feed.stop()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
