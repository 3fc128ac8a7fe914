"""Judges one partition over NumPy columns: every rule that the venue uses, in the order of precedence."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.pipeline import price_rules as prices
from feature_repo.pipeline import rule_kernels as kernels
from feature_repo.pipeline.crossed import crossed_stretches
from feature_repo.pipeline.rule_kernels import Events
from feature_repo.pipeline.rules import RULE_NUMBER
from feature_repo.pipeline.venue_rules import VenueRules
from feature_repo.ticks.schema import Flag

_DUPLICATE = RULE_NUMBER["exact_duplicate"]
_ORDERS = (kernels.ADD, kernels.CANCEL, kernels.REPLACE)
_BOOK_EVENTS = (kernels.QUOTE, kernels.LEVEL, kernels.DEPTH, kernels.ADD)


@dataclass(frozen=True)
class Judgement:
    """What was found in a partition of n events, in order of `sequence`."""

    sequence: NDArray[np.int64]  # (q,) of the quarantined rows
    rule: NDArray[np.int16]  # (q,) their rules' numbers
    holes: NDArray[np.int64]  # (h, 5): sequence, from_ns, missing updates, until_ns or -1, rows lost
    notes: dict[str, int]  # what is worth telling though no row went for it
    in_order: bool  # the kept rows are sorted by (ts_event_ns, sequence) as they stand in the file
    repeated: int = -1  # a sequence that stands twice, so that nothing was judged; -1: none


def to_events(table: pa.Table) -> Events:
    """Columns of a table of EVENT_SCHEMA's names."""
    return Events(
        *(
            np.ascontiguousarray(table.column(name).to_numpy())
            for name in (
                "ts_event_ns", "ts_recv_ns", "sequence", "kind", "side", "price_ticks", "size", "order_id", "flags"
            )
        )
    )  # fmt: skip


def judge(
    events: Events, rules: VenueRules, windows_ns: list[tuple[int, int]], auctions_ns: list[tuple[int, int]]
) -> Judgement:
    """Judge a whole partition; the windows are `[open, close)` in UTC nanoseconds."""
    unsorted = bool(np.any(events.sequence[1:] < events.sequence[:-1]))
    if unsorted:
        at = np.argsort(events.sequence, kind="stable")
        events = Events._make(column[at] for column in events)
    if len(twice := np.flatnonzero(events.sequence[1:] == events.sequence[:-1])):
        nothing = np.empty(0, np.int64)
        return Judgement(
            nothing, np.empty(0, np.int16), nothing.reshape(0, 5), {}, False, int(events.sequence[twice[0]])
        )
    rule = np.zeros(len(events.ts), np.int16)
    present = frozenset(np.flatnonzero(np.bincount(events.kind.view(np.uint8))).tolist())
    notes: dict[str, int] = {}
    rule[(events.flags & int(Flag.CARRIED)) != 0] = kernels.PASS
    _judge_time(rule, events, rules, present, windows_ns, auctions_ns, notes)
    _judge_rows(rule, events, rules, present)
    gap = RULE_NUMBER["sequence_gap"]
    holes = kernels.mark_gaps(rule, events.kind, events.flags, _DUPLICATE, gap if "sequence_gap" in rules.on else 0)
    if "size_outlier" in rules.on:
        limits = rules.limits
        kernels.mark_size_outlier(rule, events, limits.size_multiple, limits.size_min_rows, RULE_NUMBER["size_outlier"])
    _judge_prices(rule, events, rules, present)
    if kernels.LEVEL in present:
        _judge_snapshots(rule, events, rules)
    if "stale_repeat" in rules.on:
        kernels.mark_stale_repeat(
            rule, events.kind, events.side, events.price, events.size, RULE_NUMBER["stale_repeat"]
        )
    if present & set(_ORDERS):
        if "outlier_price" in rules.on:
            prices.mark_far_orders(rule, events, rules.limits.far_order_share, RULE_NUMBER["outlier_price"])
        if "orphan" in rules.on:
            prices.mark_orphans(rule, events, _DUPLICATE, RULE_NUMBER["orphan"])
    if present & {kernels.DEPTH, kernels.ADD}:
        notes |= crossed_stretches(rule, events, rules.limits.crossed_grace_ns)
    kept = rule <= 0
    in_order = not unsorted and bool(np.all(np.diff(events.ts[kept]) >= 0))
    return Judgement(events.sequence[~kept], rule[~kept], _describe_holes(rule, events, holes, gap), notes, in_order)


def _judge_time(
    rule: NDArray[np.int16],
    events: Events,
    rules: VenueRules,
    present: frozenset[int],
    windows_ns: list[tuple[int, int]],
    auctions_ns: list[tuple[int, int]],
    notes: dict[str, int],
) -> None:
    on, limits = rules.on, rules.limits
    if "exact_duplicate" in on:
        previous = kernels.previous_rows(events, by_order=bool(present & set(_ORDERS)))
        kernels.mark_duplicates(rule, events, previous, _DUPLICATE)
    for name, windows, inside in (("auction", auctions_ns, True), ("out_of_session", windows_ns, False)):
        if name in on:
            opens, closes = (np.array([window[k] for window in windows], np.int64) for k in (0, 1))
            kernels.mark_windows(rule, events.ts, opens, closes, inside, RULE_NUMBER[name])
    gap = (events.kind == kernels.CLEAR) & ((events.flags & kernels.GAP) != 0)
    rule[gap & (rule == 0)] = kernels.PASS
    offset = int(np.median(events.ts - events.recv)) if "clock_skew" in on else 0
    if offset > 0:
        notes["receive_clock_behind_ns"] = offset
    if "clock_skew" in on:
        skew = RULE_NUMBER["clock_skew"]
        kernels.mark_clock_skew(rule, events.ts, events.recv, max(offset, 0), limits.clock_skew_ns, skew)
    if "out_of_order" in on:
        kernels.mark_out_of_order(rule, events.ts, limits.backward_tolerance_ns, RULE_NUMBER["out_of_order"])
    rule[((events.flags & int(Flag.RESYNC)) != 0) & (rule == 0)] = kernels.PASS


def _judge_rows(rule: NDArray[np.int16], events: Events, rules: VenueRules, present: frozenset[int]) -> None:
    """The rules that look at the row itself, and halts."""
    on, limits, number = rules.on, rules.limits, RULE_NUMBER
    kind, side, price, size, order_id, flags = events[3:]
    if "no_side" in on:
        kernels.mark_no_side(rule, kind, side, number["no_side"])
    if "non_positive_price" in on:
        kernels.mark_non_positive_price(rule, kind, side, price, size, flags, number["non_positive_price"])
    if "non_positive_size" in on:
        kernels.mark_non_positive_size(rule, kind, side, price, size, flags, number["non_positive_size"])
    if "off_tick" in on:
        kernels.mark_off_tick(rule, kind, flags, limits.off_tick_trades, number["off_tick"])
    if "suspicious" in on:
        kernels.mark_flagged(rule, kind, order_id, flags, kernels.SUSPICIOUS, False, number["suspicious"])
    if "trade_condition" in on:
        bits = sum(int(Flag[name]) for name in limits.trade_conditions)
        kernels.mark_flagged(rule, kind, order_id, flags, bits, True, number["trade_condition"])
    if "halted" in on and kernels.HALT in present and present & set(_BOOK_EVENTS):
        kernels.mark_halted(rule, kind, price, order_id, _DUPLICATE, number["halted"])


def _outliers(price: NDArray[np.int64], rules: VenueRules) -> NDArray[np.bool_]:
    limits = rules.limits
    return prices.outliers(
        price,
        limits.outlier_neighbours,
        limits.outlier_min_neighbours,
        limits.outlier_sds,
        limits.outlier_gamma_bps,
        limits.outlier_gamma_ticks,
    )


def _judge_prices(rule: NDArray[np.int16], events: Events, rules: VenueRules, present: frozenset[int]) -> None:
    """Outliers among trades and one-sided quotes, and stretches in which the quotes cross or lock."""
    series = prices.price_series(rule, events.kind, events.side)
    starts = prices.run_starts(series, events.price)
    outlying = np.zeros(len(rule), np.bool_)
    if "outlier_price" in rules.on:
        for one in (prices.TRADES, prices.BIDS, prices.ASKS):
            at = np.flatnonzero(starts & (series == one))
            outlying[at] = _outliers(events.price[at], rules)
        prices.mark_outlier_runs(rule, series, starts, outlying, RULE_NUMBER["outlier_price"])
    if kernels.QUOTE not in present:
        return
    at = np.flatnonzero(starts & (series != prices.TRADES) & ~outlying)
    graces = {"crossed_book": rules.limits.crossed_grace_ns, "locked_book": rules.limits.locked_grace_ns}
    for name, grace_ns in graces.items():
        if name in rules.on:
            stretches = prices.islands(at, events.ts, series, events.price, name == "locked_book", grace_ns)
            prices.mark_islands(rule, series, events.price, stretches, RULE_NUMBER[name])


def _judge_snapshots(rule: NDArray[np.int16], events: Events, rules: VenueRules) -> None:
    """One bad level makes the book unreliable, so that a snapshot by LEVEL goes from CLEAR to LAST."""
    on, number = rules.on, RULE_NUMBER
    member = prices.snapshot_members(rule, events.kind, events.flags, _DUPLICATE)
    facts = prices.snapshot_facts(rule, events, member, int(member.max()) + 1, _DUPLICATE)
    verdict = facts[:, prices.WORST].astype(np.int16)
    headless = (np.arange(len(facts)) == 0) | (facts[:, prices.WHOLE] == 0)
    if "broken_snapshot" in on:
        verdict[(verdict == 0) & headless] = number["broken_snapshot"]
    if "exact_duplicate" in on:
        verdict[prices.repeated_snapshots(rule, events, member, facts, _DUPLICATE)] = _DUPLICATE
    there = facts[:, prices.FIRST] >= 0
    bid, ask = facts[there, prices.BID], facts[there, prices.ASK]
    found = verdict[there]
    base = found == 0
    if "outlier_price" in on:
        off = _outliers(np.where(base, bid, 0), rules) | _outliers(np.where(base, ask, 0), rules)
        found[base & off] = number["outlier_price"]
    both = (bid > 0) & (ask > 0)
    if "crossed_book" in on:
        found[(found == 0) & both & (bid > ask)] = number["crossed_book"]
    if "locked_book" in on:
        found[(found == 0) & both & (bid == ask)] = number["locked_book"]
    verdict[there] = found
    prices.mark_snapshots(rule, member, verdict, _DUPLICATE)


def _describe_holes(rule: NDArray[np.int16], events: Events, holes: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
    """The holes' rows as times and counts; `rows lost` are those of sequence_gap up to the next hole or the end."""
    lost = np.concatenate([[0], np.cumsum(rule == gap)])
    stops = np.append(holes[1:, 0], len(rule))
    table = np.empty((len(holes), 5), np.int64)
    table[:, 0], table[:, 1] = events.sequence[holes[:, 0]], events.ts[holes[:, 0]]
    table[:, 2] = events.size[holes[:, 0]]
    table[:, 3] = np.where(holes[:, 1] >= 0, events.ts[holes[:, 1]], kernels.NO_END)
    table[:, 4] = lost[stops] - lost[holes[:, 0]]
    return table
