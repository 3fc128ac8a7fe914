"""Which parent orders are taken: what cannot be worked is refused with its value and limit."""

from typing import TYPE_CHECKING

from serving.parents.orders import Parent
from serving.parents.outputs import ParentRequest, Refusal

if TYPE_CHECKING:
    from serving.parents.core import Core

MAX_NAME = 64


def check(core: "Core", request: ParentRequest) -> tuple[str, str]:
    """Strategy and trader of a parent that may be taken. Raises Refusal."""
    rules = core.rules.accounts.get(request.account)
    if rules is None:
        raise Refusal("unknown", f"account {request.account} is not worked here")
    for name, value in (("parent_id", request.parent_id), ("strategy", request.strategy or rules.strategy),
                        ("trader", request.trader or rules.trader)):  # fmt: skip
        if not 0 < len(value) <= MAX_NAME or not value.isascii() or not value.isprintable():
            raise Refusal("invalid", f"{name} {value[:80]!r} is not printable ASCII of 1 to {MAX_NAME} characters")
    if request.strategy not in ("", rules.strategy):
        raise Refusal("invalid", f"strategy {request.strategy} is not {rules.strategy}, that of this account")
    if request.symbol not in core.markets:
        raise Refusal("unknown", f"symbol {request.symbol[:80]!r} is not followed here")
    if request.side not in (1, -1):
        raise Refusal("invalid", f"side {request.side!r} is neither 1 (buy) nor -1 (sell)")
    for name, number, limit in (("lots", request.lots, core.rules.max_lots),
                               ("horizon_ns", request.horizon_ns, core.rules.max_horizon_ns)):  # fmt: skip
        if type(number) is not int or not 1 <= number <= limit:
            raise Refusal("invalid", f"{name} {number!r} is not an integer from 1 to {limit}")
    if type(request.start_ns) is not int or not 0 <= request.start_ns < 2**63 - core.rules.max_horizon_ns:
        raise Refusal("invalid", f"start {request.start_ns!r} is no time in ns")
    if request.start_ns and core.now_ns and core.state.find(request.account, request.parent_id) is None:
        _check_time(core, request)
    return rules.strategy, request.trader or rules.trader


def _check_time(core: "Core", request: ParentRequest) -> None:
    """Refuse a parent whose time is over, or that its session has no room for. Raises Refusal."""
    start, end = request.start_ns, request.start_ns + request.horizon_ns
    if end <= core.now_ns:
        raise Refusal("invalid", f"the horizon ends at {end} ns, the market is at {core.now_ns} ns")
    window = core.markets[request.symbol].window_of(start)
    if window is not None and end + core.rules.room_ns > window[1]:
        raise Refusal(
            "invalid", f"the horizon needs the market until {end + core.rules.room_ns} ns, its session window "
            f"closes at {window[1]} ns",
        )  # fmt: skip


def is_same(known: Parent, request: ParentRequest, strategy: str) -> bool:
    """Whether a request is the one that a parent was taken for."""
    asked = (request.symbol, request.side, request.lots, request.horizon_ns, request.start_ns, strategy)
    first = (known.symbol, known.side, known.asked_lots, known.horizon_ns, known.start_ns, known.strategy)
    return asked == first and request.parent_id == known.first_id
