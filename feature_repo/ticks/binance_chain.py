"""Keeps a Binance depth stream whole: joins snapshots, diffs and the day before by their update numbers.

The rules are those of Binance's documentation, "How to manage a local order book correctly" (spot and USD-M futures
WebSocket streams): sizes are absolute; a diff that ends before the snapshot's `lastUpdateId` is dropped; the first one
applied must contain it; from then on each diff must follow the one before (`pu` equals the previous `u`; on spot `U` is
the previous `u` + 1). A diff holds the updates after number `before` (`pu`; on spot `U` - 1) up to `u`, so all of this
is `before <= lastUpdateId <= u` for the first one and `before == previous u` for the others. For USD-M the
documentation has `U <= lastUpdateId`; this symbol has no update between `pu` and `U`, so `pu` says the same, and also
where the snapshot was taken just at the end of a diff.

What does not follow is a hole: CLEAR flagged GAP. The book is unknown from there on, and the diffs go on, for nobody to
apply, until a snapshot comes.

A snapshot is asked for by REST and comes late: diffs that go beyond it may have been received before it. They stand in
the stream already, where nobody could apply them. So the snapshot is brought forward: it is given as the book that it
and those diffs make, under the number of the last of them. Time thus stays in the order of receipt, the book is whole
after one snapshot, and its number says which updates it holds.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from feature_repo.ticks.batches import EventColumns
from feature_repo.ticks.binance_lines import Chunk, DepthMessage
from feature_repo.ticks.schema import Flag, Kind, Side
from feature_repo.ticks.standing import StandingBook, standing_rows

KEPT_DIFFS = 2_048
"""Diffs kept for a snapshot that comes late: half a minute or more of the fastest stream, where 0.1 to 1 s is usual."""


class DepthChain:
    """The numbering of one file's depth messages; holds no book, only the last KEPT_DIFFS diffs."""

    def __init__(self, spot: bool, opening: StandingBook | None, skip: Callable[[str, int], None]) -> None:
        """`opening` is the book at the end of the day before: a snapshot that was there before the first line.

        `skip` is told the reason and number of messages that give no event.
        """
        self._spot, self._opening, self._skip = spot, opening, skip
        # The number that the next diff must follow, or only contain where a snapshot stands at it; None: it starts the
        # chain, whatever it is.
        self._at = opening.update_id if opening is not None else None
        self._at_snapshot = opening is not None
        self._newest = (-1, -1)
        self._kept: deque[tuple[DepthMessage, EventColumns]] = deque(maxlen=KEPT_DIFFS)  # one unbroken chain

    def link(self, chunk: Chunk) -> EventColumns:
        """The chunk's events, with the opening book before the first diff, holes, and snapshots brought forward."""
        parts: list[EventColumns] = []
        done = 0
        for message in chunk.depth:
            found, keep = self._snapshot(message, chunk) if message.snapshot else self._diff(message, chunk)
            if found is None and keep:
                continue
            parts.append(chunk.events.slice(done, message.start))
            if found is not None:
                parts.append(found)
            done = message.start if keep else message.stop
        return EventColumns.concatenate([*parts, chunk.events.slice(done, len(chunk.events))])

    def _diff(self, message: DepthMessage, chunk: Chunk) -> tuple[EventColumns | None, bool]:
        """What goes before the diff (the opening book, or a hole), and whether the diff itself stays."""
        rows = int(message.stop > message.start)  # a diff without a level has been counted by the parser
        if (message.before, message.number) == self._newest:
            self._skip("diff repeated", rows)
            return None, False
        if self._at_snapshot and self._at is not None and message.number < self._at + int(self._spot):
            self._skip("diff from before the snapshot", rows)
            return None, False
        found = None
        if (
            self._at is not None
            and message.before != self._at
            and not (self._at_snapshot and message.before < self._at)
        ):
            missing = max(message.before - self._at, 0) if self._spot else 0  # USD-M shares its numbers among symbols
            found = _hole(message, missing)
            self._kept.clear()
        elif self._opening is not None:
            found = self._opening.events(message.exchange_ns, message.recv_ns)
        self._opening, self._at_snapshot = None, False
        self._at, self._newest = message.number, (message.before, message.number)
        # A copy: a slice would keep the whole chunk.
        self._kept.append((message, chunk.events.take(np.arange(message.start, message.stop))))
        return found, True

    def _snapshot(self, message: DepthMessage, chunk: Chunk) -> tuple[EventColumns | None, bool]:
        """The snapshot brought forward, in place of its own events; or whether these stay."""
        later = [(diff, events) for diff, events in self._kept if diff.number > message.number]
        if not later:
            self._kept.clear()
            self._opening, self._at, self._at_snapshot = None, message.number, True
            return None, True
        if later[0][0].before > message.number:
            self._skip("snapshot older than the diffs kept", 1)
            return None, False
        own = chunk.events.slice(message.start, message.stop)
        return _brought_forward(own, [events for _, events in later], later[-1][0].number), False


def _hole(message: DepthMessage, missing: int) -> EventColumns:
    """CLEAR flagged GAP at the message's time; `missing` updates, 0 unknown."""
    moment = np.array([message.exchange_ns], np.int64)
    recv = np.array([message.recv_ns], np.int64)
    return EventColumns.build(moment, int(Kind.CLEAR), int(Side.NONE), 0, missing, int(Flag.GAP), 0, recv)


def _brought_forward(snapshot: EventColumns, diffs: Iterable[EventColumns], number: int) -> EventColumns:
    """The book that a snapshot (CLEAR first) and later diffs make, as one snapshot at the time of the first."""
    events = EventColumns.concatenate([snapshot, *diffs])
    rows = 1 + standing_rows(events.side[1:], events.price_ticks[1:])
    rows = np.concatenate([[0], rows[events.size[rows] != 0]])
    events = events.take(rows)
    flags = events.flags & ~int(Flag.LAST)
    flags[1:][-1:] |= int(Flag.LAST)
    return replace(
        events,
        ts_event_ns=np.full(len(rows), snapshot.ts_event_ns[0]),
        ts_recv_ns=np.full(len(rows), snapshot.ts_recv_ns[0]),
        order_id=np.full(len(rows), number, np.int64),
        flags=flags.astype(np.int32),
    )
