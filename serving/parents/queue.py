"""The queue ahead of an own resting order, estimated from the feed by the rules that training fills by.

The observation holds this estimate, so live and training must make it alike: see `training.market.resting`, whose
models conservative, expected and optimistic these are (fifo needs every order's own number, which a feed of levels does
not have: expected stands in for it). Rows, acknowledgements and fills are taken in order of their time, however late a
report comes.
"""

from typing import NamedTuple

from serving.parents.market import Row, SymbolMarket

PART, DUST = 1 << 16, 1 << 8
"""Units of a lot in which the expected queue ahead is kept, and how many of them are no lot yet."""
FILL_MODELS = {"conservative": "conservative", "expected": "expected", "optimistic": "optimistic", "fifo": "expected"}


class _Event(NamedTuple):
    ts_ns: int
    stands: bool  # it stands with `lots` open at `price` from here on; else `lots` filled
    price: int
    lots: int


class QueueTracker:
    """One resting order of one side."""

    def __init__(self, market: SymbolMarket, side: int, fill_model: str) -> None:
        self._market, self._side = market, side
        self._model = FILL_MODELS.get(fill_model, "conservative")
        self._events: list[_Event] = []
        self._next = -1  # number of the next row to take
        self._at: Row | None = None
        self._price = self._lots = self._ahead = self._part = 0
        self._back_lots = self._back_ahead = self._back_part = 0
        self._shown, self._unseen, self._waits = -1, 0, False

    def stands(self, ts_ns: int, price: int, lots: int) -> None:
        """From `ts_ns` on `lots` are open at `price`."""
        self._events.append(_Event(ts_ns, True, price, lots))

    def filled(self, ts_ns: int, lots: int) -> None:
        """So many of them were filled."""
        self._events.append(_Event(ts_ns, False, 0, lots))

    def ahead(self) -> int:
        """Lots ahead of the order now, whole ones."""
        for event in self._events:
            self._take_rows(event.ts_ns)
            self._take_event(event)
        self._events.clear()
        self._take_rows(None)
        return self._ahead

    def _take_rows(self, until_ns: int | None) -> None:
        if self._lots <= 0 or self._next < 0:
            return
        market = self._market
        self._next = max(self._next, market.first)
        while self._next < market.row_count:
            row = market.rows[self._next - market.first]
            if until_ns is not None and row.ts_ns > until_ns:
                return
            self._meet(row)
            self._next += 1

    def _take_event(self, event: _Event) -> None:
        if event.stands:
            self._join(event)
            return
        lots = min(event.lots, self._lots)
        from_back = max(0, lots - (self._lots - self._back_lots))
        self._lots -= lots
        self._back_lots -= from_back
        if not self._met_by_opposite(event.ts_ns):
            self._ahead = self._part = 0  # whoever a trade fills stands in front
        if self._lots == self._back_lots and self._back_lots > 0:  # what was added later is now the front
            self._ahead, self._part, self._back_lots = self._back_ahead, self._back_part, 0

    def _join(self, event: _Event) -> None:
        place = self._market.place_at(event.ts_ns)
        row = self._market.rows[max(place - self._market.first, 0)] if self._market.rows else None
        shown = -1 if row is None else level_size(row, self._side, event.price)
        ahead = shown if shown >= 0 else 0 if row is None else _largest(row, self._side)
        if self._lots == 0 or event.price != self._price:
            self._price, self._ahead, self._part = event.price, ahead, 0
            self._shown, self._unseen, self._waits = shown, 0, False
            self._back_lots = self._back_ahead = self._back_part = 0
            self._next = max(place, self._market.first - 1) + 1
        elif event.lots < self._lots:
            self._back_lots = max(0, self._back_lots - (self._lots - event.lots))
        elif event.lots > self._lots:
            self._back_lots += event.lots - self._lots
            self._back_ahead, self._back_part = ahead, 0
        self._lots = event.lots

    def _met_by_opposite(self, ts_ns: int) -> bool:
        """Whether opposite lots showed at or through our price: those fill whatever stands ahead in the queue."""
        row = self._market.row_at(ts_ns)
        if row is None:
            return False
        _, _, price, lots = row.best(self._side)
        return lots > 0 and self._side * (price - self._price) <= 0

    def _meet(self, row: Row) -> None:
        _, own_lots, _, opposite_lots = row.best(self._side)
        if own_lots <= 0 and opposite_lots <= 0:
            self._waits = True
            return
        shown = level_size(row, self._side, self._price)
        traded = row.trade_lots > 0
        if self._waits:
            if own_lots <= 0:
                return
            self._ahead = shown if shown >= 0 else _largest(row, self._side)
            self._part = self._back_lots = self._back_ahead = self._unseen = 0
            self._waits, self._shown, traded = False, shown, False
        if traded and row.trade_side != self._side and not self._market.halted_at(row.ts_ns):
            beyond = self._side * (self._price - row.trade_ticks)
            if beyond == 0:
                self._unseen += row.trade_lots
                self._trade(row.trade_lots)
            elif beyond > 0:
                self._ahead = self._part = self._back_ahead = self._back_part = 0
        self._follow(shown)

    def _trade(self, volume: int) -> None:
        front = self._lots - self._back_lots
        reached = min(front, max(0, volume - self._ahead))
        self._ahead = max(0, self._ahead - volume)
        if self._ahead == 0:
            self._part = 0
        if self._back_lots > 0:
            self._back_ahead -= min(self._back_ahead, volume - reached)
            if self._back_ahead == 0:
                self._back_part = 0

    def _follow(self, shown: int) -> None:
        before, self._shown = self._shown, shown
        if shown < 0:
            return
        if self._model != "conservative" and before >= 0 and shown != before:
            cancelled, queue = before - shown - self._unseen, before - self._unseen
            self._unseen = max(0, self._unseen - (before - shown)) if shown < before else 0
            if cancelled > 0:
                self._ahead, self._part = self._less(self._ahead, self._part, queue, cancelled)
                if self._back_lots > 0:
                    self._back_ahead, self._back_part = self._less(self._back_ahead, self._back_part, queue, cancelled)
        if shown < self._ahead:
            self._ahead, self._part = shown, 0
        if shown < self._back_ahead:
            self._back_ahead, self._back_part = shown, 0

    def _less(self, ahead: int, part: int, queue: int, cancelled: int) -> tuple[int, int]:
        """Queue ahead (lots rounded up, and what they exceed it by in 2^-16) after `cancelled` lots of it left."""
        if self._model == "optimistic":
            return max(0, ahead - cancelled), 0
        exact = min(ahead * PART - part, queue * PART)
        share, rest = exact // queue, exact % queue
        exact = max(0, exact - cancelled * share - (cancelled * rest + queue // 2) // queue)
        whole = (exact + PART - DUST) // PART
        return whole, whole * PART - exact


def level_size(row: Row, side: int, price: int) -> int:
    """Lots at `price` of the bids (1) or asks (-1); 0 where none show, -1 where it lies beyond what shows."""
    prices, lots = (row.levels[0], row.levels[1]) if side > 0 else (row.levels[2], row.levels[3])
    for px, size in zip(prices.tolist(), lots.tolist(), strict=True):
        if size <= 0:
            break
        away = side * (price - px)
        if away == 0:
            return int(size)
        if away > 0:
            return 0
    return -1


def _largest(row: Row, side: int) -> int:
    return int((row.levels[1] if side > 0 else row.levels[3]).max())
