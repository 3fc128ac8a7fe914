"""The kill switch: latched, durable, for everything or one scope.

Blocks first, then persists, then cancels until confirmed.
"""

from typing import NamedTuple, cast

from serving.gateway.control_events import APPROVERS
from serving.gateway.engine import Gateway
from serving.gateway.events import Enabled, Killed, LiquidationOrdered, Rearmed, Scope
from serving.gateway.limits import SCOPES
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.people import PersonError, person
from serving.gateway.watch import Watch

LIQUIDATION_LASTS_NS = 15 * 60 * SECOND_NS


class KillAnswer(NamedTuple):
    """What a kill did. New orders of the scope are blocked in any case."""

    persisted: bool
    flushed: bool  # every message before is known to have reached its venue
    open_orders: int  # of the scope, whose cancels are not confirmed yet
    message: str


class Blocked(NamedTuple):
    """What stands once a scope is blocked."""

    persisted: bool
    open_orders: int  # of the scope, whose cancels are not confirmed yet


def kill(watch: Watch, scope: str, name: str, by: str, reason: str, now: Now) -> KillAnswer:
    """Stop a scope. Whoever asks may: no second person, and no name that must be known.

    Blocks in memory before anything else; what was decided and has not left stays. Raises ValueError where the scope is
    none; nothing else is ever refused.
    """
    blocked = block(watch, scope, name, by, reason, now)
    try:
        flushed = watch.gateway.transport.barrier()
    except Exception:
        flushed = False
    return answer(blocked, flushed)


def block(watch: Watch, scope: str, name: str, by: str, reason: str, now: Now) -> Blocked:
    """The part of a kill that waits for nobody: latch, cancel. Raises ValueError where the scope is none."""
    return clear(watch, scope, name, latch(watch.gateway, scope, name, by, reason, now), now)


def latch(gateway: Gateway, scope: str, name: str, by: str, reason: str, now: Now) -> bool:
    """Block a scope in memory, then persist; whether that is durable. Raises ValueError where the scope is none."""
    check_scope(scope, name)
    stop(gateway, scope, name, by, reason, now)
    try:
        gateway.commit(now)
    except Exception as error:
        gateway.broken = gateway.broken or f"a kill could not be recorded: {type(error).__name__}: {error}"
        return False
    return True


def stop(gateway: Gateway, scope: str, name: str, by: str, reason: str, now: Now) -> None:
    """Block a scope in memory; the next commit persists it. Never raises: a failure breaks the gateway."""
    try:
        utc_ns = gateway.read_clock(now).utc_ns
        # applied first: blocked from here on, whatever the disk says
        gateway.record(Killed(utc_ns=utc_ns, scope=cast(Scope, scope), name=name, by=by, reason=reason))
    except Exception as error:
        # whatever failed, nothing passes a broken gateway
        gateway.broken = gateway.broken or f"a kill could not be recorded: {type(error).__name__}: {error}"


def clear(watch: Watch, scope: str, name: str, persisted: bool, now: Now) -> Blocked:
    """Cancel what a latched scope has open: with the journal, or without one that failed."""
    gateway = watch.gateway
    node = gateway.state.node(scope, name)
    try:
        watch.sweep(now, None if gateway.broken else node)
        gateway.commit(now)
    except Exception:  # broken by now, its cancels gone without the journal; or the watch's next tick tries again
        persisted = persisted and not gateway.broken
    return Blocked(persisted, node.open_orders)


def answer(blocked: Blocked, flushed: bool) -> KillAnswer:
    """What the caller of a kill hears."""
    message = (
        "blocked" + ("" if blocked.persisted else ", not persisted") + (", flushed" if flushed else ", not flushed")
    )
    return KillAnswer(blocked.persisted, flushed, blocked.open_orders, message)


def order_liquidation(gateway: Gateway, scope: str, name: str, by: str, now: Now) -> bool:
    """Count a person's order to liquidate a killed scope; True once reduce-only orders may pass. Durable on return.

    Raises PersonError where the same person comes twice, ValueError where the scope is not killed, JournalError.
    """
    who, clock = person(by), gateway.read_clock(now)
    check_scope(scope, name)
    if not gateway.state.node(scope, name).killed:
        raise ValueError(f"{scope} {name}".strip() + " is not killed: there is nothing to liquidate under")
    people = gateway.state.liquidations.get((scope, name), {})
    if who in people and clock.utc_ns < people[who]:
        raise PersonError(f"{who} ordered it already: another person must")
    gateway.record(
        LiquidationOrdered(
            utc_ns=clock.utc_ns,
            scope=cast(Scope, scope),
            name=name,
            by=who,
            expires_ns=clock.utc_ns + LIQUIDATION_LASTS_NS,
        )
    )
    gateway.commit(now)
    return len(gateway.state.liquidations[scope, name]) >= APPROVERS


def rearm(gateway: Gateway, scope: str, name: str, by: str, now: Now) -> None:
    """Lift a kill. Durable on return.

    Raises PersonError where `by` is no person; ValueError where the scope is not killed, has open orders, or the book
    was not reconciled since the kill; JournalError.
    """
    who, clock, state = person(by), gateway.read_clock(now), gateway.state
    check_scope(scope, name)
    node = state.node(scope, name)
    if not node.killed:
        raise ValueError(f"{scope} {name}".strip() + " is not killed")
    if node.open_orders:
        raise ValueError(f"{node.open_orders} orders of {scope} {name}".strip() + " are not confirmed cancelled")
    if not state.reconciled:
        raise ValueError("the book was not reconciled since the kill")
    gateway.record(Rearmed(utc_ns=clock.utc_ns, scope=cast(Scope, scope), name=name, by=who))
    gateway.commit(now)


def enable(gateway: Gateway, scope: str, name: str, by: str, now: Now) -> None:
    """Reset what tripped in a scope (repeated orders, rejects, false fills): a person looked at it. Durable on return.

    Raises PersonError, ValueError where the scope is none, JournalError.
    """
    who, clock = person(by), gateway.read_clock(now)
    check_scope(scope, name)
    gateway.record(Enabled(utc_ns=clock.utc_ns, scope=cast(Scope, scope), name=name, by=who))
    gateway.commit(now)


def check_scope(scope: str, name: str) -> None:
    """Raise ValueError where there can be no such scope."""
    if scope not in SCOPES or (scope == "all") != (name == ""):
        raise ValueError(f"scope {scope!r} {name!r} is none of {', '.join(SCOPES)} with its name")
