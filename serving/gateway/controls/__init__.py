"""The controls: one a file, each `check(at, limits, order, now) -> Denied | None`, run in `registry`'s order without
exception.

Value and limit are equal at most: what is exactly at a limit passes, except where a file says otherwise.
"""
