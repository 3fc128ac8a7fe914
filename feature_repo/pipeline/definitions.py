"""What each feature is: unit, definition, source, and what becomes of it when bids and asks change places.

The order is that of the vector which `feature_kernel.close_bar` writes; new features are appended. Windows such as
`10s` count bars, which are seconds on the time grid; they reach back to the session window's open at most. What is not
defined is 0: price features without a two-sided book, flows without trades, usual volumes without earlier days.
docs/features.md gives the formulas.
"""

from dataclasses import dataclass

SAME, SIGN = "same", "sign"


@dataclass(frozen=True)
class Feature:
    """One feature; `mirror` says how it looks in a market whose bids and asks change places.

    `mirror` is SAME, SIGN (it changes sign) or the name of the feature whose value it takes.
    """

    name: str
    unit: str
    definition: str
    source: str
    mirror: str = SAME


_OFI = "Cont, Kukanov and Stoikov 2014, eq. 2"
_DEEP_OFI = "Xu, Gould and Howison 2018; scaling of Cont, Cucuringu and Zhang 2023"
_RV = "Andersen and Bollerslev 1998"
_BV = "Barndorff-Nielsen and Shephard 2004"
_RSV = "Barndorff-Nielsen, Kinnebrock and Shephard 2010"
_HAWKES = "Hawkes 1971, exponential kernel"
_SLOPE = "Naes and Skjeltorp 2006"
_BOUGHT = "aggressor of the vendor, else Lee and Ready 1991"

DEFINITIONS: tuple[Feature, ...] = (
    Feature("spread_ticks", "ticks", "best ask - best bid", ""),
    Feature(
        "microprice_dev", "ticks", "weighted mid - mid: (ask qb + bid qa) / (qa + qb) - mid",
        "Gatheral and Oomen 2010", SIGN,
    ),
    Feature("imbalance_l1", "share", "queue imbalance (qb - qa) / (qb + qa) at the best",
            "Gould and Bonart 2016", SIGN),
    Feature("imbalance_depth", "share", "the same over all visible levels", "Cao, Hansch and Wang 2009", SIGN),
    *(
        Feature(f"ofi_{bars}s", "depths", "order-flow imbalance at the best / mean best depth", _OFI, SIGN)
        for bars in (1, 10, 60)
    ),
    Feature("rv_10s", "bps", "root of the realized variance: sum of squared log returns of the mid, a bar each", _RV),
    Feature("rv_60s", "bps", "the same over 60 bars", _RV),
    Feature("return_10s", "bps", "log return of the mid", "", SIGN),
    Feature("return_60s", "bps", "log return of the mid", "", SIGN),
    Feature("trade_flow_10s", "share", "(bought - sold) / traded lots", _BOUGHT, SIGN),
    Feature("trade_flow_60s", "share", "(bought - sold) / traded lots", _BOUGHT, SIGN),
    Feature("trade_volume_60s", "log(1 + lots)", "traded lots", ""),
    Feature("event_rate_10s", "log(1 + book changes per second)", "book rows per second", ""),
    Feature("time_of_day", "share", "elapsed share of the day's trading time", ""),
    *(
        Feature(f"ofi_l{level}_10s", "depths",
                f"order-flow imbalance of level {level} / mean depth of levels 1 to 5", _DEEP_OFI, SIGN)
        for level in (1, 2, 3, 4, 5)
    ),
    *(
        Feature(f"ofi_mean_{bars}s", "depths", "integrated order-flow imbalance: mean of the visible levels 1 to 5",
                _DEEP_OFI, SIGN)
        for bars in (1, 10, 60)
    ),
    Feature("microprice_adj", "ticks", "microprice - mid: fitted table of imbalance and spread", "Stoikov 2018",
            SIGN),
    Feature("depth_best", "log(1 + lots)", "lots at the best bid and ask", ""),
    Feature("depth_total", "log(1 + lots)", "lots at all visible levels of both sides", ""),
    Feature("book_slope", "log lots per bps", "mean over the sides of the slope of log depth in price, levels 1 to 5",
            _SLOPE),
    Feature("book_slope_imbalance", "share", "(bid slope - ask slope) / (bid slope + ask slope)", _SLOPE, SIGN),
    Feature("bipower_60s", "bps", "root of the bipower variation: pi/2 sum of |r| |r before it|", _BV),
    Feature("jump_60s", "bps", "root of the jump part: max(realized variance - bipower variation, 0)", _BV),
    Feature("semivariance_up_60s", "bps", "root of the sum of squared returns above 0", _RSV, "semivariance_down_60s"),
    Feature("semivariance_down_60s", "bps", "root of the sum of squared returns below 0", _RSV, "semivariance_up_60s"),
    Feature("kyle_lambda_60s", "bps per lot", "slope of the bars' returns on their bought - sold lots, with intercept",
            "Kyle 1985, theorem 1"),
    Feature("amihud_60s", "bps per lot", "mean of |return| / traded lots over the bars with trades",
            "Amihud 2002, eq. 1"),
    Feature("vpin", "share", "one-sided share of the last 50 volume buckets, each a 50th of a day's volume",
            "Easley, Lopez de Prado and O'Hara 2012"),
    Feature("hawkes_buy_1s", "trades per second", "decayed count of buys, half-life 1 s", _HAWKES, "hawkes_sell_1s"),
    Feature("hawkes_sell_1s", "trades per second", "decayed count of sells, half-life 1 s", _HAWKES, "hawkes_buy_1s"),
    Feature("hawkes_buy_10s", "trades per second", "as above, half-life 10 s", _HAWKES, "hawkes_sell_10s"),
    Feature("hawkes_sell_10s", "trades per second", "as above, half-life 10 s", _HAWKES, "hawkes_buy_10s"),
    Feature("trade_rate_10s", "log(1 + trades per second)", "trades per second", ""),
    Feature("cancel_ratio_10s", "share", "lots that left the best queues untraded / all lots that joined or left them",
            ""),
    Feature("volume_curve", "share", "share of a usual day's volume that has passed by now, from earlier days",
            "Bialkowski, Darolles and Le Fol 2008"),
    Feature("remaining_volume", "log(1 + lots)", "lots of a usual day that are still to come, from earlier days", ""),
    Feature("volume_curve_known", "flag", "1: earlier days tell the two features before it", ""),
)  # fmt: skip

FEATURES: tuple[str, ...] = tuple(feature.name for feature in DEFINITIONS)
FEATURE_UNITS: dict[str, str] = {feature.name: feature.unit for feature in DEFINITIONS}
SIGNAL_V1: tuple[str, ...] = FEATURES[:16]
"""What the first signal models and policies were trained on, in their order: names, order and values never change."""
