"""Values that a schema takes for text: quantities, ports, addresses, schedules, disruption budgets."""

import ipaddress
import re
from decimal import Decimal
from typing import Any

from manifests import Document, Pod, name_of, of_kind, walk

_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_SCALE = {"m": Decimal("0.001"), "": Decimal(1)}
_SCALE |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)}
_SCALE |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}
_CRON = (range(60), range(24), range(1, 32), range(1, 13), range(8))


def quantity(text: Any) -> Decimal:
    """A Kubernetes quantity; raises ValueError for what is none (`1Gb`, `-1`)."""
    found = _QUANTITY.match(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _SCALE[found[2] or ""]


def _faults_of(where: str, path: str, values: dict[str, Any]) -> list[str]:
    faults = []
    for name, value in values.items():
        try:
            if quantity(value) <= 0 and name != "nvidia.com/gpu":
                faults.append(f"{where}: {path}.{name} is {value}")
        except ValueError as error:
            faults.append(f"{where}: {path}.{name}: {error}")
    return faults


def quantities(documents: list[Document]) -> list[str]:
    """Every quantity parses and is above nothing."""
    faults = []
    for document in documents:
        for path, value in walk(document):
            if re.search(r"resources\.(requests|limits)$", path) and isinstance(value, dict):
                faults += _faults_of(name_of(document), path, value)
            elif path.endswith("emptyDir.sizeLimit"):
                faults += _faults_of(name_of(document), path, {"": value})
    return faults


def resources(found: list[Pod]) -> list[str]:
    """Every container asks for CPU and memory, has limits of both, and asks for no more than its limits."""
    faults = []
    for pod in found:
        for container in pod.containers:
            where = f"{pod.where}: {container['name']}"
            requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
            for name in ("cpu", "memory"):
                if name not in requests or name not in limits:
                    faults.append(f"{where}: no {'request' if name not in requests else 'limit'} of {name}")
            for name in set(requests) & set(limits):
                if quantity(requests[name]) > quantity(limits[name]):
                    faults.append(f"{where}: asks for {requests[name]} of {name}, its limit is {limits[name]}")
    return faults


def addresses(documents: list[Document]) -> list[str]:
    """CIDRs are networks without host bits, exceptions lie inside them, and ports are ports."""
    faults = []
    for document in documents:
        for path, value in walk(document):
            if path.endswith("ipBlock"):
                faults += [f"{name_of(document)}: {path}: {fault}" for fault in _block(value)]
            elif re.search(r"\.(port|containerPort|endPort|nodePort|targetPort)$", path) and isinstance(value, int):
                low, high = (30000, 32767) if path.endswith("nodePort") else (1, 65535)
                if not low <= value <= high:
                    faults.append(f"{name_of(document)}: {path} is {value}, it must be {low} to {high}")
                port = _sibling(document, path, "port")
                if path.endswith("endPort") and isinstance(port, int) and port > value:
                    faults.append(f"{name_of(document)}: {path} {value} is below its port {port}")
    return faults


def _block(block: dict[str, Any]) -> list[str]:
    try:
        network = ipaddress.ip_network(block["cidr"])
        inside = [ipaddress.ip_network(item) for item in block.get("except", [])]
    except ValueError as error:
        return [str(error)]
    return [f"{item} is not inside {network}" for item in inside if not item.subnet_of(network)]  # type: ignore[arg-type]


def _sibling(document: Document, path: str, name: str) -> Any:
    wanted = path.rsplit(".", 1)[0] + f".{name}"
    return next((value for other, value in walk(document) if other == wanted), None)


def schedules(documents: list[Document]) -> list[str]:
    """Schedules of CronJobs are five fields in range, with a time zone and no two runs side by side."""
    faults = []
    for job in of_kind(documents, "CronJob"):
        fields = job["spec"]["schedule"].split()
        if len(fields) != 5 or not all(_in_range(item, span) for item, span in zip(fields, _CRON, strict=True)):
            faults.append(f"{name_of(job)}: schedule {job['spec']['schedule']!r}")
        if not job["spec"].get("timeZone"):
            faults.append(f"{name_of(job)}: no timeZone: the zone of whoever runs the controller")
        if job["spec"].get("concurrencyPolicy") != "Forbid":
            faults.append(f"{name_of(job)}: two runs may go side by side")
    return faults


def _in_range(item: str, span: range) -> bool:
    numbers = re.findall(r"[0-9]+", item.partition("/")[0])
    shape = re.fullmatch(r"(\*|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)(/[1-9][0-9]*)?", item)
    return shape is not None and all(int(number) in span for number in numbers)


def restarts(documents: list[Document], found: list[Pod]) -> list[str]:
    """Pods of Jobs end, others do not; Jobs have a deadline, are tried again and are cleaned up."""
    faults = []
    for pod in found:
        policy = pod.spec.get("restartPolicy", "Always")
        ends = pod.kind in ("Job", "CronJob", "PodTemplate", "Pod", "RayJob")
        if ends != (policy != "Always"):
            faults.append(f"{pod.where}: restartPolicy {policy} in a {pod.kind}")
    for document in of_kind(documents, "Job", "CronJob"):
        spec = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document["spec"]
        if spec.get("backoffLimit", 6) < 1:
            faults.append(f"{name_of(document)}: backoffLimit {spec['backoffLimit']}: lost with its node, it is lost")
        faults += [
            f"{name_of(document)}: no {name}"
            for name in ("activeDeadlineSeconds", "ttlSecondsAfterFinished")
            if not spec.get(name)
        ]
    return faults


def budgets(documents: list[Document]) -> list[str]:
    """Each budget has one limit and lets a node be drained, or says by an annotation why not.

    Every Deployment and StatefulSet has one, and none asks for more pods than there are.
    """
    faults, named = [], {}
    for item in of_kind(documents, "PodDisruptionBudget"):
        spec = item["spec"]
        given = {key: spec[key] for key in ("minAvailable", "maxUnavailable") if spec.get(key) is not None}
        named[item["metadata"]["namespace"], item["metadata"]["name"]] = given
        if len(given) != 1:
            faults.append(f"{name_of(item)}: minAvailable and maxUnavailable are {given or 'both absent'}")
        said = item["metadata"].get("annotations", {}).get("shortfall.io/no-eviction")
        if given.get("maxUnavailable") in (0, "0%") and not said:
            faults.append(f"{name_of(item)}: no pod may ever be evicted, and no annotation says why")
    scaled = {
        (item["metadata"]["namespace"], item["spec"]["scaleTargetRef"]["name"]): item["spec"]["minReplicas"]
        for item in of_kind(documents, "HorizontalPodAutoscaler")
    }
    for item in of_kind(documents, "Deployment", "StatefulSet"):
        key = (item["metadata"]["namespace"], item["metadata"]["name"])
        replicas = item["spec"].get("replicas", scaled.get(key, 1))
        if key not in named:
            faults.append(f"{name_of(item)}: no PodDisruptionBudget of its name")
        elif isinstance(least := named[key].get("minAvailable"), int) and least >= replicas:
            faults.append(f"{name_of(item)}: {least} of {replicas} replicas must stand: its node cannot be drained")
        if key in scaled and "replicas" in item["spec"]:
            faults.append(f"{name_of(item)}: replicas beside an autoscaler: each apply would set them back")
    return faults
