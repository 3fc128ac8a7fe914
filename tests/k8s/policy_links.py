"""Names that one document takes from another: selectors and labels, services and ports, volumes, secrets, settings."""

from collections.abc import Mapping
from typing import Any

from manifests import COMPONENT, Document, Pod, name_of, of_kind

Secrets = Mapping[tuple[str, str], set[str]]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions) takes these labels; an empty one takes all."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for item in selector.get("matchExpressions", []):
        value, operator = labels.get(item["key"]), item["operator"]
        agrees = {
            "In": value in item.get("values", ()),
            "NotIn": value not in item.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[operator]
        if not agrees:
            return False
    return True


def selectors(documents: list[Document], found: list[Pod]) -> list[str]:
    """Workloads select their own pods and nobody else's; services, budgets and policies select something."""
    faults = []
    for pod in found:
        selector = pod.owner.get("spec", {}).get("selector") if pod.kind in ("Deployment", "StatefulSet") else None
        if selector is None:
            continue
        taken = [other.where for other in found if other.namespace == pod.namespace and selects(selector, other.labels)]
        if taken != [pod.where]:
            faults.append(f"{pod.where}: its selector takes {taken}")
    for item in of_kind(documents, "Service", "PodDisruptionBudget"):
        selector = item["spec"].get("selector", {})
        selector = {"matchLabels": selector} if item["kind"] == "Service" else selector
        namespace = item["metadata"]["namespace"]
        taken = [pod.where for pod in found if pod.namespace == namespace and selects(selector, pod.labels)]
        if len(taken) != 1:
            faults.append(f"{name_of(item)}: selects {taken or 'nothing'}, one workload is meant")
    for item in of_kind(documents, "HorizontalPodAutoscaler"):
        target = item["spec"]["scaleTargetRef"]
        where = f"{target['kind']}/{item['metadata']['namespace']}/{target['name']}"
        pod = next((pod for pod in found if pod.where == where), None)
        named = {container["name"] for container in pod.containers} if pod else set()
        if pod is None:
            faults.append(f"{name_of(item)}: scales {where}, which is not there")
        for metric in item["spec"]["metrics"]:
            name = metric.get("containerResource", {}).get("container")
            if pod is not None and name is not None and name not in named:
                faults.append(f"{name_of(item)}: measures container {name!r}, there are {sorted(named)}")
    return faults


def components(found: list[Pod]) -> list[str]:
    """Each pod says which component it is, by which traffic is opened, and no two workloads of a namespace share it."""
    faults, seen = [], {}
    for pod in found:
        name = pod.labels.get(COMPONENT)
        if name is None and pod.kind != "PodTemplate":
            faults.append(f"{pod.where}: no label {COMPONENT}")
        first = seen.setdefault((pod.namespace, name), pod.where)
        if name not in (None, "worker") and first != pod.where:
            faults.append(f"{pod.where}: component {name} is {first}'s too")
    return faults


def services(documents: list[Document], found: list[Pod]) -> list[str]:
    """A service's target port is a named port of the pods it selects; a StatefulSet's service is there."""
    faults = []
    known = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in of_kind(documents, "Service")}
    for item in of_kind(documents, "Service"):
        namespace, selector = item["metadata"]["namespace"], {"matchLabels": item["spec"].get("selector", {})}
        for pod in found:
            if pod.namespace != namespace or not selects(selector, pod.labels):
                continue
            named = {p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", [])}
            for port in item["spec"]["ports"]:
                if named.get(port["targetPort"]) != port["port"]:
                    faults.append(
                        f"{name_of(item)}: port {port['port']} goes to {port['targetPort']!r} of {pod.where}: {named}"
                    )
    for item in of_kind(documents, "StatefulSet"):
        if (item["metadata"]["namespace"], item["spec"]["serviceName"]) not in known:
            faults.append(f"{name_of(item)}: service {item['spec']['serviceName']} is not there")
    for item in of_kind(documents, "Ingress"):
        for rule in item["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if (item["metadata"]["namespace"], backend["name"]) not in known:
                    faults.append(f"{name_of(item)}: service {backend['name']} is not there")
    return faults


def _claims(documents: list[Document]) -> set[tuple[str, str]]:
    return {(i["metadata"]["namespace"], i["metadata"]["name"]) for i in of_kind(documents, "PersistentVolumeClaim")}


def _settings(documents: list[Document]) -> dict[tuple[str, str], set[str]]:
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"]): set(item.get("data", {}))
        for item in of_kind(documents, "ConfigMap")
    }


def volumes(documents: list[Document], found: list[Pod], secrets: Secrets) -> list[str]:
    """A volume's claim, settings or secret is in the pod's namespace with the keys asked for; mounts have volumes."""
    claims, settings = _claims(documents), _settings(documents)
    faults = []
    for pod in found:
        own = {item["metadata"]["name"] for item in pod.owner.get("spec", {}).get("volumeClaimTemplates", [])}
        names = [volume["name"] for volume in pod.spec.get("volumes", [])]
        if len(set(names)) != len(names):
            faults.append(f"{pod.where}: volumes {names} repeat")
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        faults += [f"{pod.where}: mounts {name}, which is no volume" for name in mounted - set(names) - own]
        faults += [f"{pod.where}: volume {name} is not mounted" for name in (set(names) | own) - mounted]
        for volume in pod.spec.get("volumes", []):
            faults += [
                f"{pod.where}: volume {volume['name']}: {f}" for f in _source(volume, pod, claims, settings, secrets)
            ]
    return faults


def _source(volume: Document, pod: Pod, claims: set[tuple[str, str]], settings: Secrets, secrets: Secrets) -> list[str]:
    if "persistentVolumeClaim" in volume:
        name = volume["persistentVolumeClaim"]["claimName"]
        return [] if (pod.namespace, name) in claims else [f"claim {name} is not in {pod.namespace}"]
    if "secret" in volume:
        source = volume["secret"]
        mode = source.get("defaultMode", 0o644)
        open_to = [f"mode {mode:o} lets anybody in the pod read it"] if mode & 0o007 else []
        return open_to + _keys("secret", source["secretName"], pod, secrets, source)
    if "configMap" in volume:
        return _keys("settings", volume["configMap"]["name"], pod, settings, volume["configMap"])
    return []


def _keys(what: str, name: str, pod: Pod, known: Secrets, source: Document) -> list[str]:
    keys = known.get((pod.namespace, name))
    if keys is None:
        return [] if source.get("optional") else [f"{what} {name} is not in {pod.namespace}"]
    return [f"{what} {name} has no key {item['key']}" for item in source.get("items", []) if item["key"] not in keys]


def environment(documents: list[Document], found: list[Pod], secrets: Secrets) -> list[str]:
    """Each variable's secret or setting is in the pod's namespace and has the key; none stands twice."""
    settings, faults = _settings(documents), []
    for pod in found:
        for container in pod.containers:
            where = f"{pod.where}: {container['name']}"
            names = [item["name"] for item in container.get("env", [])]
            faults += [f"{where}: {name} stands twice" for name in set(names) if names.count(name) > 1]
            for item in container.get("env", []):
                faults += [f"{where}: {item['name']}: {f}" for f in _value(item, pod, settings, secrets)]
            for item in container.get("envFrom", []):
                source = item.get("configMapRef") or item["secretRef"]
                known = settings if "configMapRef" in item else secrets
                faults += [f"{where}: {f}" for f in _keys("settings of envFrom", source["name"], pod, known, source)]
    return faults


def _value(item: Document, pod: Pod, settings: Secrets, secrets: Secrets) -> list[str]:
    origin = item.get("valueFrom", {})
    for kind, known, what in (("secretKeyRef", secrets, "secret"), ("configMapKeyRef", settings, "settings")):
        if kind in origin:
            reference = origin[kind]
            keys = known.get((pod.namespace, reference["name"]))
            if keys is None:
                return [] if reference.get("optional") else [f"{what} {reference['name']} is not in {pod.namespace}"]
            return [] if reference["key"] in keys else [f"{what} {reference['name']} has no key {reference['key']}"]
    return []


_SECRET_NAMES = ("PASSWORD", "TOKEN", "AUTH_STRING", "SERVER_SECRET_KEY", "CONNECTION_URL", "REGISTRY_URL")


def no_values(documents: list[Document], found: list[Pod]) -> list[str]:
    """No secret's value stands anywhere: no Secret document, no credential as a plain variable, none in an address."""
    faults = [
        f"{name_of(item)}: secrets are made by `make secrets`, none is applied" for item in of_kind(documents, "Secret")
    ]
    for pod in found:
        for container in pod.containers:
            for item in container.get("env", []):
                plain = item.get("value")
                if plain is None:
                    continue
                name = item["name"]
                if name.endswith(_SECRET_NAMES) or ("://" in plain and "@" in plain):
                    faults.append(f"{pod.where}: {container['name']}: {name} holds a credential as a value")
    return faults


def used_secrets(documents: list[Document], found: list[Pod], secrets: Secrets) -> list[str]:
    """Each declared secret is read by a pod or an ingress of its namespace, and each that an ingress names is declared.

    Spark gives its executors the secret that the driver reads from `spark-auth`.
    """
    ingresses = of_kind(documents, "Ingress")
    used = {(i["metadata"]["namespace"], tls["secretName"]) for i in ingresses for tls in i["spec"]["tls"]}
    missing = [f"secret {namespace}/{name} of an ingress is not declared" for namespace, name in used - set(secrets)]
    for pod in found:
        for volume in pod.spec.get("volumes", []):
            used.add((pod.namespace, volume.get("secret", {}).get("secretName")))
        for container in pod.containers:
            for item in container.get("env", []):
                used.add((pod.namespace, item.get("valueFrom", {}).get("secretKeyRef", {}).get("name")))
    unread = set(secrets) - used
    return missing + [f"secret {namespace}/{name} is read by nobody" for namespace, name in sorted(unread)]
