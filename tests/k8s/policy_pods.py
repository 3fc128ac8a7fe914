"""What is asked of every pod: Pod Security `restricted` and more, exact images, probes, priorities, identities."""

import re

from kube_policy import restricted_faults
from manifests import Document, Pod, name_of, of_kind

_TAG = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9._/:-]*?)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@sha256:[0-9a-f]{64})?$"
)
_FLOATING = {"latest", "stable", "main", "master", "edge", "nightly", "dev"}
LEVELS = ("enforce", "audit", "warn")


def restricted(found: list[Pod]) -> list[str]:
    """Each pod passes Pod Security `restricted`, with a read-only root and every writable path a volume."""
    faults = [f"{pod.where}: {fault}" for pod in found for fault in restricted_faults(pod.spec)]
    for pod in found:
        if pod.spec.get("enableServiceLinks") is not False:
            faults.append(f"{pod.where}: services are put into its environment (enableServiceLinks)")
        if pod.spec.get("hostUsers") is True:
            faults.append(f"{pod.where}: hostUsers")
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                faults.append(f"{pod.where}: emptyDir {volume['name']} has no sizeLimit and may fill its node")
    return faults


def namespaces(documents: list[Document]) -> list[str]:
    """Every namespace is restricted, enforced, audited and warned of, at a version that is written down."""
    faults = []
    for item in of_kind(documents, "Namespace"):
        labels = item["metadata"].get("labels", {})
        for level in LEVELS:
            if labels.get(f"pod-security.kubernetes.io/{level}") != "restricted":
                faults.append(f"{name_of(item)}: {level} is not restricted")
            if not re.fullmatch(r"v1\.\d+", labels.get(f"pod-security.kubernetes.io/{level}-version", "")):
                faults.append(f"{name_of(item)}: {level}-version is not written down")
    known = {item["metadata"]["name"] for item in of_kind(documents, "Namespace")}
    return faults + [
        f"{name_of(item)}: its namespace is not among the manifests"
        for item in documents
        if item["metadata"].get("namespace") and item["metadata"]["namespace"] not in known
    ]


def images(found: list[Pod]) -> list[str]:
    """Each image has an exact tag or a digest, and is pulled where it is not there."""
    faults = []
    for pod in found:
        for container in pod.containers:
            image = container["image"]
            match = _TAG.match(image)
            tag = match and match["tag"]
            if match is None or ((tag is None or tag in _FLOATING) and "@sha256:" not in image):
                faults.append(f"{pod.where}: {container['name']}: image {image!r} has no exact tag")
            if container.get("imagePullPolicy", "IfNotPresent") != "IfNotPresent":
                faults.append(f"{pod.where}: {container['name']}: imagePullPolicy {container['imagePullPolicy']}")
    return faults


def probes(found: list[Pod]) -> list[str]:
    """What goes on has all three probes, on ports that it names, and a start-up that is waited for."""
    faults = []
    for pod in found:
        if pod.kind not in ("Deployment", "StatefulSet"):
            continue
        for container in pod.spec["containers"]:
            where = f"{pod.where}: {container['name']}"
            named = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind)
                if probe is None:
                    faults.append(f"{where}: no {kind}")
                    continue
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if port is not None and port not in named:
                    faults.append(f"{where}: {kind} asks port {port!r}, named are {sorted(named)}")
                if "host" in (probe.get("httpGet") or {}):
                    faults.append(f"{where}: {kind} names a host, which `restricted` refuses")
    return faults


def priorities(documents: list[Document], found: list[Pod]) -> list[str]:
    """Each pod has a priority class that is there, and the gateway's is above all others'."""
    values = {item["metadata"]["name"]: item["value"] for item in of_kind(documents, "PriorityClass")}
    faults = [
        f"{pod.where}: priority class {pod.spec.get('priorityClassName')!r} is not there"
        for pod in found
        if pod.kind != "PodTemplate" and pod.spec.get("priorityClassName") not in values
    ]
    of = {pod.component: values.get(pod.spec.get("priorityClassName", ""), 0) for pod in found}
    faults += [
        f"{name}: priority {value} is not below the gateway's {of['gateway']}"
        for name, value in of.items()
        if name != "gateway" and value >= of["gateway"]
    ]
    return faults


def spreads(found: list[Pod]) -> list[str]:
    """What may have several replicas is spread over nodes, by a selector that is its own."""
    faults = []
    for pod in found:
        constraints = pod.spec.get("topologySpreadConstraints", [])
        several = pod.kind == "Deployment" or (pod.kind == "StatefulSet" and pod.owner["spec"]["replicas"] > 1)
        if several and not any(item["topologyKey"] == "kubernetes.io/hostname" for item in constraints):
            faults.append(f"{pod.where}: not spread over nodes")
        for item in constraints:
            wanted = item["labelSelector"]["matchLabels"]
            if not wanted.items() <= pod.labels.items():
                faults.append(f"{pod.where}: spread by {wanted}, its labels are {dict(pod.labels)}")
    return faults


def identities(documents: list[Document], found: list[Pod]) -> list[str]:
    """Each pod has a service account that is there, none the default one; a token goes only to who has a right."""
    accounts = {(a["metadata"]["namespace"], a["metadata"]["name"]): a for a in of_kind(documents, "ServiceAccount")}
    bound = {
        (subject["namespace"], subject["name"])
        for binding in of_kind(documents, "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    faults = [
        f"{name_of(a)}: hands out tokens unasked"
        for a in accounts.values()
        if a.get("automountServiceAccountToken") is not False
    ]
    faults += [
        f"a role is bound to {namespace}/{name}, which is not there" for namespace, name in bound - set(accounts)
    ]
    for pod in found:
        if pod.kind == "PodTemplate":
            continue
        account = (pod.namespace, pod.spec.get("serviceAccountName", "default"))
        if account not in accounts:
            faults.append(f"{pod.where}: service account {account[1]} is not there")
        if pod.spec.get("automountServiceAccountToken") is not (account in bound):
            faults.append(
                f"{pod.where}: automountServiceAccountToken does not say {account in bound}, as its rights do"
            )
    return faults
