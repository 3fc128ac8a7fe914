"""Python's garbage collector as the deciding thread bears it: short, and never over all that there is."""

import gc

YOUNG = 2_000
"""Objects that one collection looks at: some 0.1 ms. Orders live for the day: older ones would be looked at in vain."""


def quieten_collector() -> None:
    """Look at young objects alone from here on; `collect_all` does the rest when nothing trades."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 1_000_000_000, 1_000_000_000)


def collect_all() -> None:
    """Look at everything that came since, and not again: for a moment when no order waits."""
    gc.collect()
    gc.freeze()
