"""What an event of the day, the limits, the kill switch or the gateway's own standing does to the state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from serving.gateway import events as e
from serving.gateway.books import Node, SymbolBook
from serving.gateway.limits import Limits

if TYPE_CHECKING:
    from serving.gateway.state import State

APPROVERS = 2
"""Distinct certificate subjects that loosening a limit or liquidating under a kill takes."""


def opened(state: "State", event: e.Opened) -> None:
    """Begin halted; what people had half agreed on must be agreed again."""
    if event.epoch <= state.epoch:
        raise ValueError(f"epoch {event.epoch} does not follow {state.epoch}: another writer was here")
    state.epoch = event.epoch
    state.halted, state.reconciled = "recovering: not reconciled yet", False
    state.proposals.clear()
    for scope, name in list(state.liquidations):
        _stop_liquidation(state, scope, name)


def marked(state: "State", event: e.Marked) -> None:
    """Revalue the legs that hold the symbols."""
    nodes: dict[int, Node] = {}
    for symbol, ticks in event.marks:
        book = state.symbols[symbol]
        book.mark = ticks
        for leg in book.legs:
            leg.mark()
            nodes.update((id(node), node) for node in leg.nodes)
    for node in nodes.values():
        node.raise_peak()


def day_started(state: "State", event: e.DayStarted) -> None:
    """Put the operator's book in place of yesterday's."""
    if state.day_open or event.date <= state.date:
        raise ValueError(f"day {event.date} cannot start after {state.date} ({'open' if state.day_open else 'ended'})")
    state.date, state.opens_ns, state.closes_ns, state.day_open = event.date, event.opens_ns, event.closes_ns, True
    for node in state.nodes.values():
        node.start_day()
    for container in (
        state.symbols,
        state.exposures,
        state.legs,
        state.own,
        state.orders,
        state.keys,
        state.executions,
    ):
        container.clear()
    state.forget_sums()
    for instrument in event.instruments:
        book = state.symbols[instrument.symbol] = SymbolBook(instrument)
        book.restricted = instrument.symbol in event.restricted
    for holding in event.holdings:
        leg = state.leg(holding.account, holding.strategy, holding.symbol)
        leg.position += holding.lots
        leg.cost += holding.lots * leg.book.mark * leg.book.instrument.tick_value
        for exposure in leg.exposures:
            exposure.position += holding.lots
        leg.mark()
    for locate in event.locates:
        state.exposure("account", locate.account, locate.symbol).located += locate.lots
    _forget_proposals(state, "day")
    state.revision += 1


def day_tightened(state: "State", event: e.DayTightened) -> None:
    """Let less through; what would let more through stays as it is."""
    for symbol in event.restricted:
        state.symbols[symbol].restricted = True
    for locate in event.locates:
        exposure = state.exposure("account", locate.account, locate.symbol)
        exposure.located = min(exposure.located, locate.lots)
    for symbol, lots in event.adv_lots:
        book = state.symbols[symbol]
        book.instrument = msgspec.structs.replace(book.instrument, adv_lots=min(book.instrument.adv_lots, lots))
    for symbol in event.needs_locate:
        book = state.symbols[symbol]
        book.instrument = msgspec.structs.replace(book.instrument, needs_locate=True)
    state.revision += 1


def day_ended(state: "State", event: e.DayEnded) -> None:
    """Forget the day's orders and keys; positions stay to be compared with tomorrow's book."""
    if not state.day_open or event.date != state.date:
        raise ValueError(f"day {event.date} is not the open one ({state.date if state.day_open else 'none'})")
    if state.open_orders:
        raise ValueError(f"{len(state.open_orders)} orders are still open, the first one {min(state.open_orders)}")
    state.day_open = False
    for container in (state.orders, state.keys, state.executions, state.own):
        container.clear()
    state.forget_sums()
    state.revision += 1


def limits_set(state: "State", event: e.LimitsSet) -> None:
    """Let new limits hold; a pending change that was measured against the old ones is void."""
    state.limits = Limits.recall(event.document)
    _forget_proposals(state, "limits")
    state.revision += 1


def access_set(state: "State", event: e.AccessSet) -> None:
    """Note who may do what; a pending change that was measured against the former is void."""
    state.access = event.access
    _forget_proposals(state, "access")


def _forget_proposals(state: "State", kind: str) -> None:
    for change in [change for change, proposal in state.proposals.items() if proposal.kind == kind]:
        del state.proposals[change]


def proposed(state: "State", event: e.Proposed) -> None:
    """Keep a document until two people approve it."""
    from serving.gateway.dump import Proposal

    state.proposals[event.change] = Proposal(event.document, event.by, event.expires_ns, [], event.kind)


def approved(state: "State", event: e.Approved) -> None:
    """Count a person once."""
    approvals = state.proposals[event.change].approvals
    if event.by not in approvals:
        approvals.append(event.by)


def withdrawn(state: "State", event: e.Withdrawn) -> None:
    """Drop a proposal."""
    state.proposals.pop(event.change, None)


def posture_set(state: "State", event: e.PostureSet) -> None:
    """Shrink a scope's limits."""
    from serving.gateway.dump import Posture

    state.postures[event.scope, event.name] = Posture(event.factor_bps, event.expires_ns, event.lasts_ns)
    state.revision += 1


def posture_ended(state: "State", event: e.PostureEnded) -> None:
    """Let a scope's limits be what they are again."""
    state.postures.pop((event.scope, event.name), None)
    state.revision += 1


def killed(state: "State", event: e.Killed) -> None:
    """Latch the kill; a liquidation under an earlier one must be ordered again, and the book be compared again."""
    _stop_liquidation(state, event.scope, event.name)
    state.node(event.scope, event.name).killed = True
    state.reconciled = False


def liquidation_ordered(state: "State", event: e.LiquidationOrdered) -> None:
    """Count a person; with the second, reduce-only orders pass the kill."""
    before = state.liquidations.get((event.scope, event.name), {})
    people = {by: expires_ns for by, expires_ns in before.items() if event.utc_ns < expires_ns}
    people[event.by] = event.expires_ns
    state.liquidations[event.scope, event.name] = people
    state.node(event.scope, event.name).liquidating = len(people) >= APPROVERS


def liquidation_ended(state: "State", event: e.LiquidationEnded) -> None:
    """Block reduce-only orders again."""
    _stop_liquidation(state, event.scope, event.name)


def rearmed(state: "State", event: e.Rearmed) -> None:
    """Lift a kill."""
    if not state.reconciled:
        raise ValueError("re-armed without a reconciled book")
    _stop_liquidation(state, event.scope, event.name)
    state.node(event.scope, event.name).killed = False


def _stop_liquidation(state: "State", scope: str, name: str) -> None:
    state.liquidations.pop((scope, name), None)
    state.node(scope, name).liquidating = False


def halted(state: "State", event: e.Halted) -> None:
    """Refuse every new order; the book must be compared again before arming."""
    state.halted, state.reconciled = event.reason or "halted", False


def reconciled(state: "State", event: e.Reconciled) -> None:
    """Note whether the book agrees with the venue's."""
    state.reconciled = not event.breaks


def armed(state: "State", event: e.Armed) -> None:
    """Let orders through."""
    if not state.reconciled:
        raise ValueError("armed without a reconciled book")
    state.halted = ""


def enabled(state: "State", event: e.Enabled) -> None:
    """Reset what a person looked at."""
    node = state.node(event.scope, event.name)
    node.applied = node.rejects = 0
    node.tripped = ""


def snapshot(state: "State", event: e.Snapshot) -> None:
    """Become the state of the file before.

    Raises ValueError where its hash is another one, or something came before.
    """
    from serving.gateway.dump import decode_dump

    if state.next_id != 1 or state.epoch or state.limits:
        raise ValueError("a snapshot stands at the beginning of a file only")
    state.load(decode_dump(event.state))
    if state.hash() != event.state_hash:
        raise ValueError(f"snapshot gives the state {state.hash()[:16]}, its file says {event.state_hash[:16]}")


EFFECTS: dict[type, Callable[["State", Any], None]] = {
    e.Opened: opened,
    e.Marked: marked,
    e.DayStarted: day_started,
    e.DayTightened: day_tightened,
    e.DayEnded: day_ended,
    e.LimitsSet: limits_set,
    e.Proposed: proposed,
    e.Approved: approved,
    e.Withdrawn: withdrawn,
    e.AccessSet: access_set,
    e.PostureSet: posture_set,
    e.PostureEnded: posture_ended,
    e.Killed: killed,
    e.LiquidationOrdered: liquidation_ordered,
    e.LiquidationEnded: liquidation_ended,
    e.Rearmed: rearmed,
    e.Halted: halted,
    e.Reconciled: reconciled,
    e.Armed: armed,
    e.Enabled: enabled,
    e.Snapshot: snapshot,
}
