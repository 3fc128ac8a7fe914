"""Parents as others see them: plain values for HTTP."""

from typing import Any

from serving.parents.orders import Child, Parent, Phase
from serving.parents.outputs import Run
from serving.parents.records import Shadowed

SIDES = {1: "buy", -1: "sell"}


def status_of(parent: Parent) -> str:
    """One word: waiting, working, finishing, cancelling, or how it ended."""
    return parent.phase.name.lower() if parent.how is None else parent.how


def parent_view(parent: Parent, run: Run | None) -> dict[str, Any]:
    """A parent order with its child orders."""
    denied = parent.denied
    return {
        "parent_id": parent.parent_id, "number": parent.number, "account": parent.account,
        "strategy": parent.strategy, "venue": parent.venue, "symbol": parent.symbol, "side": SIDES[parent.side],
        "lots": parent.lots, "filled_lots": parent.filled, "left_lots": parent.left, "open_lots": parent.exposed,
        "horizon_s": parent.horizon_ns / 1e9, "start": parent.start_ns or None, "status": status_of(parent),
        "reason": parent.reason, "began_ns": parent.began_ns or None, "end_ns": parent.end_ns or None,
        "ended_ns": parent.finished_ns or None,
        "arrival_ticks": parent.arrival_mid2 / 2 if parent.arrival_mid2 else None,
        "version": parent.plan.version, "sha256": parent.plan.sha256, "fallback": parent.fallback or None,
        "decisions": parent.step, "last_decision": parent.last_decision or None,
        "waits_for": (run.waits_for or None) if run is not None and parent.phase is not Phase.ENDED else None,
        "denied": None if denied is None else {
            "control": denied.control, "message": denied.message, "value": denied.value, "limit": denied.limit,
            "market_ns": denied.market_ns, "in_a_row": parent.denials,
        },
        "children": [child_view(child) for child in parent.children.values()],
    }  # fmt: skip


def child_view(child: Child) -> dict[str, Any]:
    """A child order."""
    return {
        "key": child.key, "order_id": child.order_id or None, "strategy": child.request.strategy, "kind": child.kind,
        "price_ticks": child.price_ticks or None, "lots": child.lots, "filled_lots": child.filled,
        "stage": child.stage.name.lower(), "reason": child.reason,
    }  # fmt: skip


def tca_view(parent: Parent) -> dict[str, Any]:
    """The cost analysis of a finished parent."""
    return {
        "parent_id": parent.parent_id, "account": parent.account, "symbol": parent.symbol,
        "side": SIDES[parent.side], "began_ns": parent.began_ns or None, "ended_ns": parent.finished_ns,
        **parent.tca,
        "fills": [
            {
                "exec_id": exec_id, "ts_ns": execution.ts_ns, "price_ticks": execution.mark.price_ticks,
                "lots": execution.mark.lots, "passive": execution.mark.passive,
            }
            for child in parent.children.values() for exec_id, execution in child.executions.items()
            if execution.mark.lots
        ],
    }  # fmt: skip


def shadow_view(shadow: Shadowed, parent: Parent) -> dict[str, Any]:
    """A decision of the challenger, that was recorded and not sent."""
    return {
        "parent_id": parent.parent_id, "step": shadow.step, "market_ns": shadow.market_ns,
        "version": shadow.version, "sha256": shadow.sha256, "action": list(shadow.action),
        "order": list(shadow.order), "error": shadow.error or None,
    }  # fmt: skip
