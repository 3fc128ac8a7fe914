"""Overlays as kubectl builds them, and the pods in what it built: the documents that the policies look at."""

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("local", "gpu", "production")
KUBECTL = Path(sys.executable).parent / "kubectl"
COMPONENT = "shortfall.io/component"
POOLS = ("cpu", "gpu", "promote")
Document = dict[str, Any]


@functools.cache
def _build(folder: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or done.stderr:
        raise AssertionError(f"kubectl kustomize {folder}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def build(folder: Path) -> list[Document]:
    """What `kubectl kustomize` makes of a folder; a warning is an error."""
    return [document for document in yaml.load_all(_build(folder), Loader=yaml.CSafeLoader) if document]


def overlay(name: str) -> list[Document]:
    """The documents of one of the overlays, a copy of one's own."""
    return build(K8S / "overlays" / name)


@dataclass(frozen=True)
class Pod:
    """A pod that something makes: of a manifest, of a work pool, or by Spark from its template."""

    where: str  # kind/namespace/name, for messages
    kind: str
    namespace: str
    labels: Mapping[str, str]
    spec: Document
    owner: Document = field(repr=False)

    @property
    def component(self) -> str:
        return self.labels.get(COMPONENT, self.where)

    @property
    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def name_of(document: Document) -> str:
    """kind/namespace/name, the namespace left out where there is none."""
    metadata = document["metadata"]
    return "/".join(filter(None, (document["kind"], metadata.get("namespace"), metadata["name"])))


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """The documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def _templates(document: Document) -> list[tuple[str, Document]]:
    """Pod templates of a document, each with the name of its part."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        return [("", spec["template"])]
    if kind == "CronJob":
        return [("", spec["jobTemplate"]["spec"]["template"])]
    if kind == "RayJob":
        cluster = spec["rayClusterSpec"]
        workers = [(group["groupName"], group["template"]) for group in cluster["workerGroupSpecs"]]
        head = ("head", cluster["headGroupSpec"]["template"])
        return [("submitter", spec["submitterPodTemplate"]), head, *workers]
    if kind == "PodTemplate":
        return [("", document["template"])]
    return [("", document)] if kind == "Pod" else []


def pods(documents: list[Document]) -> list[Pod]:
    """Every pod of these documents."""
    found = []
    for document in documents:
        for part, template in _templates(document):
            metadata = template["metadata"]
            namespace = metadata.get("namespace") or document["metadata"]["namespace"]
            where = name_of(document) + (f"/{part}" if part else "")
            labels = metadata.get("labels", {})
            found.append(Pod(where, document["kind"], namespace, labels, template["spec"], document))
    return found


def pool_jobs(documents: list[Document]) -> list[Document]:
    """A Job of each work pool as its worker would create it, with the pool's defaults and this overlay's images."""
    from prefect.utilities.templating import apply_values

    from flows.kube.setup import SetupSettings, pool_template

    settings = SetupSettings(**setup_environment(documents))
    made = []
    for name in POOLS:
        template = pool_template(name, settings)
        variables = {key: item.get("default") for key, item in template["variables"]["properties"].items()}
        job = copy.deepcopy(template["job_configuration"]["job_manifest"])
        job = apply_values(job, {key: value for key, value in variables.items() if value is not None})
        job["metadata"]["name"] = f"flow-{name}"
        made.append(job)
    return made


def setup_environment(documents: list[Document]) -> dict[str, Any]:
    """The settings that the setup Job of these documents gives to flows.kube.setup."""
    setup = next(pod for pod in pods(documents) if pod.component == "setup")
    environment = {item["name"]: item.get("value") for item in setup.spec["containers"][0]["env"]}
    names = ("image_data", "image_train", "max_cpu", "max_memory", "gpus", "gpu_node_selector", "gpu_tolerations")
    given = {name: environment.get(f"SHORTFALL_{name.upper()}") for name in names}
    parsed = {name: json.loads(value) for name, value in given.items() if value and name.startswith("gpu")}
    return {name: value for name, value in (given | parsed).items() if value is not None}


def executor(documents: list[Document]) -> Document:
    """A Spark executor as Spark completes it from the template in the ConfigMap spark-executor."""
    settings = next(d for d in of_kind(documents, "ConfigMap") if d["metadata"]["name"] == "spark-executor")
    pod = yaml.safe_load(settings["data"]["pod.yaml"])
    pod["metadata"] |= {"name": "spark-executor", "namespace": settings["metadata"]["namespace"]}
    container = pod["spec"]["containers"][0]
    size = {"cpu": "2", "memory": "6Gi"}
    container |= {"image": setup_environment(documents)["image_data"], "resources": {"requests": size, "limits": size}}
    return pod


def ray_job(documents: list[Document]) -> Document:
    """The RayJob of a training flow with this overlay's image."""
    from flows.kube.ray_manifest import RayTraining

    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "flow-gpu", "uid": "0"}
    image = setup_environment(documents)["image_train"]
    command = "python -m flows.kube.ray_train /lake"
    return RayTraining("train-agent", "shortfall-flows", image, command, owner).manifest()


def everything(documents: list[Document]) -> list[Document]:
    """The documents and what the platform makes at run time: Jobs of the pools, Spark's executors, a RayJob."""
    return [*documents, *pool_jobs(documents), executor(documents), ray_job(documents)]


def declared_secrets(overlay_name: str) -> dict[tuple[str, str], set[str]]:
    """Keys of each secret that `make secrets` makes for an overlay, by namespace and name."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in yaml.safe_load((K8S / "secrets.yaml").read_text())["secrets"]:
        if overlay_name in item.get("overlays", OVERLAYS):
            keys = {"tls.crt", "tls.key", "ca.crt"} if "certificate" in item else set(item["keys"])
            found[item["namespace"], item["name"]] = keys
    return found


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside a document with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk(item, f"{path}[{number}]")
