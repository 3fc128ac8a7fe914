"""The cleaning rules: what each catches, where it comes from, and every number that they use.

An event is quarantined once, under the first rule of `RULES` that catches it; a later rule sees only what the earlier
ones let through. Which rules a venue uses, and with what limits, stands in `venues.yaml` (`venue_rules`). The tests
themselves are compiled kernels over one partition (venue, symbol, session date) in the vendor's order: `rule_kernels`
and `price_rules`, called in order by `judge`.

No rule judges an event flagged CARRIED (the book handed on from the day before). One flagged RESYNC (the vendor's own
book) and a CLEAR flagged GAP are judged by their time alone, and the latter not by its order: without it the hole in
the book would go unseen.
"""

from dataclasses import dataclass

RULES: dict[str, str] = {
    "exact_duplicate": "the row repeats the one before it in every column but `sequence`; for an event that names "
    "an order, the order's previous event. A TRADE without an order id is never a duplicate: equal prints in the "
    "same millisecond are how one order fills against several (one in five of AIG's). A snapshot repeats as a whole",
    "auction": "ts_event lies in a call auction of the venue (`auctions` in venues.yaml): orders gather, the book "
    "may cross lawfully and one price clears it, so its prices are no continuous market's",
    "out_of_session": "ts_event lies outside [open, close) of every trading window of the instrument that day",
    "clock_skew": "received before it happened: ts_recv is before ts_event by more than the tolerance on top of the "
    "usual difference of the two clocks, the day's median (a receiver's clock 1.5 s behind, as in Binance's 2024 "
    "samples, condemns no row; a single wrong stamp does)",
    "out_of_order": "ts_event is behind the latest one seen by more than the tolerance; or far ahead: the events "
    "that follow all run earlier, so one wrong clock does not condemn the rest of the day",
    "no_side": "a QUOTE, LEVEL, DEPTH or ADD that does not say whether it bids or asks: it can be put on no side",
    "non_positive_price": "price_ticks <= 0 where the kind needs a price. A QUOTE or LEVEL of price 0 and size 0 "
    "says that its side is empty and is kept",
    "non_positive_size": "size <= 0 where the kind needs a size and the vendor gives one (not NO_SIZE); of DEPTH "
    "only size < 0, since 0 takes the price out of the book",
    "off_tick": "the vendor's price lies between two ticks (SUB_TICK) on a quote, level or order: nothing can rest "
    "there (for US stocks from 1 USD up Regulation NMS, rule 612). Trades stay unless `off_tick_trades` is set: "
    "midpoint and price improvement print between ticks",
    "suspicious": "the vendor flagged the row itself",
    "trade_condition": "a TRADE whose conditions say that it sets no price: reported late or out of sequence, "
    "cancelled, or priced by another market or time (CTA and UTP plan specifications: sale conditions that do not "
    "update last, high and low); of less than a round lot where `trade_conditions` names ODD_LOT. An execution of a "
    "resting order stays, for it changes the book",
    "halted": "a TRADE between a HALT and the next event that shows the book alive (not a CANCEL: orders are taken "
    "back in a halt); quotes and orders may change in a halt and stay, an execution of a resting order ends nothing "
    "and stays. Not judged where the source has trades alone, which show no end of a halt",
    "sequence_gap": "a DEPTH update between a CLEAR flagged GAP (by the vendor's numbering updates are missing) and "
    "the next snapshot: it can be applied to no known book. The CLEAR stays, so that the book is unknown meanwhile, "
    "and each hole is listed in holes.parquet",
    "size_outlier": "the size is more than 1,000 times the day's 99th percentile (of the symbol's trades; of what "
    "rests). The largest real sizes are 365 times theirs among trades (a block of BAC) and 394 times among what rests "
    "(a bid of Binance's far from the touch), of AIG 239, of SHFE rebar 9; a price in the size's place is beyond",
    "broken_snapshot": "a snapshot without its CLEAR or without the row flagged LAST: the book is not whole after it",
    "outlier_price": "the price stands off its neighbours before AND after, on the same side, by more than 3 "
    "standard deviations + gamma: Brownlees and Gallo, 'Financial econometric analysis at ultra-high frequency' "
    "(2006), sec. 2.1, with the trimmed mean taken on each side so that a real move, which the prices after it "
    "confirm, stays. An ADD or REPLACE (orders may rest far away) only where it is off the median trade by more "
    "than half",
    "crossed_book": "bid above ask: a whole snapshot; for one-sided quotes, the quotes of the side that crossed, "
    "from the crossing until the other side gives way, when that takes longer than the grace (a cross between the "
    "two updates of one move is normal), and quotes of the other side that would cross what is left. A book of "
    "DEPTH or orders that stands crossed is counted in the accounting's notes and stays: nobody says which update "
    "is wrong",
    "locked_book": "bid equal to ask: as crossed_book, with a longer grace",
    "stale_repeat": "a QUOTE that repeats its side's standing price and size: it says nothing new",
    "orphan": "CANCEL, REPLACE or TRADE of an order whose ADD or REPLACE was quarantined: without it the book would "
    "lose lots that it never held",
}
"""Name to meaning, in the order of precedence."""

RULE_NUMBER: dict[str, int] = {name: number for number, name in enumerate(RULES, start=1)}
"""The number that stands for a rule in kernels and in Spark."""

TRADE_CONDITIONS = ("LATE", "CANCELLED", "DERIVED", "ODD_LOT")
"""Flags that `trade_conditions` may name."""


@dataclass(frozen=True)
class CleanLimits:
    """Every number that the rules use."""

    backward_tolerance_ns: int = 0  # how far ts_event may run backwards; 0 keeps vendor order and time order the same
    clock_skew_ns: int = 1_000_000_000  # a clock set by NTP over the internet is right to tens of milliseconds
    off_tick_trades: bool = False
    trade_conditions: tuple[str, ...] = ("LATE", "CANCELLED", "DERIVED")  # of TRADE_CONDITIONS
    size_multiple: int = 1_000  # of the day's 99th percentile
    size_min_rows: int = 100  # fewer sizes say nothing of what is usual
    outlier_neighbours: int = 20  # changed prices on each side that make the trimmed mean
    outlier_min_neighbours: int = 5  # a side with fewer has no say; with neither side a price is not judged
    outlier_sds: float = 3.0
    outlier_gamma_bps: float = 25.0  # floor of the deviation: Brownlees and Gallo's granularity parameter
    outlier_gamma_ticks: int = 8  # the same where a tick is large against the price
    far_order_share: float = 0.5  # an order this far from the day's median trade, as a share of it, cannot be meant
    crossed_grace_ns: int = 100_000_000  # AIG crosses 14 times a day, mostly for 1 ms
    locked_grace_ns: int = 1_000_000_000  # locks are lawful on the way through a level; AIG's last 1 ms in the median
