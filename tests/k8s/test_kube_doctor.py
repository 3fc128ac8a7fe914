"""`shortfall doctor --kube` against a fake API server in good and bad states: what it says, and its exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.kube.doctor import NAMESPACES, NEEDED


def node(name: str, gpus: int = 0, ready: str = "True") -> dict:
    return {
        "item": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "8", **({"nvidia.com/gpu": str(gpus)} if gpus else {})},
        },
    }


def crd(name: str, version: str = "v1") -> dict:
    plural, _, group = name.partition(".")
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": "X"},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }  # fmt: skip


def good(api) -> None:
    """A cluster that lacks nothing."""
    for made in (node("a"), node("b", gpus=2)):
        api.add(made["item"], made["status"])
    metadata = {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    api.add(
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": "x.io/disk"}
    )
    for name in ("rayjobs.ray.io", "rayclusters.ray.io"):
        api.add(crd(name))
    for name in ("servicemonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com"):
        api.add(crd(name))
    for name in NAMESPACES:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    api.add(deployment("decide"), {"readyReplicas": 2})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "lake", "namespace": "shortfall-flows"}
    api.add(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim}, {"phase": "Bound"}
    )


def deployment(name: str) -> dict:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": "x:1"}]}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shortfall-serving"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip


@pytest.fixture
def doctor(api, tmp_path: Path, monkeypatch):
    """Runs the command against the server; gives its exit code and its findings by subject."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(api.kubeconfig()))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("flows.kube.client.time.sleep", lambda seconds: None)

    def run(*arguments: str) -> tuple[int, dict[str, dict]]:
        done = CliRunner().invoke(app, ["doctor", "--kube", "--json", *arguments], standalone_mode=True)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, {item["subject"]: item for item in json.loads(done.stdout)}

    return run


def test_doctor_when_nothing_is_missing_then_exit_code_0_and_it_says_what_is_there(api, doctor):
    good(api)
    code, found = doctor()
    assert code == 0 and {item["level"] for item in found.values()} == {"ok"}
    assert found["context"]["what"] == f"fake at {api.url}"
    assert found["API version"]["what"] == "v1.36.0"
    assert found["GPU nodes"]["what"] == "b (2)" and found["nodes"]["what"] == "2 of 2 ready"
    assert found["storage classes"]["what"] == "fast (x.io/disk); default fast"
    assert not {call.verb for call in api.calls} & {"create", "update", "patch", "delete"}


def test_doctor_when_run_for_people_then_one_line_a_finding_and_how_to_mend_it_below(api, doctor):
    good(api)
    api.store.delete(api.kind("storageclasses"), "", "fast")
    done = CliRunner().invoke(app, ["doctor", "--kube"])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    at = lines.index("missing  storage classes: none")
    assert "install a provisioner" in lines[at + 1]


@pytest.mark.parametrize(
    ("break_it", "subject", "says", "mends"),
    [
        (lambda api: _remove(api, "nodes", "b"), "GPU nodes", "no ready node offers", "device plugin"),
        (lambda api: _not_ready(api), "nodes", "2 nodes, none ready", "kubectl describe nodes"),
        (lambda api: _two_defaults(api), "storage classes", "2 default classes", "kubectl annotate storageclass"),
        (lambda api: _remove(api, "namespaces", NAMESPACES[0]), f"namespace {NAMESPACES[0]}", "absent", "make deploy"),
        (lambda api: _relabel(api), "namespace shortfall-serving", "enforces Pod Security baseline", "make deploy"),
        (lambda api: _stuck(api), "shortfall-serving/decide", 'secret "x" not found', "describe pods"),
        (lambda api: _claim(api, "Lost"), "shortfall-flows/lake", "claim is Lost", "describe pvc"),
    ],
)  # fmt: skip
def test_doctor_when_something_is_missing_then_exit_code_1_and_it_says_what_and_how_to_mend_it(
    api, doctor, break_it, subject, says, mends
):
    good(api)
    break_it(api)
    code, found = doctor()
    assert code == 1
    assert found[subject]["level"] == "missing"
    assert says in found[subject]["what"] and mends in found[subject]["mend"]


def test_doctor_when_no_gpus_are_wanted_then_their_absence_is_no_fault(api, doctor):
    good(api)
    api.store.delete(api.kind("nodes"), "", "b")
    code, found = doctor("--no-gpus")
    assert code == 0 and found["GPU nodes"]["level"] == "ok"


@pytest.mark.parametrize("how", ["absent", "old"])
def test_doctor_when_kuberay_is_absent_or_old_then_a_warning_and_exit_code_0(api, doctor, how):
    good(api)
    api.store.delete(api.kind("customresourcedefinitions"), "", "rayjobs.ray.io")
    if how == "old":
        api.add(crd("rayjobs.ray.io", "v1alpha1"))
    code, found = doctor()
    assert code == 0 and found["KubeRay"]["level"] == "warning"
    assert {"absent": "is absent", "old": "serves no v1"}[how] in found["KubeRay"]["what"]
    assert "--server-side" in found["KubeRay"]["mend"]


def test_doctor_when_the_cluster_is_old_then_says_which_version_is_needed(api, doctor, monkeypatch):
    good(api)
    monkeypatch.setattr("fake_api.VERSION", "1.30")
    code, found = doctor()
    assert code == 1 and "1.33 or later" in found["API version"]["mend"]


def test_doctor_when_rights_are_missing_then_names_them_and_goes_on_where_it_may_not_look(api, doctor):
    good(api)
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "patch"]}]
    api.rules = [*everything, {"apiGroups": ["apps", "batch"], "resources": ["*"], "verbs": ["create"]}]
    code, found = doctor()
    assert code == 1 and found["permissions"]["level"] == "missing"
    assert "may not create namespaces" in found["permissions"]["what"]
    assert "create deployments" not in found["permissions"]["what"]
    api.rules = [{"apiGroups": ["*"], "resources": ["pods", "namespaces"], "verbs": ["get", "list"]}]
    code, found = doctor()
    assert code == 1 and found["nodes"]["level"] == "warning" and "403" in found["nodes"]["what"]
    assert found["namespace shortfall-flows"]["level"] == "ok"


def test_doctor_when_the_server_does_not_answer_or_refuses_the_token_then_exit_code_2(
    api, doctor, tmp_path, monkeypatch
):
    from feature_repo.errors import InputError

    content = api.kubeconfig()
    content["users"][0]["user"]["token"] = "guess"
    (tmp_path / "kubeconfig").write_text(json.dumps(content))
    with pytest.raises(InputError, match="401 Unauthorized"):
        doctor()
    content["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not answer") as caught:
        doctor()
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="no cluster") as caught:
        doctor("--context", "nowhere")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="set KUBECONFIG"):
        doctor()


def test_needed_rights_when_listed_then_each_once():
    assert len(set(NEEDED)) == len(NEEDED)


def _remove(api, plural: str, name: str) -> None:
    api.store.delete(api.kind(plural), "", name)


def _not_ready(api) -> None:
    for item in api.items("nodes"):
        api.set_status("nodes", item, {"conditions": [{"type": "Ready", "status": "Unknown"}]})


def _two_defaults(api) -> None:
    metadata = {"name": "slow", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    api.add(
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": "x.io/nfs"}
    )


def _relabel(api) -> None:
    item = next(item for item in api.items("namespaces") if item["metadata"]["name"] == "shortfall-serving")
    item["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "baseline"}
    api.store.replace(api.kind("namespaces"), "", "shortfall-serving", item)


def _stuck(api) -> None:
    api.set_status("deployments", api.items("deployments")[0], {"readyReplicas": 1})
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}
    state = {"name": "c", "state": {"waiting": waiting}, "ready": False, "restartCount": 0, "image": "", "imageID": ""}
    metadata = {"name": "decide-1", "namespace": "shortfall-serving", "labels": {"app": "decide"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "c", "image": "x:1"}]},
    }
    api.add(pod, {"phase": "Pending", "containerStatuses": [state]})


def _claim(api, phase: str) -> None:
    api.set_status("persistentvolumeclaims", api.items("persistentvolumeclaims")[0], {"phase": phase})
