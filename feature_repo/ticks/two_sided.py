"""Rows that hold both sides of the best quote, as two QUOTE events each."""

from dataclasses import dataclass

import numpy as np

from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.schema import Kind, Side

NO_BID = np.iinfo(np.int64).max
"""The bid before the first row: no bid rises above it."""


@dataclass(frozen=True)
class TwoSided:
    """Rows in their order, each column `(n,) int64`; prices in ticks, sizes in lots."""

    ts_event_ns: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    bid_size: np.ndarray | int
    ask_size: np.ndarray | int
    bid_flags: np.ndarray | int
    ask_flags: np.ndarray | int
    ts_recv_ns: np.ndarray | None = None

    def events(self, bid_before: int = NO_BID) -> EventColumns:
        """Two QUOTE events a row; the ask first where the bid rises above `bid_before`, the bid of the row before.

        So the side that moves away from the other goes first: between the two events of a row the book does not cross,
        unless the vendor's own rows do.
        """
        rises = self.bid > np.concatenate([[bid_before], self.bid[:-1]])
        side = np.where(rises[:, None], [int(Side.SELL), int(Side.BUY)], [int(Side.BUY), int(Side.SELL)]).ravel()

        def chosen(bid: np.ndarray | int, ask: np.ndarray | int) -> np.ndarray:
            columns = [np.repeat(np.broadcast_to(np.asarray(item), rises.shape), 2) for item in (bid, ask)]
            return np.where(side == int(Side.BUY), *columns)

        return EventColumns.build(
            np.repeat(self.ts_event_ns, 2),
            Kind.QUOTE,
            side,
            chosen(self.bid, self.ask),
            chosen(self.bid_size, self.ask_size),
            chosen(self.bid_flags, self.ask_flags),
            ts_recv_ns=None if self.ts_recv_ns is None else np.repeat(self.ts_recv_ns, 2),
        )
