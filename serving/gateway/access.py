"""Who may command and who may send orders: which of two such lists lets more through, and how one replaces the other.

Whoever is struck, or may do less, is so at once, and what he had approved is void. Whoever is new, or may do more,
waits until two people approved that exact change, as looser limits do.
"""

import hashlib
from typing import NamedTuple

import msgspec

from serving.gateway.approvals import approve, propose
from serving.gateway.config import Commander
from serving.gateway.engine import Gateway
from serving.gateway.events import AccessSet, LiquidationEnded, Withdrawn
from serving.gateway.live import Now
from serving.gateway.people import person
from serving.wire.identity import Principal

ClientKey = tuple[str, str, str]
PersonKey = tuple[str, str]


class Access(NamedTuple):
    """Clients of the order port and people of the admin plane."""

    clients: tuple[Principal, ...]
    people: tuple[Commander, ...]

    def canonical(self) -> str:
        """The one text of them, whatever the order that they were written in."""
        clients = sorted([*key, sorted(strategies)] for key, strategies in self._clients().items())
        people = sorted([*key, sorted(scopes)] for key, scopes in self._people().items())
        return msgspec.json.encode({"clients": clients, "people": people}).decode()

    def hash(self) -> str:
        """sha256 (hex) of `canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def tightest(self, other: "Access") -> "Access":
        """Whoever stands in both, with what both let him do. A client or person with another token is another one."""
        clients, people = other._clients(), other._people()
        kept = [(item, item.strategies & clients.get(_client(item), frozenset())) for item in self.clients]
        held = [(item, item.scopes & people.get(_person(item), frozenset())) for item in self.people]
        return Access(
            tuple(
                Principal(item.account, strategies, item.subject, item.token_sha256)
                for item, strategies in kept
                if strategies
            ),
            tuple(item._replace(scopes=scopes) for item, scopes in held if scopes),
        )

    def looser_than(self, other: "Access") -> list[str]:
        """Every way in which these may do more than `other`."""
        found = []
        theirs = other._clients()
        for item in self.clients:
            more = item.strategies - theirs.get(_client(item), frozenset())
            if more:
                found.append(f"client {_name(item)} of account {item.account} speaks for {', '.join(sorted(more))}")
        scopes = other._people()
        for someone in self.people:
            if added := someone.scopes - scopes.get(_person(someone), frozenset()):
                by = " (by token)" if someone.token_sha256 else ""
                found.append(f"{someone.subject}{by} holds {', '.join(sorted(added))}")
        return found

    def allows(self, principal: Principal, strategies: frozenset[str]) -> bool:
        """Whether a line that this principal opened for `strategies` may stay."""
        return strategies <= self._clients().get(_client(principal), frozenset())

    def holds(self, subject: str, scope: str) -> bool:
        """Whether someone, in the one spelling, holds a scope."""
        return any(item.subject == subject and scope in item.scopes for item in self.people)

    def _clients(self) -> dict[ClientKey, frozenset[str]]:
        return {_client(item): item.strategies for item in self.clients}

    def _people(self) -> dict[PersonKey, frozenset[str]]:
        return {_person(item): item.scopes for item in self.people}


class AccessChange(NamedTuple):
    """What became of two files that were read again."""

    less: tuple[str, ...]  # every way in which somebody may do less, from now on
    change: str  # what two people must approve for the rest; empty where nothing is looser
    looser: tuple[str, ...]


def change_hash(old: Access, new: Access) -> str:
    """sha256 (hex) that names one exact change: these clients and people in place of those."""
    return hashlib.sha256(f"access\n{old.canonical()}\n{new.canonical()}".encode()).hexdigest()


def propose_access(gateway: Gateway, before: Access, wanted: Access, by: str, now: Now) -> AccessChange:
    """Journal what is tighter in `wanted` than `before`, which holds at once; propose the rest. Durable on return.

    Raises PersonError, JournalError.
    """
    who, clock = person(by), gateway.read_clock(now)
    held = before.tightest(wanted)
    less = tuple(before.looser_than(held))
    if less:
        gateway.record(AccessSet(utc_ns=clock.utc_ns, access=held.hash(), why=f"tightened by {who}: {'; '.join(less)}"))
        _void_approvals(gateway, before, held, now)
    looser, change = tuple(wanted.looser_than(held)), ""
    if looser:
        change = change_hash(held, wanted)
        propose(gateway, "access", change, wanted.canonical(), who, now)
    gateway.commit(now)
    return AccessChange(less, change, looser)


def approve_access(gateway: Gateway, held: Access, change: str, by: str, now: Now) -> Access | None:
    """Count a person; with the second, who may do what from now on. Durable on return.

    Raises PersonError as `approvals.approve` does, JournalError.
    """
    clock = gateway.read_clock(now)
    agreed = approve(gateway, "access", change, by, now, lambda document: change_hash(held, _access(document)))
    found = None
    if agreed is not None:
        document, approvers = agreed
        found = _access(document)
        why = f"approved by {' and '.join(approvers)}: {'; '.join(found.looser_than(held))}"
        gateway.record(AccessSet(utc_ns=clock.utc_ns, access=found.hash(), why=why, change=change))
    gateway.commit(now)
    return found


def note_access(gateway: Gateway, held: Access, now: Now) -> bool:
    """Journal who may do what at a start, where it is not as it was; whether it was another. Raises JournalError."""
    before = gateway.state.access
    if before == held.hash():
        return False
    why = "the files at the first start" if not before else "the files at a start, changed since the gateway last ran"
    gateway.record(AccessSet(utc_ns=gateway.read_clock(now).utc_ns, access=held.hash(), why=why))
    gateway.commit(now)
    return bool(before)


def said(document: str, held: Access) -> list[str]:
    """What a proposed document would let through beyond what holds."""
    return _access(document).looser_than(held)


def _void_approvals(gateway: Gateway, before: Access, held: Access, now: Now) -> None:
    """What somebody agreed to who may no longer agree is agreed no more."""
    clock, state = gateway.read_clock(now), gateway.state
    gone = {item.subject for item in before.people if "risk" in item.scopes and not held.holds(item.subject, "risk")}
    for change, proposal in list(state.proposals.items()):
        if struck := gone & set(proposal.approvals):
            why = f"{min(struck)}, who approved it, may no longer"
            gateway.record(Withdrawn(utc_ns=clock.utc_ns, change=change, why=why))
    for (scope, name), people in list(state.liquidations.items()):
        if gone & people.keys():
            gateway.record(LiquidationEnded(utc_ns=clock.utc_ns, scope=scope, name=name))  # type: ignore[arg-type]


def _client(item: Principal) -> ClientKey:
    return item.account, item.subject, item.token_sha256


def _person(item: Commander) -> PersonKey:
    return item.subject, item.token_sha256


def _name(item: Principal) -> str:
    return item.subject or f"token {item.token_sha256[:8]}"


def _access(document: str) -> Access:
    plain = msgspec.json.decode(document)
    return Access(
        tuple(Principal(account, frozenset(of), subject, token) for account, subject, token, of in plain["clients"]),
        tuple(Commander(subject, frozenset(scopes), token) for subject, token, scopes in plain["people"]),
    )
