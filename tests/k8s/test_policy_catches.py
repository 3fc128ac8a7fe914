"""Each policy, shown a manifest in which one field is broken, says so: a check that never fails checks nothing."""

import copy
from types import SimpleNamespace

import pytest
from manifests import declared_secrets, everything, name_of, overlay, pods
from policy_links import components, environment, no_values, selectors, services, used_secrets, volumes
from policy_network import blocks, denied_by_default, differences, endpoints, peers_exist, reachable
from policy_pods import identities, images, namespaces, priorities, probes, restricted, spreads
from policy_values import addresses, budgets, quantities, resources, restarts, schedules
from traffic import BLOCKS, NEEDED

WHOLE = everything(overlay("production"))
SECRETS = declared_secrets("production")
GATEWAY = "StatefulSet/shortfall-serving/gateway"
DECIDE = "Deployment/shortfall-serving/decide"
SETUP = "Job/shortfall-platform/setup"


class World(SimpleNamespace):
    """A copy of everything in which a test breaks something."""

    def __getitem__(self, name):
        return next(item for item in self.documents if name_of(item).startswith(name))

    def pod(self, name):
        item = self[name]
        spec = item["spec"].get("jobTemplate", item)["spec"]
        return spec["template"]["spec"]

    def container(self, name):
        return self.pod(name)["containers"][0]

    def drop(self, name):
        self.documents.remove(self[name])

    @property
    def found(self):
        return pods(self.documents)

    @property
    def ends(self):
        return endpoints(self.found)


def merge(target, **changes):
    target.update(changes)


CHECKS = {
    "restricted": lambda w: restricted(w.found),
    "namespaces": lambda w: namespaces(w.documents),
    "images": lambda w: images(w.found),
    "probes": lambda w: probes(w.found),
    "priorities": lambda w: priorities(w.documents, w.found),
    "spreads": lambda w: spreads(w.found),
    "identities": lambda w: identities(w.documents, w.found),
    "quantities": lambda w: quantities(w.documents),
    "resources": lambda w: resources(w.found),
    "addresses": lambda w: addresses(w.documents),
    "schedules": lambda w: schedules(w.documents),
    "restarts": lambda w: restarts(w.documents, w.found),
    "budgets": lambda w: budgets(w.documents),
    "selectors": lambda w: selectors(w.documents, w.found),
    "components": lambda w: components(w.found),
    "services": lambda w: services(w.documents, w.found),
    "volumes": lambda w: volumes(w.documents, w.found, SECRETS),
    "environment": lambda w: environment(w.documents, w.found, SECRETS),
    "no_values": lambda w: no_values(w.documents, w.found),
    "used_secrets": lambda w: used_secrets(w.documents, w.found, SECRETS),
    "denied_by_default": lambda w: denied_by_default(w.documents),
    "peers_exist": lambda w: peers_exist(w.documents, w.ends),
    "traffic": lambda w: differences(reachable(w.documents, w.ends), NEEDED["production"]),
    "blocks": lambda w: differences(blocks(w.documents, w.ends), BLOCKS["production"]),
}


def policy(w, name):
    return w[f"NetworkPolicy/{name}"]["spec"]


def rule_of_worker(w):
    return policy(w, "shortfall-platform/prefect-server")["ingress"][0]["from"][1]["podSelector"]["matchExpressions"][0]


# ruff: noqa: E501 - one case a line: its name, the check, what the check says, what is broken
BROKEN = {
    "privilege": ("restricted", "allowPrivilegeEscalation", lambda w: w.container(GATEWAY)["securityContext"].pop("allowPrivilegeEscalation")),
    "capabilities": ("restricted", "capabilities", lambda w: merge(w.container(DECIDE)["securityContext"], capabilities={"drop": ["NET_RAW"]})),
    "root": ("restricted", "runs as root", lambda w: merge(w.pod(GATEWAY)["securityContext"], runAsUser=0)),
    "seccomp": ("restricted", "seccomp", lambda w: w.pod(GATEWAY)["securityContext"].pop("seccompProfile")),
    "non-root": ("restricted", "runAsNonRoot", lambda w: w.pod(SETUP)["securityContext"].pop("runAsNonRoot")),
    "host path": ("restricted", "is refused", lambda w: w.pod(DECIDE)["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    "host network": ("restricted", "hostNetwork", lambda w: merge(w.pod(DECIDE), hostNetwork=True)),
    "writable root": ("restricted", "writable", lambda w: merge(w.container(SETUP)["securityContext"], readOnlyRootFilesystem=False)),
    "sidecar": ("restricted", "mirror", lambda w: w.pod(DECIDE)["initContainers"][0].pop("securityContext")),
    "unbounded scratch": ("restricted", "sizeLimit", lambda w: merge(w.pod(DECIDE)["volumes"][-1], emptyDir={})),
    "service links": ("restricted", "enableServiceLinks", lambda w: w.pod(DECIDE).pop("enableServiceLinks")),
    "pool's pod": ("restricted", "Job/shortfall-flows/flow-gpu", lambda w: merge(w.pod("Job/shortfall-flows/flow-gpu"), hostPID=True)),
    "baseline": ("namespaces", "enforce is not", lambda w: merge(w["Namespace/shortfall-flows"]["metadata"]["labels"], **{"pod-security.kubernetes.io/enforce": "baseline"})),
    "floating level": ("namespaces", "version", lambda w: merge(w["Namespace/shortfall-flows"]["metadata"]["labels"], **{"pod-security.kubernetes.io/enforce-version": "latest"})),
    "foreign namespace": ("namespaces", "not among", lambda w: merge(w[DECIDE]["metadata"], namespace="default")),
    "latest": ("images", "exact tag", lambda w: merge(w.container(DECIDE), image="shortfall/serve:latest")),
    "no tag": ("images", "exact tag", lambda w: merge(w.container(DECIDE), image="registry:5000/shortfall/serve")),
    "short digest": ("images", "exact tag", lambda w: merge(w.container(DECIDE), image="shortfall/serve@sha256:abc")),
    "no readiness": ("probes", "readinessProbe", lambda w: w.container(GATEWAY).pop("readinessProbe")),
    "probe's port": ("probes", "asks port", lambda w: merge(w.container(GATEWAY)["livenessProbe"]["httpGet"], port="metric")),
    "no priority": ("priorities", "not there", lambda w: merge(w.pod(DECIDE), priorityClassName="high")),
    "gateway not first": ("priorities", "not below", lambda w: merge(w["PriorityClass/shortfall-trading"], value=2_000_000)),
    "not spread": ("spreads", "not spread", lambda w: w.pod(DECIDE).pop("topologySpreadConstraints")),
    "spread by others": ("spreads", "spread by", lambda w: merge(w.pod(DECIDE)["topologySpreadConstraints"][0]["labelSelector"], matchLabels={"a": "b"})),
    "default account": ("identities", "default", lambda w: w.pod(DECIDE).pop("serviceAccountName")),
    "needless token": ("identities", "automount", lambda w: merge(w.pod(DECIDE), automountServiceAccountToken=True)),
    "missing token": ("identities", "automount", lambda w: merge(w.pod("Deployment/shortfall-flows/worker-cpu"), automountServiceAccountToken=False)),
    "bound to nobody": ("identities", "is bound to", lambda w: merge(w["RoleBinding/shortfall-flows/sweeper"]["subjects"][0], name="sweepers")),
    "account hands out": ("identities", "unasked", lambda w: w["ServiceAccount/shortfall-serving/decide"].pop("automountServiceAccountToken")),
    "unit": ("quantities", "no quantity", lambda w: merge(w.container(DECIDE)["resources"]["limits"], memory="1Gb")),
    "nothing": ("quantities", "is 0", lambda w: merge(w.container(DECIDE)["resources"]["limits"], cpu="0")),
    "size limit": ("quantities", "no quantity", lambda w: merge(w.pod(DECIDE)["volumes"][-1]["emptyDir"], sizeLimit="1 Gi")),
    "no limit": ("resources", "limit of memory", lambda w: w.container(SETUP)["resources"]["limits"].pop("memory")),
    "no request": ("resources", "request of cpu", lambda w: w.container(SETUP)["resources"]["requests"].pop("cpu")),
    "request above limit": ("resources", "its limit is", lambda w: merge(w.container(DECIDE)["resources"]["requests"], memory="2Gi")),
    "host bits": ("addresses", "host bits", lambda w: merge(policy(w, "shortfall-serving/oms")["ingress"][0]["from"][0]["ipBlock"], cidr="203.0.113.1/28")),
    "exception outside": ("addresses", "not inside", lambda w: merge(policy(w, "shortfall-serving/oms")["ingress"][0]["from"][0]["ipBlock"], **{"except": ["10.0.0.0/8"]})),
    "port": ("addresses", "65535", lambda w: merge(policy(w, "shortfall-serving/decide")["ingress"][0]["ports"][0], port=98600)),
    "range": ("addresses", "below its port", lambda w: merge(policy(w, "shortfall-serving/decide")["ingress"][0]["ports"][0], endPort=80)),
    "minute": ("schedules", "schedule", lambda w: merge(w["CronJob/shortfall-flows/sweeper"]["spec"], schedule="60 * * * *")),
    "four fields": ("schedules", "schedule", lambda w: merge(w["CronJob/shortfall-flows/sweeper"]["spec"], schedule="* * * *")),
    "no zone": ("schedules", "timeZone", lambda w: w["CronJob/shortfall-flows/sweeper"]["spec"].pop("timeZone")),
    "side by side": ("schedules", "side by side", lambda w: merge(w["CronJob/shortfall-flows/sweeper"]["spec"], concurrencyPolicy="Allow")),
    "job for ever": ("restarts", "restartPolicy Always", lambda w: w.pod(SETUP).pop("restartPolicy")),
    "server ends": ("restarts", "restartPolicy Never", lambda w: merge(w.pod(DECIDE), restartPolicy="Never")),
    "lost with its node": ("restarts", "backoffLimit 0", lambda w: merge(w["Job/shortfall-flows/flow-cpu"]["spec"], backoffLimit=0)),
    "no deadline": ("restarts", "activeDeadlineSeconds", lambda w: w[SETUP]["spec"].pop("activeDeadlineSeconds")),
    "left behind": ("restarts", "ttlSecondsAfterFinished", lambda w: w[SETUP]["spec"].pop("ttlSecondsAfterFinished")),
    "no budget": ("budgets", "no PodDisruptionBudget", lambda w: w.drop("PodDisruptionBudget/shortfall-serving/decide")),
    "undrainable": ("budgets", "cannot be drained", lambda w: merge(w["PodDisruptionBudget/shortfall-serving/decide"]["spec"], minAvailable=3)),
    "never evicted": ("budgets", "says why", lambda w: w["PodDisruptionBudget/shortfall-serving/gateway"]["metadata"].pop("annotations")),
    "two limits": ("budgets", "minAvailable and maxUnavailable", lambda w: merge(w["PodDisruptionBudget/shortfall-serving/decide"]["spec"], maxUnavailable=1)),
    "replicas set back": ("budgets", "autoscaler", lambda w: merge(w[DECIDE]["spec"], replicas=2)),
    "selector": ("selectors", "its selector takes", lambda w: merge(w[DECIDE]["spec"]["selector"], matchLabels={"shortfall.io/component": "decides"})),
    "selector of two": ("selectors", "its selector takes", lambda w: merge(w[DECIDE]["spec"]["selector"], matchLabels={"app.kubernetes.io/part-of": "shortfall"})),
    "budget of nobody": ("selectors", "one workload", lambda w: merge(w["PodDisruptionBudget/shortfall-serving/decide"]["spec"]["selector"], matchLabels={"a": "b"})),
    "service of nobody": ("selectors", "one workload", lambda w: merge(w["Service/shortfall-serving/decide"]["spec"], selector={"shortfall.io/component": "decider"})),
    "scales nobody": ("selectors", "not there", lambda w: merge(w["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"], name="decider")),
    "measures nobody": ("selectors", "measures container", lambda w: merge(w["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["containerResource"], container="app")),
    "no component": ("components", "no label", lambda w: w[DECIDE]["spec"]["template"]["metadata"]["labels"].pop("shortfall.io/component")),
    "component of two": ("components", "too", lambda w: merge(w[DECIDE]["spec"]["template"]["metadata"]["labels"], **{"shortfall.io/component": "parents"})),
    "target port": ("services", "port 9860", lambda w: merge(w["Service/shortfall-serving/decide"]["spec"]["ports"][0], targetPort="http")),
    "other number": ("services", "port 9861", lambda w: merge(w["Service/shortfall-serving/decide"]["spec"]["ports"][0], port=9861)),
    "governing service": ("services", "is not there", lambda w: merge(w[GATEWAY]["spec"], serviceName="gateways")),
    "ingress to nobody": ("services", "is not there", lambda w: merge(w["Ingress/shortfall-platform/mlflow"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"], name="ml")),
    "claim elsewhere": ("volumes", "claim lake is not", lambda w: w.drop("PersistentVolumeClaim/shortfall-flows/lake")),
    "secret elsewhere": ("volumes", "secret promoter-key is not", lambda w: merge(w.pod(DECIDE)["volumes"][1]["secret"], secretName="promoter-key")),
    "readable secret": ("volumes", "anybody", lambda w: merge(w.pod(DECIDE)["volumes"][1]["secret"], defaultMode=0o444)),
    "settings elsewhere": ("volumes", "settings gateway-config", lambda w: w.drop("ConfigMap/shortfall-serving/gateway-config")),
    "mount of nothing": ("volumes", "no volume", lambda w: w.pod(GATEWAY)["volumes"].pop()),
    "volume of nobody": ("volumes", "not mounted", lambda w: w.container(GATEWAY)["volumeMounts"].pop()),
    "secret's key": ("volumes", "no key", lambda w: merge(next(v["secret"]["items"][0] for v in w.pod("Deployment/shortfall-platform/mlflow")["volumes"] if "items" in v.get("secret", {})), key="auth.ini")),
    "variable's secret": ("environment", "is not in", lambda w: merge(w.container(SETUP)["env"][2]["valueFrom"]["secretKeyRef"], name="prefect")),
    "variable's key": ("environment", "no key", lambda w: merge(w.container(SETUP)["env"][2]["valueFrom"]["secretKeyRef"], key="password2")),
    "settings of all": ("environment", "flow-settings is not", lambda w: w.drop("ConfigMap/shortfall-flows/flow-settings")),
    "twice": ("environment", "stands twice", lambda w: w.container(SETUP)["env"].append({"name": "SHORTFALL_HOME", "value": "/x"})),
    "password as a value": ("no_values", "as a value", lambda w: w.container(DECIDE)["env"].append({"name": "REDIS_PASSWORD", "value": "x"})),
    "password in an address": ("no_values", "as a value", lambda w: w.container(DECIDE)["env"].append({"name": "URL", "value": "redis://a:b@c:1"})),
    "secret applied": ("no_values", "make secrets", lambda w: w.documents.append({"kind": "Secret", "metadata": {"name": "a", "namespace": "b"}})),
    "secret of nobody": ("used_secrets", "read by nobody", lambda w: w.drop("CronJob/shortfall-flows/backup-registry")),
    "ingress's secret": ("used_secrets", "not declared", lambda w: merge(w["Ingress/shortfall-platform/mlflow"]["spec"]["tls"][0], secretName="a")),
    "not denied": ("denied_by_default", "nothing denies", lambda w: w.drop("NetworkPolicy/shortfall-flows/default-deny")),
    "any peer": ("denied_by_default", "leaves out", lambda w: policy(w, "shortfall-serving/decide")["ingress"][0].pop("from")),
    "any port": ("denied_by_default", "leaves out", lambda w: policy(w, "shortfall-serving/decide")["ingress"][0].pop("ports")),
    "type left out": ("denied_by_default", "policyTypes", lambda w: merge(policy(w, "shortfall-serving/decide"), policyTypes=["Egress"])),
    "takes nobody": ("peers_exist", "takes no pod", lambda w: merge(policy(w, "shortfall-serving/decide")["podSelector"], matchLabels={"shortfall.io/component": "decides"})),
    "peer is nobody": ("peers_exist", "is nobody", lambda w: merge(policy(w, "shortfall-serving/decide")["ingress"][0]["from"][0]["podSelector"], matchLabels={"shortfall.io/component": "parent"})),
    "misspelt value": ("peers_exist", "nobody's", lambda w: merge(rule_of_worker(w), values=["worker", "flow_cpu"])),
    "port of nobody": ("peers_exist", "nobody listens", lambda w: merge(policy(w, "shortfall-serving/decide")["ingress"][0]["ports"][0], port=9999)),
    "one way shut": ("traffic", "('worker', 'prefect-server', 4200) is needed and shut", lambda w: rule_of_worker(w)["values"].remove("worker")),
    "other way shut": ("traffic", "('parents', 'gateway', 9870) is needed and shut", lambda w: policy(w, "shortfall-serving/from-parents")["egress"].pop()),
    "too open": ("traffic", "('decide', 'gateway', 9870) is open", lambda w: (
        policy(w, "shortfall-serving/gateway-orders")["ingress"][0]["from"].append({"podSelector": {}}),
        policy(w, "shortfall-serving/mirror")["egress"].append({"to": [{"podSelector": {}}], "ports": [{"port": 9870}]}),
    )),
    "internet": ("blocks", "0.0.0.0/0", lambda w: merge(policy(w, "shortfall-serving/oms")["ingress"][0]["from"][0]["ipBlock"], cidr="0.0.0.0/0")),
    "venue shut": ("blocks", "is needed and shut", lambda w: w.drop("NetworkPolicy/shortfall-serving/gateway-to-venue")),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_policy_catches(name):
    check, said, breaks = BROKEN[name]
    world = World(documents=copy.deepcopy(WHOLE))
    breaks(world)
    assert any(said in fault for fault in CHECKS[check](world)), CHECKS[check](world)


def test_every_policy_is_shown_to_catch_something():
    assert {check for check, _, _ in BROKEN.values()} == set(CHECKS)


def test_whole_manifests_give_no_policy_a_reason():
    world = World(documents=copy.deepcopy(WHOLE))
    assert {name: check(world) for name, check in CHECKS.items() if check(world)} == {}
