"""Who needs to reach whom, written down once and by hand: what the NetworkPolicies must open, and no more.

A flow is (source component, target component, port). Components are the label `shortfall.io/component`; names in
capitals are outside these manifests: DNS, KubeRay's operator, Prometheus, an ingress controller.
"""

from collections.abc import Mapping

import yaml
from manifests import K8S

Flow = tuple[str, str, int]

OUTSIDE: Mapping[str, tuple[str, Mapping[str, str], tuple[int, ...]]] = {
    "DNS": ("kube-system", {"k8s-app": "kube-dns"}, (53,)),
    "KUBERAY": ("kuberay", {"app.kubernetes.io/name": "kuberay-operator"}, ()),
    "PROMETHEUS": ("monitoring", {"app.kubernetes.io/name": "prometheus"}, ()),
    "INGRESS": ("ingress-nginx", {"app.kubernetes.io/component": "controller"}, ()),
}
"""Pods of others that policies may name: namespace, labels, ports."""

UNNAMED_PORTS: Mapping[str, tuple[int, ...]] = {
    "flow-cpu": (7078, 7079),  # Spark's driver and its blocks (flows/settings.py)
    "spark-executor": (7079,),
    "ray-worker": (10002, 52365),  # Ray takes more, as they come
}
"""Ports that pods of flows listen on; no template names them."""

MODELS = frozenset(
    {"decide", "parents", "flow-cpu", "flow-gpu", "flow-promote", "ray-head", "ray-worker", "spark-executor"}
)
"""Components that run a model, or could be made to."""
ADMIN_PORT, ORDER_PORT, FIX_PORT = 9871, 9870, 9880


def _from(sources: str, target: str, port: int) -> set[Flow]:
    return {(source, target, port) for source in sources.split()}


PLATFORM: set[Flow] = (
    _from("worker worker-promote flow-cpu flow-gpu flow-promote sweeper exporter setup", "prefect-server", 4200)
    | _from("flow-promote flow-gpu ray-head decide setup", "mlflow", 5000)
    | _from("parents flow-promote", "decide", 9860)
    | _from("parents", "gateway", ORDER_PORT)
    | _from("spark-executor", "flow-cpu", 7078)
    | _from("spark-executor", "flow-cpu", 7079)
    | _from("flow-cpu spark-executor", "spark-executor", 7079)
    | {("ray-worker", "ray-head", port) for port in (6379, 8265, 10001)}
    | {(source, "ray-worker", port) for source in ("ray-head", "ray-worker") for port in (10002, 52365)}
    | _from("ray-submitter KUBERAY", "ray-head", 8265)
)
DATABASES: set[Flow] = _from(
    "prefect-server mlflow feature-server migrate-prefect migrate-mlflow feast-apply", "postgres", 5432
) | _from("feature-server feast-apply flow-cpu", "redis", 6379)
PAPER: set[Flow] = _from("gateway", "venue", FIX_PORT) | _from("gateway parents", "venue", 9881)

METRICS: Mapping[str, int] = {"gateway": 9872, "parents": 9852, "decide": 9861, "exporter": 9840}

NEEDED: Mapping[str, set[Flow]] = {
    "local": PLATFORM | DATABASES | PAPER,
    "gpu": PLATFORM | DATABASES | PAPER,
    "production": PLATFORM
    | _from("INGRESS PROMETHEUS", "prefect-server", 4200)
    | _from("INGRESS", "mlflow", 5000)
    | {("PROMETHEUS", name, port) for name, port in METRICS.items()},
}

SITE: Mapping[str, str] = yaml.safe_load((K8S / "overlays" / "production" / "site.yaml").read_text())["data"]
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
Block = tuple[str, str, str, int]
"""(direction, component, CIDR, port): what passes between a component and addresses outside the cluster."""


def _out(components: str, cidr: str, *ports: int) -> set[Block]:
    return {("out", component, cidr, port) for component in components.split() for port in ports}


_DATABASE_CLIENTS = (
    "prefect-server prefect-services mlflow feature-server migrate-prefect migrate-mlflow feast-apply backup-postgres"
    " restore-postgres"
)
_API_CALLERS = "worker worker-promote flow-cpu flow-gpu sweeper"
_PRIVATE_API = {block for cidr in PRIVATE for block in _out(_API_CALLERS, cidr, 443, 6443, 8443)}
BLOCKS: Mapping[str, set[Block]] = {
    "local": _PRIVATE_API | {("in", "prefect-server", "0.0.0.0/0", 4200)},
    "gpu": _PRIVATE_API,
    "production": (
        _out(_API_CALLERS, SITE["apiserver-cidr"], 443, 6443)
        | _out("backup-journals", SITE["apiserver-cidr"], 443, 6443)
        | _out(_DATABASE_CLIENTS, SITE["postgres-cidr"], 5432)
        | _out("prefect-server prefect-services feature-server feast-apply flow-cpu", SITE["redis-cidr"], 6380)
        | _out("mlflow backup-postgres restore-postgres backup-registry", SITE["s3-cidr"], 443)
        | _out("gateway", SITE["venue-cidr"], FIX_PORT, 9881)
        | _out("parents", SITE["venue-cidr"], 9881)
        | _out("gateway decide parents", SITE["alerts-cidr"], 443)
        | {("in", "gateway", SITE["operators-cidr"], ADMIN_PORT)}
        | {("in", "parents", SITE["oms-cidr"], port) for port in (9850, 9851)}
    ),
}
