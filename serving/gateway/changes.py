"""Changing limits: tighter at once, looser when two people approved that exact change in time; postures only tighten.

What is tighter in a mixed document holds at once, the rest waits. The change that people approve is a hash over the
limits in force and the ones proposed, so that an approval is worth nothing once either differs.
"""

from typing import NamedTuple, cast

import msgspec

from serving.gateway.approvals import approve, propose
from serving.gateway.engine import Gateway
from serving.gateway.events import LimitsSet, PostureSet, Scope
from serving.gateway.limits import SCOPES, Limits, change_hash
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.money import BPS
from serving.gateway.people import person

POSTURE_LASTS_MAX_NS = 24 * 3600 * SECOND_NS


class Change(NamedTuple):
    """What became of a document of limits."""

    tightened: bool  # something holds already that is tighter than before
    change: str  # what two people must approve for the rest; empty where nothing is looser
    looser: tuple[str, ...]  # every way in which the rest lets more through


def propose_limits(gateway: Gateway, limits: Limits, by: str, now: Now) -> Change:
    """Let limits hold as far as they are tighter; propose the rest. Durable on return.

    Before any limits are in force everything is denied, so the first ones are a loosening too. Raises PersonError where
    `by` is no subject, JournalError.
    """
    who, clock, state = person(by), gateway.read_clock(now), gateway.state
    current, tightened = state.limits, False
    if current is not None:
        merged = current.tightest(limits)
        if merged.canonical() != current.canonical():
            gateway.record(LimitsSet(utc_ns=clock.utc_ns, document=merged.canonical(), why=f"tightened by {who}"))
            tightened, current = True, merged
    looser = tuple(limits.looser_than(current)) if current is not None else ("nothing is allowed without limits",)
    change = ""
    if looser:
        change = change_hash(current, limits)
        propose(gateway, "limits", change, limits.canonical(), who, now)
    gateway.commit(now)
    return Change(tightened, change, looser)


def approve_limits(gateway: Gateway, change: str, by: str, now: Now) -> bool:
    """Count a person's approval; True once the change holds. Durable on return.

    Raises PersonError where nobody proposed that change, its time is over, the limits changed since, or the same person
    comes twice; JournalError.
    """
    clock, state = gateway.read_clock(now), gateway.state

    def still(document: str) -> str:
        return change_hash(state.limits, Limits.parse(msgspec.json.decode(document)))

    agreed = approve(gateway, "limits", change, by, now, still)
    if agreed is not None:
        document, approvers = agreed
        why = "approved by " + " and ".join(approvers)
        gateway.record(LimitsSet(utc_ns=clock.utc_ns, document=document, why=why, change=change))
    gateway.commit(now)
    return agreed is not None


def set_posture(gateway: Gateway, scope: str, name: str, factor_bps: int, lasts_ns: int, by: str, now: Now) -> None:
    """Shrink a scope's limits to `factor_bps` of themselves for `lasts_ns`. Durable on return.

    Raises ValueError for a posture that would loosen: a factor above 10,000, or above that of a posture in force, or
    one that ends before it does. The service that sets it needs no second person: it can only tighten.
    """
    clock = gateway.read_clock(now)
    if scope not in SCOPES or (scope == "all") != (name == ""):
        raise ValueError(f"scope {scope!r} {name!r} is none of {', '.join(SCOPES)} with its name")
    if type(factor_bps) is not int or not 0 <= factor_bps <= BPS:
        raise ValueError(f"factor_bps {factor_bps!r} is not an integer from 0 to {BPS}: a posture only tightens")
    if type(lasts_ns) is not int or not 0 < lasts_ns <= POSTURE_LASTS_MAX_NS:
        raise ValueError(f"lasts_ns {lasts_ns!r} is not an integer from 1 to {POSTURE_LASTS_MAX_NS}")
    before = gateway.state.postures.get((scope, name))
    expires_ns = clock.utc_ns + lasts_ns
    if before is not None and factor_bps > before.factor_bps:
        raise ValueError(f"factor_bps {factor_bps} is looser than the posture in force ({before.factor_bps})")
    if before is not None and expires_ns < before.expires_ns:
        raise ValueError(f"the posture in force lasts longer, until {before.expires_ns}")
    gateway.record(
        PostureSet(
            utc_ns=clock.utc_ns,
            scope=cast(Scope, scope),
            name=name,
            factor_bps=factor_bps,
            expires_ns=expires_ns,
            lasts_ns=lasts_ns,
            by=by,
        )
    )
    gateway.commit(now)
