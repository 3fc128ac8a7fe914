"""What takes two people: one exact change, known by its hash, for a while, each person counted once.

A proposal stands in the journal with its document. A restart, or a change of what it was measured against, voids it.
Nobody is two people here, however a subject is spelled; that a token is no certificate is for the admin plane to say.
"""

from collections.abc import Callable
from typing import cast

from serving.gateway.control_events import APPROVERS
from serving.gateway.engine import Gateway
from serving.gateway.events import Approved, Proposed, ProposedKind, Withdrawn
from serving.gateway.live import SECOND_NS, Now
from serving.gateway.people import PersonError, person

APPROVAL_LASTS_NS = 15 * 60 * SECOND_NS
PROPOSALS_MAX = 16
"""Changes of one person that wait at once; his oldest gives way. They stand in the state and in every snapshot."""


def propose(gateway: Gateway, kind: ProposedKind, change: str, document: str, by: str, now: Now) -> None:
    """Let a change wait for two people; durable with the next `Gateway.commit`. Raises PersonError."""
    clock, who = gateway.read_clock(now), person(by)
    others = [key for key, item in gateway.state.proposals.items() if item.by == who and key != change]
    for oldest in others[: max(0, len(others) + 1 - PROPOSALS_MAX)]:
        why = f"{who} proposed {PROPOSALS_MAX} others since"
        gateway.record(Withdrawn(utc_ns=clock.utc_ns, change=oldest, why=why))
    expires_ns = clock.utc_ns + APPROVAL_LASTS_NS
    gateway.record(
        Proposed(utc_ns=clock.utc_ns, change=change, document=document, by=who, expires_ns=expires_ns, kind=kind)
    )


def approve(
    gateway: Gateway, kind: ProposedKind, change: str, by: str, now: Now, still: Callable[[str], str]
) -> tuple[str, tuple[str, ...]] | None:
    """Count a person; the document and its approvers once there are enough, else None. Durable with the next commit.

    `still` gives the hash that a document would be proposed under now. Raises PersonError where nobody proposed that
    change, its time is over, what it would change is another by now, or the same person comes twice; whatever `still`
    raises, before anybody is counted; JournalError.
    """
    who, clock = person(by), gateway.read_clock(now)
    proposal = gateway.state.proposals.get(change)
    if proposal is None or proposal.kind != kind:
        raise PersonError(f"change {change[:16]} is not proposed, or another change overtook it")
    if clock.utc_ns >= proposal.expires_ns or still(proposal.document) != change:
        why = f"its time is over, or the {kind} changed"
        gateway.record(Withdrawn(utc_ns=clock.utc_ns, change=change, why=why))
        gateway.commit(now)
        raise PersonError(f"change {change[:16]} expired: propose it again")
    if who in proposal.approvals:
        raise PersonError(f"{who} approved already: another person must")
    gateway.record(Approved(utc_ns=clock.utc_ns, change=change, by=who))
    approvals = cast(list[str], proposal.approvals)
    return (proposal.document, tuple(approvals)) if len(approvals) >= APPROVERS else None
