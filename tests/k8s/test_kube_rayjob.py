"""A RayJob: what is posted, how it is followed, and that nothing of it stays, against a fake API server."""

import json
import threading
from contextlib import contextmanager

import pytest
from fake_kinds import ray_schema
from kube_policy import restricted_faults

from flows.kube.ray_manifest import LABEL, PodSize, RayTraining
from flows.kube.rayjob import RayJobError, run_rayjob

SPACE = "shortfall-flows"
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "smart-otter-abc12", "uid": "u-1"}
POLL_S = 0.05
RULES = [
    ("ray.io", "rayjobs", "create"), ("ray.io", "rayjobs", "get"), ("ray.io", "rayjobs", "delete"),
    ("", "pods", "list"), ("", "pods/log", "get"),
]  # fmt: skip
"""What following a RayJob may ask for: the Role of flow-gpu says the same."""


@pytest.fixture
def training() -> RayTraining:
    return RayTraining(
        name="train-agent-0123456789ab", namespace=SPACE, image="shortfall/train:1", entrypoint="python -m x",
        owner=OWNER, labels={"prefect.io/flow-run-id": "r-1"}, node_selector={"gpu": "yes"},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def rules(api):
    api.rules = [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in RULES]


def submitter(api, name: str, phase: str = "Running") -> dict:
    """The pod that KubeRay's submitter Job makes of the template."""
    job = api.items("rayjobs", SPACE)[0]
    template = job["spec"]["submitterPodTemplate"]
    owners = [
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    ]
    metadata = {"name": name, "namespace": SPACE, **template["metadata"], "ownerReferences": owners}
    return api.add(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, {"phase": phase}
    )


@contextmanager
def operator(api, act):
    """KubeRay's part, played by `act` once the RayJob is there."""
    made = threading.Event()

    def on_change(event) -> None:
        if event.type == "ADDED" and event.kind.plural == "rayjobs":
            made.set()

    def play() -> None:
        if made.wait(10):
            act()

    api.store.on_change.append(on_change)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        made.set()
        thread.join()


def finish(api, state: str = "SUCCEEDED", deployment: str = "Complete", **more) -> None:
    job = api.items("rayjobs", SPACE)[0]
    api.set_status("rayjobs", job, {"jobStatus": state, "jobDeploymentStatus": deployment, **more})


def end_pod(api, name: str, phase: str = "Succeeded") -> None:
    pod = next(pod for pod in api.items("pods", SPACE) if pod["metadata"]["name"] == name)
    api.set_status("pods", pod, {"phase": phase})


def test_rayjob_when_built_then_kuberays_schema_takes_it_and_refuses_a_renamed_field(training):
    import jsonschema

    schema = ray_schema("rayjobs")
    if schema is None:
        pytest.skip("KubeRay's schemas are not there")
    check = jsonschema.Draft202012Validator(schema)
    manifest = training.manifest()
    assert list(check.iter_errors(manifest)) == []
    for path in _paths(manifest["spec"]):
        renamed = json.loads(json.dumps(manifest))
        parent = renamed["spec"]
        for part in path[:-1]:
            parent = parent[part]
        parent[f"{path[-1]}X"] = parent.pop(path[-1])
        assert list(check.iter_errors(renamed)) != [], f"{path} renamed"


def _paths(value, path=()):
    """Every named field of the manifest whose name means something to the API server."""
    free = ("rayStartParams", "nodeSelector", "labels", "requests", "limits")
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            if key not in free:
                yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def test_rayjob_when_built_then_every_pod_is_restricted_and_shares_the_token_by_secret(training):
    import kubernetes_validate

    spec = training.manifest()["spec"]
    cluster = spec["rayClusterSpec"]
    templates = [
        spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]
    ]  # fmt: skip
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "p", **template["metadata"]}}
        kubernetes_validate.validate(pod, "1.36", strict=True)
        assert restricted_faults(template["spec"]) == []
        assert template["metadata"]["labels"][LABEL] == training.name
        assert template["spec"]["automountServiceAccountToken"] is False
        container = template["spec"]["containers"][0]
        env = {entry["name"]: entry for entry in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "ray-token", "key": "auth_token"}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])


def test_rayjob_when_the_head_has_a_gpu_then_it_alone_goes_to_such_a_node_and_ray_knows_of_it(training):
    cluster = training.manifest()["spec"]["rayClusterSpec"]
    head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    assert head["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert head["template"]["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert head["rayStartParams"] == {"dashboard-host": "0.0.0.0", "num-cpus": "4", "num-gpus": "1"}
    assert worker["rayStartParams"] == {"num-cpus": "4", "num-gpus": "0"}
    assert "nodeSelector" not in worker["template"]["spec"]
    assert PodSize("500m", "1Gi").resources()["limits"] == {"cpu": "500m", "memory": "1Gi"}


def test_run_when_the_rayjob_succeeds_then_its_log_is_told_once_and_nothing_of_it_stays(api, client, training):
    said: list[str] = []

    def act() -> None:
        finish(api, "RUNNING", "Running")
        submitter(api, "sub-1")
        api.log(SPACE, "sub-1", "ray-job-submitter", "one", "two", "three")
        end_pod(api, "sub-1")
        finish(api)

    api.cut_logs_after = 2  # and the connection breaks in the middle
    with operator(api, act):
        run_rayjob(training, client, said.append, POLL_S)
    assert [line for line in said if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert any("interrupted" in line for line in said) or api.cut_logs_after == 0
    assert api.items("rayjobs") == [] and api.items("pods") == []


def test_run_when_created_then_the_flows_job_owns_it_and_takes_it_along(api, client, training):
    owner = api.add(_job())
    mine = {**OWNER, "uid": owner["metadata"]["uid"]}
    training = RayTraining(**{**training.__dict__, "owner": mine})

    def act() -> None:
        submitter(api, "sub-1")
        api.store.delete(api.kind("jobs"), SPACE, OWNER["name"])

    with operator(api, act), pytest.raises(RayJobError, match="was deleted while it ran"):
        run_rayjob(training, client, lambda line: None, POLL_S)
    assert api.items("rayjobs") == [] and api.items("pods") == []


def test_run_when_the_rayjob_fails_then_kuberays_reason_is_told_and_it_is_deleted(api, client, training):
    with (
        operator(api, lambda: finish(api, "FAILED", "Failed", reason="AppFailed", message="exit status 1")),
        pytest.raises(RayJobError, match="ended FAILED: AppFailed: exit status 1"),
    ):
        run_rayjob(training, client, lambda line: None, POLL_S)
    assert api.items("rayjobs") == []


def test_run_when_the_deadline_passes_then_told_as_such(api, client, training):
    with (
        operator(api, lambda: finish(api, "", "Failed", reason="DeadlineExceeded", message="active deadline passed")),
        pytest.raises(RayJobError, match="DeadlineExceeded"),
    ):
        run_rayjob(training, client, lambda line: None, POLL_S)


def test_run_when_the_flow_is_cancelled_then_the_rayjob_is_deleted(api, client, training):
    class Cancelled(BaseException):
        pass

    def say(line: str) -> None:
        if threading.current_thread() is threading.main_thread() and line.endswith("Running RUNNING"):
            raise Cancelled  # as Prefect's termination signal comes up in the flow's main thread

    with operator(api, lambda: finish(api, "RUNNING", "Running")), pytest.raises(Cancelled):
        run_rayjob(training, client, say, POLL_S)
    assert api.items("rayjobs") == []


def test_run_when_an_earlier_attempt_left_one_then_it_and_its_pods_are_gone_before_the_next_starts(
    api, client, training
):
    lost = api.add(training.manifest())
    finish(api, "RUNNING", "Running")
    submitter(api, "old-sub")
    made_with_pods: list[int] = []

    def on_change(event) -> None:
        if event.type == "ADDED" and event.kind.plural == "rayjobs":
            made_with_pods.append(len(api.items("pods", SPACE)))

    api.store.on_change.append(on_change)
    with operator(api, lambda: finish(api)):
        run_rayjob(training, client, lambda line: None, POLL_S)
    assert made_with_pods == [0] and lost["metadata"]["uid"]
    assert api.items("rayjobs") == []


def test_run_when_the_api_server_stumbles_then_calls_are_tried_again(api, client, training, monkeypatch):
    monkeypatch.setattr("flows.kube.client.time.sleep", lambda seconds: None)
    api.faults += [("create", "rayjobs", 503), ("get", "rayjobs", 500), ("delete", "rayjobs", 429)]
    with operator(api, lambda: finish(api)):
        run_rayjob(training, client, lambda line: None, POLL_S)
    assert not api.faults and api.items("rayjobs") == []


def test_run_when_it_followed_a_whole_life_then_it_asked_for_what_its_role_allows_and_all_of_that(
    api, client, training
):
    def act() -> None:
        submitter(api, "sub-1")
        api.log(SPACE, "sub-1", "ray-job-submitter", "one")
        end_pod(api, "sub-1")
        finish(api)

    with operator(api, act):
        run_rayjob(training, client, lambda line: None, POLL_S)
    assert {call.rule for call in api.calls} == set(RULES)
    assert {call.namespace for call in api.calls} == {SPACE}


def _job() -> dict:
    container = {"name": "prefect-job", "image": "shortfall/train:1"}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": OWNER["name"], "namespace": SPACE},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }  # fmt: skip
