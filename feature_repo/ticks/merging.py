"""Merges the events of several files in time, each file in its own order, without holding more than a batch of each."""

from collections.abc import Iterator, Sequence

import numpy as np

from feature_repo.ticks.batches import EventColumns


class _Waiting:
    """Events of one source that are read and not yet given, and the times by which they are merged."""

    def __init__(self, batches: Iterator[EventColumns]) -> None:
        self._batches, self._events = batches, EventColumns.concatenate([])
        self._reached = np.int64(np.iinfo(np.int64).min)
        self.keys, self.ended = np.empty(0, np.int64), False

    def fill(self) -> None:
        """Read one batch more."""
        batch = next(self._batches, None)
        if batch is None:
            self.ended = True
        elif len(batch):
            # The running maximum of the times: a clock that runs back changes no order within a source.
            keys = np.maximum.accumulate(np.maximum(batch.ts_event_ns, self._reached))
            self._reached = keys[-1]
            self._events = EventColumns.concatenate([self._events, batch])
            self.keys = np.concatenate([self.keys, keys])

    def take(self, stop: int) -> tuple[EventColumns, np.ndarray]:
        """Give the first `stop` events and their keys."""
        taken = self._events.slice(0, stop), self.keys[:stop]
        self._events, self.keys = self._events.slice(stop, len(self._events)), self.keys[stop:]
        return taken


def merge_in_time(sources: Sequence[Iterator[EventColumns]]) -> Iterator[EventColumns]:
    """All events in order of time; of equal times the sources in their order, and a source's in its own."""
    waiting = [_Waiting(source) for source in sources]
    while True:
        for item in waiting:
            while not item.ended and not len(item.keys):
                item.fill()
        open_ends = [item.keys[-1] for item in waiting if not item.ended]
        if not open_ends:
            stops = [len(item.keys) for item in waiting]
        else:
            # Nobody can undercut what is earlier; at this time itself a source that goes first might go on.
            stops = [int(np.searchsorted(item.keys, min(open_ends))) for item in waiting]
        if any(stops):
            taken = [item.take(stop) for item, stop in zip(waiting, stops, strict=True)]
            order = np.argsort(np.concatenate([keys for _, keys in taken]), kind="stable")
            yield EventColumns.concatenate([events for events, _ in taken]).take(order)
        elif not open_ends:
            return
        else:
            for item in waiting:
                if not item.ended and item.keys[-1] == min(open_ends):
                    item.fill()
