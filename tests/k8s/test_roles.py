"""Roles give exactly what the code behind an identity asks for: one right too few fails a run, one more is a risk."""

from pathlib import Path

import prefect_kubernetes
import pytest
from manifests import K8S, ROOT, of_kind, overlay
from policy_roles import asked, granted
from test_kube_rayjob import RULES as FOLLOWED_RAYJOB
from test_kube_rollout import RULES as ROLLED_OUT
from test_kube_spark import SPARK_RULES

KUBE = ROOT / "flows" / "kube"
RAYJOBS = ("ray.io", "rayjobs")
WORKER = [Path(prefect_kubernetes.__file__).parent / name for name in ("worker.py", "observer.py", "diagnostics.py")]
OBSERVED = {("", "pods", "list"), ("", "pods", "watch"), ("batch", "jobs", "list"), ("batch", "jobs", "watch")}
"""Of the worker's observer, through kopf."""

CODE = {
    # its calls about secrets are for keys that it makes itself; here each secret is there and is named (workers.yaml)
    ("shortfall-flows", "worker"): {right for right in asked(WORKER) if right[1] != "secrets"} | OBSERVED,
    ("shortfall-flows", "flow-cpu"): set(SPARK_RULES),
    ("shortfall-flows", "flow-gpu"): asked([KUBE / "rayjob.py"], RAYJOBS),
    ("shortfall-flows", "sweeper"): asked([KUBE / "sweep.py"], RAYJOBS),
    ("shortfall-serving", "rollout"): asked([KUBE / "rollout.py"]),
    ("shortfall-serving", "backup"): asked(
        [K8S / "overlays" / "production" / "scripts" / "snapshot.py"], ("snapshot.storage.k8s.io", "volumesnapshots")
    ),
}
CODE["shortfall-flows", "worker-promote"] = CODE["shortfall-flows", "worker"]


@pytest.fixture(scope="module")
def documents():
    return overlay("production")


@pytest.mark.parametrize("identity", CODE, ids="/".join)
def test_role_gives_what_the_code_asks_for_and_no_more(documents, identity):
    assert CODE[identity], "no call was found: the scan has gone blind"
    assert granted(documents, *identity) == CODE[identity]


def test_nobody_else_has_any_right(documents):
    bound = {(s["namespace"], s["name"]) for b in of_kind(documents, "RoleBinding") for s in b["subjects"]}
    assert bound == set(CODE)
    assert of_kind(documents, "ClusterRole", "ClusterRoleBinding") == []


def test_calls_read_out_of_the_code_are_those_that_a_server_saw():
    assert CODE["shortfall-flows", "flow-gpu"] == set(FOLLOWED_RAYJOB)
    assert CODE["shortfall-serving", "rollout"] == set(ROLLED_OUT)


def test_right_too_many_and_one_too_few_are_seen(documents):
    role = next(item for item in of_kind(documents, "Role") if item["metadata"]["name"] == "sweeper")
    role["rules"][0]["verbs"].append("create")
    role["rules"][0]["verbs"].remove("delete")
    differing = granted(documents, "shortfall-flows", "sweeper") ^ CODE["shortfall-flows", "sweeper"]
    assert differing == {("batch", "jobs", "create"), ("batch", "jobs", "delete")}
    role["rules"][0]["verbs"] = ["*"]
    with pytest.raises(AssertionError):
        granted(documents, "shortfall-flows", "sweeper")
