"""What `make deploy` and `make undeploy` ask of kubectl, in which order, and what they say when it refuses."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from manifests import overlay

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "k8s" / "deploy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder:
    """Stands in for kubectl: builds overlays, keeps each call, fails where told."""

    def __init__(self, tool, failing=(), ready="1"):
        self._tool, self._failing, self._ready, self.calls = tool, failing, ready, []

    def run(self, *arguments, stdin=None):
        if arguments[0] == "kustomize":
            return yaml.safe_dump_all(overlay(Path(arguments[1]).name))
        self.calls.append((arguments, list(yaml.safe_load_all(stdin)) if stdin else []))
        if self._failing and arguments[: len(self._failing)] == tuple(self._failing):
            raise self._tool.DeployError("kubectl said no")
        if arguments[-1].startswith("jsonpath="):
            return self._ready
        return "NAME READY\n"

    def words(self):
        return [" ".join(arguments[:2]) for arguments, _ in self.calls]


def test_deploy_when_run_then_namespaces_come_first_and_databases_are_waited_for_before_jobs(tool):
    kubectl = Recorder(tool)
    tool.up(kubectl, "local", 10.0, secrets=False)
    assert kubectl.words()[:3] == ["version -o", "apply -f", "apply -k"]
    assert {document["kind"] for document in kubectl.calls[1][1]} == {"Namespace"}
    waits = [arguments for arguments, _ in kubectl.calls[3:] if arguments[0] != "get"]
    kinds = ["job" if arguments[0] == "wait" else arguments[2].partition("/")[0] for arguments in waits]
    assert kinds == sorted(kinds, key=["statefulset", "job", "deployment"].index)
    assert {"statefulset", "job", "deployment"} == set(kinds)
    waited = {arguments[2].partition("/")[2] for arguments in waits}
    assert "decide" in waited and "gateway" not in waited  # the gateway is rolled out by a person


def test_deploy_when_no_policy_was_ever_signed_then_does_not_wait_for_decide_and_says_so(tool, capsys):
    kubectl = Recorder(tool, ready="")
    tool.up(kubectl, "local", 10.0, secrets=False)
    waited = {arguments[2] for arguments, _ in kubectl.calls if arguments[0] == "rollout"}
    assert "deployment/decide" not in waited and "statefulset/parents" in waited
    assert "decide is not ready before the first night has signed a policy" in capsys.readouterr().out


def test_deploy_when_a_roll_out_fails_then_names_it_and_shows_the_pods(tool):
    kubectl = Recorder(tool, failing=("rollout", "status", "statefulset/postgres"))
    with pytest.raises(tool.DeployError, match=r"(?s)said no.*READY.*kubectl describe pod -n shortfall-platform"):
        tool.up(kubectl, "local", 10.0, secrets=False)


def test_deploy_when_the_cluster_is_away_then_applies_nothing(tool):
    kubectl = Recorder(tool, failing=("version",))
    with pytest.raises(tool.DeployError):
        tool.up(kubectl, "local", 10.0, secrets=False)
    assert kubectl.words() == ["version -o"]


@pytest.mark.parametrize("delete_data", [False, True])
def test_undeploy_when_run_then_data_stays_unless_asked_for(tool, delete_data):
    kubectl = Recorder(tool)
    tool.down(kubectl, "local", delete_data)
    ((arguments, gone),) = kubectl.calls
    assert arguments[:2] == ("delete", "--ignore-not-found")
    kinds = {document["kind"] for document in gone}
    if delete_data:
        assert "Namespace" in kinds
    else:
        assert not kinds & {"Namespace", "PersistentVolumeClaim", "Secret"}
        assert {"Deployment", "StatefulSet", "NetworkPolicy"} <= kinds


def test_deploy_when_the_overlay_is_unknown_then_ends_with_2(tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool.main(["up", "nowhere"])
    assert stopped.value.code == 2 and "local" in capsys.readouterr().err
