"""What waits for two people, in words that they can approve by. Read in the admin plane's thread, when asked for."""

from typing import TYPE_CHECKING, Any

import msgspec

from serving.gateway.access import said
from serving.gateway.day import said_of_book
from serving.gateway.limits import Limits

if TYPE_CHECKING:
    from serving.gateway.dump import Proposal
    from serving.gateway.service import GatewayService

SAID_MAX = 1_000


def proposals_view(service: "GatewayService") -> list[dict[str, Any]]:
    """Each proposal with what it would let through (`says`) and its document; tokens' hashes are not shown."""
    return [
        {
            "change": change,
            "kind": item.kind,
            "by": item.by,
            "expires_ns": item.expires_ns,
            "approvals": list(item.approvals),
            "says": _says(service, item)[:SAID_MAX],
            "document": None if item.kind == "access" else msgspec.json.decode(item.document),
        }
        for change, item in service.gateway.state.proposals.copy().items()
    ]


def _says(service: "GatewayService", proposal: "Proposal") -> list[str]:
    state = service.gateway.state
    if proposal.kind == "day":
        return said_of_book(state, proposal.document)
    if proposal.kind == "access":
        return said(proposal.document, service.reloading.access)
    wanted = Limits.parse(msgspec.json.decode(proposal.document))
    return wanted.looser_than(state.limits) if state.limits is not None else ["nothing is allowed without limits"]
