"""Who needs to reach whom, written down once and by hand: what the NetworkPolicies must open, and no more.

A flow is (source component, target component, port). Components are the label `shortfall.io/component`; names in
capitals are outside these manifests: DNS, KubeRay's operator, Prometheus, an ingress controller.
"""

from collections.abc import Mapping

Flow = tuple[str, str, int]

OUTSIDE: Mapping[str, tuple[str, Mapping[str, str], tuple[int, ...]]] = {
    "DNS": ("kube-system", {"k8s-app": "kube-dns"}, (53,)),
    "KUBERAY": ("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"}, ()),
}
"""Pods of others that policies may name: namespace, labels, ports."""

UNNAMED_PORTS: Mapping[str, tuple[int, ...]] = {
    "flow-cpu": (7078, 7079),  # Spark's driver and its blocks (flows/settings.py)
    "spark-executor": (7079,),
    "ray": (6379, 8265, 10001),
}
"""Ports that pods of flows listen on; no template names them."""

MODELS = frozenset({"decide", "parents", "flow-cpu", "flow-gpu", "flow-promote", "ray", "spark-executor"})
"""Components that run a model, or could be made to."""
ADMIN_PORT, ORDER_PORT, FIX_PORT = 9871, 9870, 9880


def _from(sources: str, target: str, port: int) -> set[Flow]:
    return {(source, target, port) for source in sources.split()}


PLATFORM: set[Flow] = (
    _from("worker worker-promote flow-cpu flow-gpu flow-promote sweeper setup", "prefect-server", 4200)
    | _from("flow-promote decide parents setup", "mlflow", 5000)
    | _from("parents flow-promote", "decide", 9860)
    | _from("parents", "gateway", ORDER_PORT)
    | _from("spark-executor", "flow-cpu", 7078)
    | _from("spark-executor", "flow-cpu", 7079)
    | _from("flow-cpu spark-executor", "spark-executor", 7079)
    | _from("ray", "ray", 6379)
    | _from("ray", "ray", 8265)
    | _from("ray", "ray", 10001)
    | _from("KUBERAY", "ray", 8265)
)
DATABASES: set[Flow] = _from(
    "prefect-server mlflow feature-server migrate-prefect migrate-mlflow feast-apply", "postgres", 5432
) | _from("feature-server feast-apply flow-cpu", "redis", 6379)
PAPER: set[Flow] = _from("gateway", "venue", FIX_PORT) | _from("gateway parents", "venue", 9881)

NEEDED: Mapping[str, set[Flow]] = {
    "local": PLATFORM | DATABASES | PAPER,
    "gpu": PLATFORM | DATABASES | PAPER,
    "production": PLATFORM,
}

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
Block = tuple[str, str, str, int]
"""(direction, component, CIDR, port): what passes between a component and addresses outside the cluster."""


def _out(components: str, cidr: str, *ports: int) -> set[Block]:
    return {("out", component, cidr, port) for component in components.split() for port in ports}


_API_CALLERS = "worker worker-promote flow-cpu flow-gpu sweeper"
_PRIVATE_API = {block for cidr in PRIVATE for block in _out(_API_CALLERS, cidr, 443, 6443, 8443)}
BLOCKS: Mapping[str, set[Block]] = {
    "local": _PRIVATE_API | {("in", "prefect-server", "0.0.0.0/0", 4200)},
    "gpu": _PRIVATE_API,
    "production": set(),
}
