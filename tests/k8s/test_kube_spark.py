"""A real Spark session on a `k8s://` master: what it asks of the API server, the pods it posts, the work they do."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_api import TOKEN
from fake_kubelet import kubelet
from kube_policy import restricted_faults

REPO = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.spark]

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
DRIVER = """
import json, sys
from flows.infra import spark, stop_spark
session = spark()
numbers = session.sparkContext.parallelize(range(1000), 4)
rows = numbers.map(lambda x: (x % 7, x)).reduceByKey(lambda a, b: a + b).collect()
conf = session.sparkContext.getConf()
print(json.dumps({"rows": sorted(rows), "host": conf.get("spark.driver.host")}))
stop_spark()
"""

SPARK_RULES = [("", "pods", verb) for verb in ("create", "delete", "deletecollection", "get", "list", "watch")]
"""What a driver may need: `delete` is for an executor that failed. The Role of flow-cpu says the same."""

DRIVER_POD = {
    "apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "features-abc12", "namespace": "shortfall-flows"},
    "spec": {"containers": [{"name": "prefect-job", "image": "shortfall/data:1"}]},
}  # fmt: skip


def spark_environment(tmp_path: Path, api) -> dict[str, str]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(api.kubeconfig()))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SHORTFALL_", "SPARK_"))},
        "KUBECONFIG": str(kubeconfig),
        "SHORTFALL_SPARK_MASTER": f"k8s://{api.url}",
        "SHORTFALL_POD_NAME": "features-abc12",
        "SHORTFALL_POD_IP": "127.0.0.1",
        "SHORTFALL_POD_NAMESPACE": "shortfall-flows",
        "SHORTFALL_SPARK_EXECUTOR_IMAGE": "shortfall/data:1",
        "SHORTFALL_SPARK_EXECUTORS": "1",
        "SHORTFALL_SPARK_EXECUTOR_MEMORY": "512m",
        "SHORTFALL_SPARK_EXECUTOR_OVERHEAD": "256m",
        "SHORTFALL_SPARK_POD_TEMPLATE": str(REPO / "k8s" / "work-pools" / "spark-executor.yaml"),
        "SHORTFALL_SPARK_AUTH_SECRET": str(secret),
        "SHORTFALL_SPARK_DRIVER_PORT": "0",
        "SHORTFALL_SPARK_BLOCK_PORT": "0",
        "SHORTFALL_DRIVER_MEMORY": "512m",
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One run of a driver and its executor on a fake API server: the server afterwards, and what the driver said."""
    import pyspark
    from fake_api import fake_api

    from feature_repo.pipeline.spark import find_java

    tmp_path = tmp_path_factory.mktemp("spark")
    posted = []

    def command(pod, container):
        if pod["metadata"].get("labels", {}).get("shortfall.io/component") != "spark-executor":
            return None
        posted.append(pod)
        return ["bash", str(REPO / "k8s" / "images" / "entrypoint"), *container["args"]]

    here = {
        "JAVA_HOME": str(find_java().resolve().parent.parent),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_DIRS": str(tmp_path / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with fake_api() as api:
        api.rules = [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in SPARK_RULES]
        driver = api.add(DRIVER_POD)
        metadata = {"name": "spark-auth", "namespace": "shortfall-flows"}
        data = {"secret": base64.b64encode(SECRET.encode()).decode()}
        api.add({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        api.set_status("pods", driver, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
        with kubelet(api, command, here, tmp_path) as node:
            done = subprocess.run(
                [sys.executable, "-c", DRIVER],
                env=spark_environment(tmp_path, api), cwd=REPO, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:] + node.output()[-4000:]
        yield api, posted, driver, json.loads(done.stdout.splitlines()[-1]), node.output()


def test_session_when_its_master_is_kubernetes_then_executor_pods_do_the_work(session):
    _, posted, _, answer, _ = session
    assert answer["rows"] == [[k, sum(x for x in range(1000) if x % 7 == k)] for k in range(7)]
    assert answer["host"] == "127.0.0.1" and len(posted) == 1


def test_session_when_it_ends_then_it_leaves_no_pod(session):
    api, _, _, _, _ = session
    assert [pod["metadata"]["name"] for pod in api.items("pods")] == ["features-abc12"]
    assert not api.items("configmaps") and not api.items("services")


def test_executor_pods_when_posted_then_valid_restricted_owned_by_the_driver_and_without_a_secret_in_sight(session):
    import kubernetes_validate

    _, posted, driver, _, output = session
    for pod in posted:
        kubernetes_validate.validate(
            {key: pod[key] for key in ("apiVersion", "kind", "metadata", "spec")}, "1.36", strict=True
        )
        assert restricted_faults(pod["spec"]) == []
        assert [owner["uid"] for owner in pod["metadata"]["ownerReferences"]] == [driver["metadata"]["uid"]]
        assert pod["spec"]["serviceAccountName"] == "spark-executor" and not pod["spec"]["automountServiceAccountToken"]
        container = pod["spec"]["containers"][0]
        assert container["args"] == ["executor"] and container["image"] == "shortfall/data:1"
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]) & set(container["resources"]["requests"])
        assert SECRET not in json.dumps(pod) and TOKEN not in json.dumps(pod)
    assert SECRET not in output


def test_session_when_it_talks_to_the_api_server_then_only_about_pods_of_its_namespace(session):
    api, _, _, _, _ = session
    assert {call.namespace for call in api.calls} == {"shortfall-flows"}
    assert {call.rule for call in api.calls} <= set(SPARK_RULES)
    assert {call.verb for call in api.calls} >= {"get", "list", "watch", "create", "deletecollection"}
