from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.lake import Partition
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.synthetic import SyntheticOptions, clean_events


class ReferenceBook:
    """Slow and plain: price to orders in the order in which they came."""

    def __init__(self) -> None:
        self.sides: dict[int, dict[int, OrderedDict[int, int]]] = {int(Side.BUY): {}, int(Side.SELL): {}}

    def best(self, side: int) -> int:
        prices = self.sides[side]
        return max(prices) if side == Side.BUY else min(prices)

    def add(self, side: int, price: int, size: int, order: int) -> None:
        queue = self.sides[side].setdefault(price, OrderedDict())
        assert order not in queue and size >= 1
        queue[order] = size

    def take(self, side: int, price: int, size: int, order: int) -> None:
        queue = self.sides[side][price]
        assert 1 <= size <= queue[order]
        queue[order] -= size
        if queue[order] == 0:
            del queue[order]
        if not queue:
            del self.sides[side][price]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    strength=st.sampled_from([0.0, 0.6, 1.0]),
    hours=st.sampled_from([0.05, 0.15]),
)
def test_market_when_replayed_then_orders_are_conserved_in_fifo_and_the_book_never_crosses(
    seed: int, strength: float, hours: float
) -> None:
    options = SyntheticOptions.parse({"seed": seed, "strength": strength, "hours": hours})
    events = clean_events(options, Partition("SYN", "SYN1", "2025-01-06"))
    book, ids, last_ns, opening = ReferenceBook(), set(), -1, True
    columns = (events.ts_event_ns, events.kind, events.side, events.price_ticks, events.size, events.order_id)
    rows = zip(*(column.tolist() for column in (*columns, events.flags)), strict=True)
    assert next(rows)[1] == Kind.CLEAR
    for ts_ns, kind, side, price, size, order, flags in rows:
        assert ts_ns >= last_ns if opening else ts_ns > last_ns
        last_ns = ts_ns
        if kind == Kind.ADD:
            assert order not in ids
            ids.add(order)
            book.add(side, price, size, order)
        elif kind == Kind.CANCEL:
            book.take(side, price, size, order)
        else:
            assert kind == Kind.TRADE
            assert price == book.best(-side)  # the aggressor meets the best price of the other side
            assert order == next(iter(book.sides[-side][price]))  # and there the oldest order
            book.take(-side, price, size, order)
        opening = opening and not flags & Flag.LAST
        if not opening:
            assert book.best(int(Side.BUY)) < book.best(int(Side.SELL))
