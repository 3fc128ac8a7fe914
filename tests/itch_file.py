"""Writes NASDAQ TotalView-ITCH 5.0 files for tests, message by message, from the published layout."""

import struct
from dataclasses import dataclass, field

NS = 1_000_000_000


def clock(text: str) -> int:
    """Nanoseconds since midnight of `HH:MM:SS[.fraction]`."""
    hours, minutes, seconds = text.split(":")
    whole, _, fraction = seconds.partition(".")
    return (int(hours) * 3600 + int(minutes) * 60 + int(whole)) * NS + int(fraction.ljust(9, "0")[:9] or 0)


@dataclass
class ItchFile:
    """Messages in the order in which they are added; prices in 0.0001 USD, times in nanoseconds since midnight."""

    messages: list[bytes] = field(default_factory=list)

    def add(self, kind: str, locate: int, ts: int, body: bytes) -> "ItchFile":
        """A message: type, stock locate, tracking number, 48-bit time stamp, and what the type adds."""
        header = struct.pack(">cHH", kind.encode(), locate, 7) + ts.to_bytes(6, "big")
        self.messages.append(header + body)
        return self

    def content(self, end_mark: bool = False) -> bytes:
        """The file: each message after its length; `end_mark` adds the length 0 that ends a session."""
        framed = b"".join(struct.pack(">H", len(message)) + message for message in self.messages)
        return framed + (b"\0\0" if end_mark else b"")

    def system(self, code: str, ts: int) -> "ItchFile":
        return self.add("S", 0, ts, code.encode())

    def directory(self, locate: int, symbol: str, ts: int = clock("03:05:00")) -> "ItchFile":
        body = _name(symbol) + b"QN" + struct.pack(">I", 100) + b"NC" + b"Z " + b"PN" + b" " + b"1N"
        return self.add("R", locate, ts, body + struct.pack(">I", 0) + b"N")

    def action(self, locate: int, symbol: str, state: str, ts: int, reason: str = "") -> "ItchFile":
        return self.add("H", locate, ts, _name(symbol) + state.encode() + b" " + reason.ljust(4).encode())

    def operational(self, locate: int, symbol: str, state: str, ts: int) -> "ItchFile":
        return self.add("h", locate, ts, _name(symbol) + b"Q" + state.encode())

    def order(
        self, locate: int, symbol: str, ts: int, number: int, side: str, shares: int, price: int, maker: str = ""
    ) -> "ItchFile":
        body = struct.pack(">QcI8sI", number, side.encode(), shares, _name(symbol), price)
        return self.add("F" if maker else "A", locate, ts, body + maker.encode())

    def executed(self, locate: int, ts: int, number: int, shares: int, match: int = 1) -> "ItchFile":
        return self.add("E", locate, ts, struct.pack(">QIQ", number, shares, match))

    def executed_at(
        self, locate: int, ts: int, number: int, shares: int, price: int, printable: str = "Y"
    ) -> "ItchFile":
        return self.add("C", locate, ts, struct.pack(">QIQcI", number, shares, 1, printable.encode(), price))

    def cancel(self, locate: int, ts: int, number: int, shares: int) -> "ItchFile":
        return self.add("X", locate, ts, struct.pack(">QI", number, shares))

    def delete(self, locate: int, ts: int, number: int) -> "ItchFile":
        return self.add("D", locate, ts, struct.pack(">Q", number))

    def replace(self, locate: int, ts: int, number: int, new: int, shares: int, price: int) -> "ItchFile":
        return self.add("U", locate, ts, struct.pack(">QQII", number, new, shares, price))

    def hidden(self, locate: int, symbol: str, ts: int, shares: int, price: int) -> "ItchFile":
        return self.add("P", locate, ts, struct.pack(">QcI8sIQ", 0, b"B", shares, _name(symbol), price, 2))

    def cross(self, locate: int, symbol: str, ts: int, shares: int, price: int, kind: str = "O") -> "ItchFile":
        return self.add("Q", locate, ts, struct.pack(">Q8sIQc", shares, _name(symbol), price, 3, kind.encode()))

    def broken(self, locate: int, ts: int, match: int) -> "ItchFile":
        return self.add("B", locate, ts, struct.pack(">Q", match))

    def notices(self, locate: int, symbol: str, ts: int) -> "ItchFile":
        """One of each type that says nothing of the book: Y L V W K J I N O."""
        name = _name(symbol)
        self.add("Y", locate, ts, name + b"0")
        self.add("L", locate, ts, b"MAKR" + name + b"YNA")
        self.add("V", 0, ts, struct.pack(">QQQ", 300 * 10**8, 200 * 10**8, 100 * 10**8))
        self.add("W", 0, ts, b"1")
        self.add("K", locate, ts, name + struct.pack(">IcI", 34_200, b"A", 250_000))
        self.add("J", locate, ts, name + struct.pack(">IIII", 250_000, 260_000, 240_000, 0))
        self.add("I", locate, ts, struct.pack(">QQc8sIIIcc", 100, 0, b"N", name, 250_000, 250_000, 250_000, b"O", b"L"))
        self.add("N", locate, ts, name + b"B")
        return self.add("O", locate, ts, name + b"Y" + struct.pack(">IIIQII", 1, 2, 3, 4, 5, 6))


def _name(symbol: str) -> bytes:
    return symbol.ljust(8).encode()
