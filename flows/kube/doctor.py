"""Looks at a cluster and says what the platform lacks there, and how to mend it. Changes nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from flows.kube.client import KubeError, absent_is_none, persistently, status_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

LEAST_VERSION = (1, 33)
"""Sidecars are stable from here (the mirror beside decide and parents is one)."""

NAMESPACES = ("shortfall-platform", "shortfall-flows", "shortfall-serving")
RAY_CRDS = ("rayjobs.ray.io", "rayclusters.ray.io")
MONITORING_CRDS = ("servicemonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com")
GPU = "nvidia.com/gpu"

NEEDED: tuple[tuple[str, str, str, str], ...] = (
    *(("", "namespaces", verb, "") for verb in ("create", "patch")),
    ("scheduling.k8s.io", "priorityclasses", "create", ""),
    *(
        (group, resource, "create", space)
        for space in NAMESPACES
        for group, resource in (
            ("apps", "deployments"), ("apps", "statefulsets"), ("batch", "jobs"), ("", "services"), ("", "secrets"),
            ("", "configmaps"), ("", "serviceaccounts"), ("", "persistentvolumeclaims"),
            ("networking.k8s.io", "networkpolicies"), ("policy", "poddisruptionbudgets"),
            ("rbac.authorization.k8s.io", "roles"), ("rbac.authorization.k8s.io", "rolebindings"),
        )
    ),
    ("autoscaling", "horizontalpodautoscalers", "create", "shortfall-serving"),
    *(("apps", resource, "patch", "shortfall-serving") for resource in ("deployments", "statefulsets")),
    ("batch", "cronjobs", "create", "shortfall-flows"),
    ("", "pods", "list", "shortfall-flows"),
)  # fmt: skip
"""Group, resource, verb and namespace ("" is the cluster) of what deploying and rolling out need."""

Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    what: str
    mend: str = ""


def examine(client: "ApiClient", where: str, gpus_wanted: bool = True) -> list[Finding]:
    """All findings, in the order in which they are to be mended. Raises KubeError where the server does not answer."""
    findings = [Finding("context", "ok", where), *version(client)]
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("nodes", lambda: nodes(client, gpus_wanted)),
        ("storage classes", lambda: storage(client)),
        ("custom resources", lambda: custom_resources(client)),
        ("permissions", lambda: permissions(client)),
        ("namespaces", lambda: namespaces(client)),
        *((f"workloads of {space}", partial(workloads, client, space)) for space in NAMESPACES),
        *((f"claims of {space}", partial(claims, client, space)) for space in NAMESPACES),
    )
    for subject, check in checks:
        try:
            findings += check()
        except KubeError as error:
            if status_of(error) != 403:
                raise
            findings.append(Finding(subject, "warning", f"cannot be seen: {error}", "ask for the right to list them"))
    return findings


def version(client: "ApiClient") -> Iterator[Finding]:
    """The API server's version; the first call, so it says whether there is one."""
    from kubernetes.client import VersionApi

    found = persistently("reach the API server", lambda: VersionApi(client).get_code(), tries=2)
    seen = int(found.major), int("".join(letter for letter in found.minor if letter.isdigit()) or 0)
    if seen < LEAST_VERSION:
        least = ".".join(str(part) for part in LEAST_VERSION)
        yield Finding(
            "API version", "missing", f"{found.git_version}", f"{least} or later is needed: upgrade the cluster"
        )
    else:
        yield Finding("API version", "ok", f"{found.git_version}")


def nodes(client: "ApiClient", gpus_wanted: bool) -> Iterator[Finding]:
    """Nodes that take pods, and their GPUs."""
    from kubernetes.client import CoreV1Api

    items = [
        client.sanitize_for_serialization(item)
        for item in persistently("list nodes", CoreV1Api(client).list_node).items
    ]
    ready = [item for item in items if _ready(item) and not item["spec"].get("unschedulable")]
    if not ready:
        yield Finding("nodes", "missing", f"{len(items)} nodes, none ready", "kubectl describe nodes: see Conditions")
    else:
        yield Finding("nodes", "ok", f"{len(ready)} of {len(items)} ready")
    amounts = {item["metadata"]["name"]: int(item["status"].get("allocatable", {}).get(GPU, 0)) for item in ready}
    gpus = {name: amount for name, amount in amounts.items() if amount}
    if gpus:
        yield Finding("GPU nodes", "ok", ", ".join(f"{name} ({amount})" for name, amount in sorted(gpus.items())))
    elif gpus_wanted:
        yield Finding(
            "GPU nodes", "missing", f"no ready node offers {GPU}",
            "install NVIDIA's device plugin (or GPU operator), or deploy without GPUs: overlay local, SHORTFALL_GPUS=0",
        )  # fmt: skip
    else:
        yield Finding("GPU nodes", "ok", "none, and none is wanted")


def storage(client: "ApiClient") -> Iterator[Finding]:
    """Storage classes, and the default one."""
    from kubernetes.client import StorageV1Api

    items = persistently("list storage classes", StorageV1Api(client).list_storage_class).items
    mark = "storageclass.kubernetes.io/is-default-class"
    default = [item.metadata.name for item in items if (item.metadata.annotations or {}).get(mark) == "true"]
    names = ", ".join(f"{item.metadata.name} ({item.provisioner})" for item in items)
    if not items:
        yield Finding(
            "storage classes", "missing", "none", "install a provisioner: volumes of the lake and journals need one"
        )
    elif len(default) != 1:
        mend = f"kubectl annotate storageclass NAME {mark}=true, or name classes in the overlay"
        yield Finding("storage classes", "missing", f"{len(default)} default classes of {names}", mend)
    else:
        yield Finding("storage classes", "ok", f"{names}; default {default[0]}")


def custom_resources(client: "ApiClient") -> Iterator[Finding]:
    """KubeRay's and Prometheus' definitions, needed where RayJobs or the monitoring component are used."""
    from kubernetes.client import ApiextensionsV1Api

    read = ApiextensionsV1Api(client).read_custom_resource_definition
    for subject, names, mend in (
        ("KubeRay", RAY_CRDS, "install KubeRay's release with --server-side (docs/deploy.md), or train with ray: pod"),
        ("Prometheus operator", MONITORING_CRDS, "install it, or leave the monitoring component out"),
    ):
        absent = []
        for name in names:
            found = absent_is_none(f"read {name}", partial(read, name))
            served = found is not None and any(item.name == "v1" and item.served for item in found.spec.versions)
            if not served:
                absent.append(f"{name} {'is absent' if found is None else 'serves no v1'}")
        if absent:
            yield Finding(subject, "warning", "; ".join(absent), mend)
        else:
            yield Finding(subject, "ok", ", ".join(names))


def permissions(client: "ApiClient") -> Iterator[Finding]:
    """Whether this identity may do what deploying needs."""
    from kubernetes.client import AuthorizationV1Api

    ask, refused = AuthorizationV1Api(client).create_self_subject_access_review, []
    for group, resource, verb, space in NEEDED:
        attributes = {"group": group, "resource": resource, "verb": verb, **({"namespace": space} if space else {})}
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }  # fmt: skip
        answer = persistently("ask what is allowed", partial(ask, review))
        if not answer.status.allowed:
            refused.append(f"{verb} {resource}{f' in {space}' if space else ''}")
    if refused:
        shown = ", ".join(refused[:6]) + (f" and {len(refused) - 6} more" if len(refused) > 6 else "")
        mend = "use an identity that may deploy, or ask for these rights; kubectl auth can-i --list shows yours"
        yield Finding("permissions", "missing", f"may not {shown}", mend)
    else:
        yield Finding("permissions", "ok", f"all {len(NEEDED)} that deploying and rolling out need")


def namespaces(client: "ApiClient") -> Iterator[Finding]:
    """The platform's namespaces and their Pod Security."""
    from kubernetes.client import CoreV1Api

    core, mend = CoreV1Api(client), "make deploy OVERLAY=... (kubectl apply -k k8s/overlays/...)"
    for name in NAMESPACES:
        found = absent_is_none(f"read namespace {name}", partial(core.read_namespace, name))
        if found is None:
            yield Finding(f"namespace {name}", "missing", "absent", mend)
            continue
        level = (found.metadata.labels or {}).get("pod-security.kubernetes.io/enforce")
        if level != "restricted":
            yield Finding(f"namespace {name}", "missing", f"enforces Pod Security {level or 'nothing'}", mend)
        else:
            yield Finding(f"namespace {name}", "ok", "Pod Security restricted")


def workloads(client: "ApiClient", space: str) -> Iterator[Finding]:
    """Deployments and StatefulSets that are not ready, with what their pods complain of."""
    from kubernetes.client import AppsV1Api

    from flows.kube.rollout import Cluster

    cluster, apps = Cluster(client, space), AppsV1Api(client)
    items = [
        client.sanitize_for_serialization(item)
        for what, call in (
            ("Deployments", apps.list_namespaced_deployment),
            ("StatefulSets", apps.list_namespaced_stateful_set),
        )
        for item in persistently(f"list {what}", partial(call, space)).items
    ]
    ready = 0
    for item in items:
        wanted, there = item["spec"].get("replicas", 1), (item.get("status") or {}).get("readyReplicas", 0)
        name = item["metadata"]["name"]
        if there >= wanted:
            ready += 1
            continue
        why = "; ".join(cluster.complaints(item)) or "its pods say nothing"
        mend = f"kubectl -n {space} describe pods -l app.kubernetes.io/name={name}"
        yield Finding(f"{space}/{name}", "missing", f"{there} of {wanted} replicas are ready: {why}", mend)
    if items and ready == len(items):
        yield Finding(space, "ok", f"{ready} workloads ready")


def claims(client: "ApiClient", space: str) -> Iterator[Finding]:
    """Claims without a volume. One that waits for its first pod is no fault of the cluster's."""
    from kubernetes.client import CoreV1Api

    items = persistently("list claims", lambda: CoreV1Api(client).list_namespaced_persistent_volume_claim(space).items)
    for item in items:
        phase = item.status.phase if item.status else "Pending"
        if phase == "Bound":
            continue
        level: Level = "missing" if phase == "Lost" else "warning"
        mend = f"kubectl -n {space} describe pvc {item.metadata.name}; it may wait for its first pod"
        yield Finding(f"{space}/{item.metadata.name}", level, f"claim is {phase}", mend)


def _ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
