"""The same book one event at a time, for serving: the batch's own kernel on a stream."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError
from feature_repo.pipeline import book_ladder as ladder
from feature_repo.pipeline.book_kernel import EMPTIED_ROW, EVENT_ROW, FAULTED, NEEDS_ROOM, apply_live, settle
from feature_repo.pipeline.books import BookCounts, counts_of, fault
from feature_repo.ticks.schema import Kind


class BookRow(NamedTuple):
    """One row of a `books.Book`: levels `(K,) int32`, ticks and lots, 0 where there is none; the trade, or zeros."""

    ts_ns: int
    bid_px: NDArray[np.int32]
    bid_sz: NDArray[np.int32]
    ask_px: NDArray[np.int32]
    ask_sz: NDArray[np.int32]
    trade_px: int
    trade_sz: int
    trade_side: int


class LiveBook:
    """The visible book of one instrument, `depth` levels a side, fed with its clean events in time order.

    Its rows are those that `books.build_book` gives for the same events, bit for bit. Orders are kept by id, and prices
    are held within 8.4 million ticks of the first one; memory grows with the live orders and the prices touched.
    """

    def __init__(self, depth: int) -> None:
        """Start before the first event of the session."""
        self._state = ladder.new_state(depth)
        self._due = 0
        self._last_ns = np.iinfo(np.int64).min

    def on_event(
        self, ts_ns: int, kind: int, side: int, price_ticks: int, size: int, order_id: int = 0, flags: int = 0
    ) -> bool:
        """Take the next event (columns of EVENT_SCHEMA); True where it gave rows: a change of the book, or a trade.

        Raises InputError where time runs backwards or a value cannot be held; the book is not to be used after that.
        """
        if ts_ns < self._last_ns:
            raise InputError(
                f"time runs backwards: event at {ts_ns} ns after one at {self._last_ns} ns; sort the events"
            )
        self._last_ns = ts_ns
        state, what = self._state, (int(kind), int(side))  # an IntEnum would be compiled for anew
        due = apply_live(*state, ts_ns, *what, price_ticks, size, order_id, int(flags))
        if due == NEEDS_ROOM:
            self._state = state = ladder.with_room(state)
            due = apply_live(*state, ts_ns, *what, price_ticks, size, order_id, int(flags))
        if due == FAULTED:
            raise InputError(f"event at {ts_ns} ns: {fault(state.memory)}; clean the events first")
        self._due = due
        return due > 0

    def end(self) -> bool:
        """Say that no event follows (or none for a while); True where a CLEAR then leaves an empty row."""
        settled = settle(self._state.memory, self._state.visible, np.iinfo(np.int64).max, int(Kind.HALT))
        self._due = EMPTIED_ROW if settled else 0
        return bool(settled)

    def rows(self) -> list[BookRow]:
        """The rows that the last event gave, oldest first: two where it also shows that a CLEAR left nothing."""
        given = []
        if self._due & EMPTIED_ROW:
            none = np.zeros(self._state.visible.shape[2], np.int32)
            given.append(BookRow(int(self._state.memory[ladder.EMPTIED_TS]), none, none, none, none, 0, 0, 0))
        if self._due & EVENT_ROW:
            given.append(self.row())
        return given

    def row(self) -> BookRow:
        """The visible book as it stands, with the time and the trade of the last row."""
        memory, now = self._state.memory, self._state.visible[0].copy()
        trade = memory[ladder.ROW_TRADE : ladder.ROW_TRADE + 3].tolist()
        return BookRow(int(memory[ladder.ROW_TS]), now[0], now[1], now[2], now[3], *trade)

    @property
    def counts(self) -> BookCounts:
        """Events so far that could not be used as they were."""
        return counts_of(self._state.memory)
