"""Orders by number in parts: a dictionary that doubles moves all that it holds, and nothing is decided meanwhile.

Three dictionaries that doubled at their 175,000th entry stopped the deciding thread for 25 ms.
"""

from collections.abc import Iterator

from serving.gateway.order_table import Order

PART_BITS = 12
PART = 1 << PART_BITS
"""Orders of a part at most: it has grown within a tenth of a millisecond."""


class Orders:
    """Orders by number, in the order in which they came; numbers come in ascending order but in a snapshot's load."""

    __slots__ = ("_last", "_last_number", "_parts")

    def __init__(self) -> None:
        self._parts: dict[int, dict[int, Order]] = {}  # by what stands before the last PART_BITS of a number
        self._last: dict[int, Order] = {}
        self._last_number = -1

    def add(self, order: Order) -> None:
        """Put an order in, under its own number."""
        number = order.id >> PART_BITS
        if number != self._last_number:
            if not self._last:
                self._parts.pop(self._last_number, None)
            part = self._parts.get(number)
            if part is None:
                part = self._parts[number] = {}
            self._last, self._last_number = part, number
        self._last[order.id] = order

    def get(self, order_id: int) -> Order | None:
        """The order of a number, or None."""
        part = self._parts.get(order_id >> PART_BITS)
        return None if part is None else part.get(order_id)

    def discard(self, order_id: int) -> None:
        """Take an order out, where it is in."""
        number = order_id >> PART_BITS
        part = self._parts.get(number)
        if part is not None and part.pop(order_id, None) is not None and not part and number != self._last_number:
            del self._parts[number]

    def clear(self) -> None:
        """Take all out."""
        self._parts.clear()
        self._last, self._last_number = {}, -1

    def copy(self) -> "Orders":
        """The same orders, for a thread that reads beside the one that changes them."""
        other = Orders()
        for number, part in self._parts.copy().items():
            other._parts[number] = part.copy()
        return other

    def values(self) -> Iterator[Order]:
        """The orders."""
        for part in self._parts.values():
            yield from part.values()

    def __iter__(self) -> Iterator[int]:
        for part in self._parts.values():
            yield from part

    def __len__(self) -> int:
        return sum([len(part) for part in self._parts.values()])

    def __contains__(self, order_id: int) -> bool:
        return self.get(order_id) is not None

    def __getitem__(self, order_id: int) -> Order:
        order = self.get(order_id)
        if order is None:
            raise KeyError(order_id)
        return order
