"""Spark on Kubernetes in client mode: the driver in the flow's pod, executors as pods that go with it.

The driver's address and pod name come from the downward API. Executors authenticate with a shared secret that the
driver mounts and that their pods name by Secret and key, so that no manifest holds it; the traffic is encrypted.
"""

import atexit
import base64
import os
import tempfile
from pathlib import Path

from feature_repo.errors import InputError
from flows.deployments import REPO
from flows.settings import Settings

LEAST_SECRET = 32
"""Bytes."""


def kubernetes_conf(config: Settings) -> dict[str, str]:
    """Spark's settings for a `k8s://` master. Raises InputError that names the first of them that is missing."""
    if config.pod_name is None or config.pod_ip is None or config.pod_namespace is None:
        raise InputError(
            "spark_master is k8s://, but SHORTFALL_POD_NAME, SHORTFALL_POD_IP and SHORTFALL_POD_NAMESPACE are not all "
            "set: the driver must run in a pod, whose template gives them by the downward API"
        )
    if config.spark_executor_image is None:
        raise InputError("spark_master is k8s://, but SHORTFALL_SPARK_EXECUTOR_IMAGE is not set")
    template = _file(config.spark_pod_template, "template")
    secret = _raw_secret(_file(config.spark_auth_secret, "shared secret"))
    return {
        "spark.submit.deployMode": "client",
        "spark.kubernetes.namespace": config.pod_namespace,
        "spark.kubernetes.driver.pod.name": config.pod_name,
        "spark.driver.host": _driver_host(config, config.pod_ip, config.pod_namespace),
        "spark.driver.bindAddress": config.pod_ip,
        "spark.driver.port": str(config.spark_driver_port),
        "spark.driver.blockManager.port": str(config.spark_block_port),
        "spark.blockManager.port": str(config.spark_block_port),  # of the executors
        "spark.kubernetes.executor.container.image": config.spark_executor_image,
        "spark.kubernetes.executor.podTemplateFile": str(template),
        "spark.kubernetes.executor.podTemplateContainerName": "executor",
        "spark.kubernetes.executor.podNamePrefix": f"spark-{config.pod_name}"[:45].rstrip("-."),
        "spark.executor.instances": str(config.spark_executors),
        "spark.executor.cores": str(config.spark_executor_cores),
        "spark.kubernetes.executor.limit.cores": str(config.spark_executor_cores),
        "spark.executor.memory": config.spark_executor_memory,
        "spark.executor.memoryOverhead": config.spark_executor_overhead,  # Python's workers
        "spark.executorEnv.PYTHONPATH": str(REPO),
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.authenticate": "true",
        "spark.authenticate.secret.file": str(secret),
        # By name and key: an executor's first call looks into its environment, not at a file (Spark 4.3).
        "spark.kubernetes.executor.secretKeyRef._SPARK_AUTH_SECRET": config.spark_executor_secret,
        "spark.network.crypto.enabled": "true",
        # Nothing of the driver's own is made in the cluster, so nothing but pods has to be allowed.
        "spark.kubernetes.executor.disableConfigMap": "true",
        "spark.kubernetes.driver.service.deleteOnTermination": "false",
        "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
        "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",  # a node may have to be added first
    }


def _driver_host(config: Settings, ip: str, namespace: str) -> str:
    """The pod's address, or its name in the headless service where one is named."""
    if config.spark_driver_service is None:
        return f"[{ip}]" if ":" in ip else ip
    return f"{ip.replace('.', '-').replace(':', '-')}.{config.spark_driver_service}.{namespace}.svc"


def _raw_secret(path: Path) -> Path:
    """A file with the bytes that the secret's text stands for; Spark writes such a file's bytes as that text again.

    Raises InputError where the text is not base64 of at least 32 bytes.
    """
    text = path.read_text().strip()
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) < LEAST_SECRET or base64.b64encode(raw).decode() != text:
        raise InputError(f"{path}: not base64 of {LEAST_SECRET} bytes or more; write it by `openssl rand -base64 32`")
    handle, name = tempfile.mkstemp(prefix="spark-auth-")
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
    atexit.register(Path(name).unlink, missing_ok=True)
    return Path(name)


def _file(path: Path, what: str) -> Path:
    if not path.is_file():
        raise InputError(f"spark_master is k8s://, but the executors' {what} {path} is not there")
    return path
