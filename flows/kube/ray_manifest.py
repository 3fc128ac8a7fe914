"""The RayJob that trains an agent: a head, workers and a submitter under one token, all of them restricted."""

from dataclasses import dataclass, field
from typing import Any

RAY_VERSION = "2.60.0"
GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
LABEL = "shortfall.io/rayjob"
"""On every pod of a RayJob, with its name."""

_UID = 10001


@dataclass(frozen=True)
class PodSize:
    """What a pod asks for, and gets at most."""

    cpu: str
    memory: str
    gpus: int = 0

    def resources(self) -> dict[str, Any]:
        """Requests equal to limits: evicted last."""
        amounts = {"cpu": self.cpu, "memory": self.memory}
        if self.gpus:
            amounts["nvidia.com/gpu"] = str(self.gpus)
        return {"requests": amounts, "limits": dict(amounts)}


@dataclass(frozen=True)
class RayTraining:
    """One RayJob."""

    name: str
    namespace: str
    image: str
    entrypoint: str
    """Command line that the head runs."""

    owner: dict[str, Any] | None
    """Owner reference to the flow's Job: the RayJob goes with it."""

    labels: dict[str, str] = field(default_factory=dict)
    head: PodSize = PodSize("4", "16Gi", 1)
    worker: PodSize = PodSize("4", "8Gi")
    workers: int = 1
    shared_memory: str = "4Gi"
    deadline_s: int = 172_800
    retries: int = 1
    """Further Ray clusters that KubeRay tries after one was lost."""

    token_secret: str = "ray-token"
    """Secret whose `auth_token` opens the cluster."""

    service_account: str = "ray"
    node_selector: dict[str, str] = field(default_factory=dict)
    """Of pods with a GPU."""

    tolerations: tuple[dict[str, Any], ...] = ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)
    """Of pods with a GPU."""

    lake_claim: str = "lake"
    lake_folder: str = "/lake"

    def manifest(self) -> dict[str, Any]:
        """The object that the API server is given."""
        metadata: dict[str, Any] = {
            "name": self.name, "namespace": self.namespace, "labels": {"shortfall.io/component": "ray", **self.labels},
        }  # fmt: skip
        if self.owner is not None:
            metadata["ownerReferences"] = [self.owner]
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "RayJob",
            "metadata": metadata,
            "spec": {
                "entrypoint": self.entrypoint,
                "submissionMode": "K8sJobMode",
                "submitterConfig": {"backoffLimit": 2},
                "submitterPodTemplate": self._template("ray-submitter", self._submitter()),
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 600,  # whoever follows it deletes it; this is for one that nobody follows
                "activeDeadlineSeconds": self.deadline_s,
                "backoffLimit": self.retries,
                "rayClusterSpec": {
                    "rayVersion": RAY_VERSION,
                    "enableInTreeAutoscaling": False,
                    "authOptions": {"mode": "token", "secretName": self.token_secret},
                    "headGroupSpec": {
                        "rayStartParams": {"dashboard-host": "0.0.0.0", **_ray_resources(self.head)},
                        "template": self._template("ray-head", self._head(), self.head),
                    },
                    "workerGroupSpecs": [
                        {
                            "groupName": "workers",
                            "replicas": self.workers,
                            "minReplicas": self.workers,
                            "maxReplicas": self.workers,
                            "rayStartParams": _ray_resources(self.worker),
                            "template": self._template("ray-worker", self._worker(), self.worker),
                        }
                    ],
                },
            },
        }

    def _template(self, component: str, container: dict[str, Any], size: PodSize | None = None) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "restartPolicy": "Never",
            "serviceAccountName": self.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "priorityClassName": "shortfall-batch",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": _UID, "runAsGroup": _UID, "fsGroup": _UID,
                "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "lake", "persistentVolumeClaim": {"claimName": self.lake_claim}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}},
                {"name": "home", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": self.shared_memory}},
            ],
        }  # fmt: skip
        if size is not None and size.gpus:
            spec |= {"nodeSelector": dict(self.node_selector), "tolerations": [dict(item) for item in self.tolerations]}
        return {"metadata": {"labels": {"shortfall.io/component": component, LABEL: self.name}}, "spec": spec}

    def _container(self, name: str, resources: dict[str, Any]) -> dict[str, Any]:
        token = {"secretKeyRef": {"name": self.token_secret, "key": "auth_token"}}
        return {
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "resources": resources,
            # KubeRay gives the containers that it adds itself the context of the one that they stand beside.
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            },
            "env": [
                {"name": "RAY_AUTH_MODE", "value": "token"},
                {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
                {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
                {"name": "OMP_NUM_THREADS", "value": "1"},
                {"name": "PYTHONPATH", "value": "/app"},
                {"name": "SHORTFALL_LAKE", "value": self.lake_folder},
            ],
            "volumeMounts": [
                {"name": "lake", "mountPath": self.lake_folder}, {"name": "tmp", "mountPath": "/tmp"},
                {"name": "home", "mountPath": "/home/shortfall"}, {"name": "shm", "mountPath": "/dev/shm"},
            ],
        }  # fmt: skip

    def _head(self) -> dict[str, Any]:
        container = self._container("ray-head", self.head.resources())
        container["env"] += [
            {"name": f"MLFLOW_TRACKING_{key.upper()}", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": key}}}
            for key in ("username", "password")
        ]
        ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
        return container | _probes("/api/gcs_healthz", 8265)

    def _worker(self) -> dict[str, Any]:
        return self._container("ray-worker", self.worker.resources()) | _probes("/api/local_raylet_healthz", 52365)

    def _submitter(self) -> dict[str, Any]:
        return self._container("ray-job-submitter", PodSize("500m", "1Gi").resources())


def _ray_resources(size: PodSize) -> dict[str, str]:
    """What Ray may schedule in a pod: whole cores of its limit."""
    cores = int(size.cpu[:-1]) // 1000 if size.cpu.endswith("m") else int(size.cpu)
    return {"num-cpus": str(max(1, cores)), "num-gpus": str(size.gpus)}


def _probes(path: str, port: int) -> dict[str, Any]:
    """Ray's own health paths, which ask for no token; KubeRay's default probes would need wget in the image."""
    asked = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5}
    return {
        "startupProbe": {**asked, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**asked, "periodSeconds": 10, "failureThreshold": 6},
        "livenessProbe": {**asked, "periodSeconds": 30, "failureThreshold": 10},
    }
