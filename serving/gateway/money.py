"""Money as integers in minor units, checked against int64 by hand: Python's integers would grow instead of failing."""

from serving.contracts.orders import INT64_MAX

BPS = 10_000


class MoneyOverflowError(ArithmeticError):
    """An amount that does not fit int64: refused before anything counts it."""


def checked(amount: int) -> int:
    """`amount` itself. Raises MoneyOverflowError outside of int64."""
    if not -INT64_MAX <= amount <= INT64_MAX:
        raise MoneyOverflowError(f"amount {amount} does not fit int64 ({INT64_MAX})")
    return amount


def worth(price_ticks: int, lots: int, tick_value: int) -> int:
    """Minor units of `lots` at `price_ticks`; `tick_value` is minor units a lot and tick. Raises MoneyOverflowError."""
    return checked(price_ticks * lots * tick_value)
