"""NetworkPolicies as a cluster would judge them: who reaches whom, compared both ways with what is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifests import Document, Pod, name_of, of_kind
from policy_links import selects
from traffic import OUTSIDE, UNNAMED_PORTS, Block, Flow


@dataclass(frozen=True)
class Endpoint:
    """A pod as policies see it."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    ports: tuple[int, ...]


def endpoints(found: list[Pod]) -> list[Endpoint]:
    """One for each component, and those outside that policies may name."""
    made: dict[str, Endpoint] = {}
    for pod in found:
        if pod.kind == "PodTemplate":
            continue
        ports = [port["containerPort"] for container in pod.containers for port in container.get("ports", [])]
        known = (*ports, *UNNAMED_PORTS.get(pod.component, ()))
        made.setdefault(pod.component, Endpoint(pod.component, pod.namespace, pod.labels, tuple(dict.fromkeys(known))))
    outside = [Endpoint(name, *entry) for name, entry in OUTSIDE.items()]
    return [*made.values(), *outside]


def _applies(policy: Document, end: Endpoint, direction: str) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes", ["Ingress", *(["Egress"] if "egress" in spec else [])])
    same = policy["metadata"]["namespace"] == end.namespace
    return same and direction in types and selects(spec["podSelector"], end.labels)


def _peer(peer: Document, policy: Document, end: Endpoint) -> bool:
    if "ipBlock" in peer:
        return False
    names = {"kubernetes.io/metadata.name": end.namespace}
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], names):
            return False
    elif policy["metadata"]["namespace"] != end.namespace:
        return False
    return selects(peer.get("podSelector", {}), end.labels)


def _port(rule: Document, port: int) -> bool:
    if "ports" not in rule:
        return True
    return any(
        item.get("protocol", "TCP") == "TCP" and item["port"] <= port <= item.get("endPort", item["port"])
        for item in rule["ports"]
    )


def _open(policies: list[Document], end: Endpoint, other: Endpoint, port: int, direction: str) -> bool:
    chosen = [policy for policy in policies if _applies(policy, end, direction)]
    if not chosen:
        return True
    side = "from" if direction == "Ingress" else "to"
    for policy in chosen:
        for rule in policy["spec"].get(direction.lower(), []):
            peers = rule.get(side)
            if _port(rule, port) and (peers is None or any(_peer(peer, policy, other) for peer in peers)):
                return True
    return False


def reachable(documents: list[Document], ends: list[Endpoint]) -> set[Flow]:
    """Every (source, target, port) that both the source's egress and the target's ingress let pass.

    Ends outside have no policies of ours: what is theirs to open counts as open; name look-ups are left out.
    """
    policies = of_kind(documents, "NetworkPolicy")
    return {
        (source.name, target.name, port)
        for target in ends
        for port in target.ports
        for source in ends
        if target.name not in OUTSIDE
        and _open(policies, source, target, port, "Egress")
        and _open(policies, target, source, port, "Ingress")
    }


def differences(opened: set[Any], needed: set[Any]) -> list[str]:
    """What is needed and shut, and what is open and not needed."""
    shut = [f"{item} is needed and shut" for item in sorted(needed - opened)]
    return shut + [f"{item} is open and nobody needs it" for item in sorted(opened - needed)]


def blocks(documents: list[Document], ends: list[Endpoint]) -> set[Block]:
    """What passes between components and addresses outside, as the policies' ipBlocks say."""
    found: set[Block] = set()
    for policy in of_kind(documents, "NetworkPolicy"):
        for direction, side, word in (("Ingress", "from", "in"), ("Egress", "to", "out")):
            for rule in policy["spec"].get(direction.lower(), []):
                cidrs = [peer["ipBlock"]["cidr"] for peer in rule.get(side, []) if "ipBlock" in peer]
                for end in ends:
                    if cidrs and _applies(policy, end, direction):
                        found |= {(word, end.name, cidr, item["port"]) for cidr in cidrs for item in rule["ports"]}
    return found


def denied_by_default(documents: list[Document]) -> list[str]:
    """Each namespace has a policy that takes every pod and opens nothing; no rule leaves out peers or ports."""
    faults, shut = [], set()
    for policy in of_kind(documents, "NetworkPolicy"):
        spec = policy["spec"]
        both = set(spec["policyTypes"]) == {"Ingress", "Egress"}
        if both and not spec["podSelector"] and not spec.get("ingress") and not spec.get("egress"):
            shut.add(policy["metadata"]["namespace"])
        for direction, side in (("ingress", "from"), ("egress", "to")):
            if direction in spec and direction.capitalize() not in spec["policyTypes"]:
                faults.append(f"{name_of(policy)}: {direction} rules, but policyTypes {spec['policyTypes']}")
            for rule in spec.get(direction, []):
                if not rule.get(side) or not rule.get("ports"):
                    faults.append(f"{name_of(policy)}: a rule of {direction} leaves out peers or ports: all of them")
    names = {item["metadata"]["name"] for item in of_kind(documents, "Namespace")}
    return faults + [f"namespace {name}: nothing denies by default" for name in sorted(names - shut)]


def peers_exist(documents: list[Document], ends: list[Endpoint]) -> list[str]:
    """Each policy takes a pod, each peer is somebody, each port is one that the target listens on."""
    faults = []
    for policy in of_kind(documents, "NetworkPolicy"):
        own = [end for end in ends if any(_applies(policy, end, way) for way in policy["spec"]["policyTypes"])]
        if not own:
            faults.append(f"{name_of(policy)}: takes no pod")
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                peers = [peer for peer in rule.get(side, []) if "ipBlock" not in peer]
                heard: list[Endpoint] = []
                for peer in peers:
                    named = [end for end in ends if _peer(peer, policy, end)]
                    heard += named
                    if not named:
                        faults.append(f"{name_of(policy)}: peer {peer} of {direction} is nobody")
                    faults += _values(policy, peer.get("podSelector", {}), named)
                targets = own if direction == "ingress" else heard
                if not peers and direction == "egress":
                    continue
                for item in rule.get("ports", []):
                    span = range(item["port"], item.get("endPort", item["port"]) + 1)
                    if targets and not any(port in span for end in targets for port in end.ports):
                        faults.append(f"{name_of(policy)}: nobody listens on port {item['port']} of {direction}")
        faults += _values(policy, policy["spec"]["podSelector"], own)
    return faults


def _values(policy: Document, selector: Document, taken: list[Endpoint]) -> list[str]:
    """Each value that an expression lists is some pod's: a misspelt one would only be missing."""
    return [
        f"{name_of(policy)}: {item['key']} {value!r} is nobody's"
        for item in selector.get("matchExpressions", [])
        if item["operator"] == "In"
        for value in item["values"]
        if not any(end.labels.get(item["key"]) == value for end in taken)
    ]
