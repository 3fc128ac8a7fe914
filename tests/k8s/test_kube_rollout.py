"""A rollout: what changes, what it waits for, and how it is taken back, against a fake API server and controller."""

from collections.abc import Callable

import pytest

from feature_repo.errors import InputError
from flows.kube.rollout import Cluster, RolloutError, find_workloads, not_ready, repository_of, roll_out

SPACE = "shortfall-serving"
OLD, NEW, BAD = (
    "registry.example:5000/shortfall/serve:1",
    "registry.example:5000/shortfall/serve:2",
    "x/shortfall/serve:bad",
)
RULES = [
    ("apps", "deployments", "get"), ("apps", "deployments", "list"), ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "get"), ("apps", "statefulsets", "list"), ("apps", "statefulsets", "patch"),
    ("", "pods", "list"),
]  # fmt: skip
"""What a rollout may ask for: the Role `rollout` says the same."""


def workload(kind: str, name: str, images: dict[str, str], sidecar: str | None = None) -> dict:
    containers = [{"name": container, "image": image} for container, image in images.items()]
    spec = {"containers": containers}
    if sidecar:
        spec["initContainers"] = [{"name": "mirror", "image": sidecar, "restartPolicy": "Always"}]
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    whole = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        whole["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": SPACE}, "spec": whole}


def images_of(api, plural: str, name: str) -> dict[str, str]:
    spec = next(item for item in api.items(plural) if item["metadata"]["name"] == name)["spec"]["template"]["spec"]
    return {c["name"]: c["image"] for c in [*spec["containers"], *spec.get("initContainers", [])]}


def controller(api, starts: Callable[[str, str], bool], late: bool = False):
    """Plays the Deployment and StatefulSet controllers: a change is ready where the workload `starts` its images."""

    def on_change(event) -> None:
        item = event.item
        if event.kind.kind not in ("Deployment", "StatefulSet") or event.type == "DELETED":
            return
        if item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]:
            return
        name = item["metadata"]["name"]
        good = all(starts(name, c["image"]) for c in item["spec"]["template"]["spec"]["containers"])
        replicas = item["spec"]["replicas"]
        ready = replicas if good else 1
        status = {
            "observedGeneration": item["metadata"]["generation"], "replicas": replicas if good else replicas + 1,
            "updatedReplicas": replicas if good else 1, "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        if late and not good:
            status["conditions"] = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
        api.set_status(event.kind.plural, item, status)
        if not good:
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": f"{name}-", "namespace": SPACE}}
            pod["metadata"]["labels"] = item["spec"]["template"]["metadata"]["labels"]
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
            states = [{"name": "c", "state": waiting, "ready": False, "restartCount": 0, "image": "", "imageID": ""}]
            pod["spec"] = {"containers": [{"name": "c", "image": BAD}]}
            api.add(pod, {"phase": "Pending", "containerStatuses": states})

    api.store.on_change.append(on_change)


@pytest.fixture
def cluster(api, client):
    api.rules = [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in RULES]
    return Cluster(client)


def serving(api) -> None:
    api.add(workload("Deployment", "decide", {"decide": OLD}, sidecar=OLD))
    api.add(workload("StatefulSet", "parents", {"parents": OLD, "proxy": "other:1"}))
    api.add(workload("StatefulSet", "gateway", {"gateway": "registry.example:5000/shortfall/gateway:1"}))


def test_rollout_when_the_image_starts_then_every_container_of_its_repository_and_no_other_changes(api, cluster):
    controller(api, lambda name, image: True)
    serving(api)
    assert roll_out(cluster, NEW, poll_s=0.01, say=lambda line: None) == ["decide", "parents"]
    assert images_of(api, "deployments", "decide") == {"decide": NEW, "mirror": NEW}
    assert images_of(api, "statefulsets", "parents") == {"parents": NEW, "proxy": "other:1"}
    assert images_of(api, "statefulsets", "gateway") == {"gateway": "registry.example:5000/shortfall/gateway:1"}


def test_rollout_when_run_again_then_nothing_changes(api, cluster):
    controller(api, lambda name, image: True)
    serving(api)
    roll_out(cluster, NEW, poll_s=0.01, say=lambda line: None)
    patches = [call for call in api.calls if call.verb == "patch"]
    assert roll_out(cluster, NEW, poll_s=0.01, say=lambda line: None) == []
    assert [call for call in api.calls if call.verb == "patch"] == patches


@pytest.mark.parametrize("late", [False, True])
def test_rollout_when_the_image_does_not_start_then_all_is_taken_back_and_told_why(api, cluster, late):
    broken = "registry.example:5000/shortfall/serve:broken"
    controller(api, lambda name, image: image != broken or name != "parents", late)
    serving(api)
    with pytest.raises(RolloutError) as caught:
        roll_out(cluster, broken, poll_s=0.01, timeout_s=0.2, say=lambda line: None)
    text = str(caught.value)
    assert "StatefulSet parents did not take" in text and "ImagePullBackOff: no such image" in text
    assert "taken back: parents, decide" in text and "NOT" not in text
    assert ("progress deadline passed" in text) == late
    assert images_of(api, "deployments", "decide") == {"decide": OLD, "mirror": OLD}
    assert images_of(api, "statefulsets", "parents") == {"parents": OLD, "proxy": "other:1"}


def test_rollout_when_taking_back_fails_too_then_that_is_told(api, cluster):
    controller(api, lambda name, image: False)
    serving(api)
    with pytest.raises(RolloutError, match=r"NOT taken back: decide \(.*not ready within"):
        roll_out(cluster, NEW, ["decide"], poll_s=0.01, timeout_s=0.1, say=lambda line: None)
    assert images_of(api, "deployments", "decide")["decide"] == OLD


def test_rollout_when_somebody_changed_the_image_meanwhile_then_theirs_stays(api, cluster):
    serving(api)
    found = find_workloads(cluster, repository_of(NEW), ["decide"])[0]
    theirs = next(item for item in api.items("deployments") if item["metadata"]["name"] == "decide")
    theirs["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs:9"
    api.store.replace(api.kind("deployments"), SPACE, "decide", theirs)
    with pytest.raises(RolloutError, match="changed by somebody else"):
        cluster.set_images(found, {"decide": NEW, "mirror": NEW}, found.images)
    assert images_of(api, "deployments", "decide")["decide"] == "theirs:9"


def test_rollout_when_its_scale_and_status_change_meanwhile_then_it_goes_on(api, cluster):
    controller(api, lambda name, image: True)
    serving(api)
    found = find_workloads(cluster, repository_of(NEW), ["decide"])[0]
    item = next(item for item in api.items("deployments") if item["metadata"]["name"] == "decide")
    item["spec"]["replicas"] = 5  # by the autoscaler
    api.store.replace(api.kind("deployments"), SPACE, "decide", item)
    cluster.set_images(found, {"decide": NEW, "mirror": NEW}, found.images)
    assert images_of(api, "deployments", "decide")["decide"] == NEW


def test_rollout_when_the_gateway_is_named_or_nothing_runs_the_image_then_refused(api, cluster):
    serving(api)
    with pytest.raises(InputError, match="holds live orders"):
        roll_out(cluster, "registry.example:5000/shortfall/gateway:2", ["gateway"])
    with pytest.raises(
        InputError, match="nothing in shortfall-serving runs an image of registry.example:5000/shortfall/gateway"
    ):
        roll_out(cluster, "registry.example:5000/shortfall/gateway:2")
    with pytest.raises(InputError, match="has no decied; there are"):
        roll_out(cluster, NEW, ["decied"])
    assert not [call for call in api.calls if call.verb == "patch"]


def test_rollout_when_good_and_bad_images_were_rolled_out_then_it_used_its_role_and_all_of_it(api, cluster):
    controller(api, lambda name, image: "broken" not in image)
    serving(api)
    roll_out(cluster, NEW, poll_s=0.01, say=lambda line: None)
    with pytest.raises(RolloutError):
        roll_out(
            cluster, "registry.example:5000/shortfall/serve:broken", poll_s=0.01, timeout_s=0.1, say=lambda line: None
        )
    assert {call.rule for call in api.calls} == set(RULES)


def test_rollout_when_the_answer_to_a_change_is_lost_then_the_change_is_taken_back(api, cluster, monkeypatch):
    from flows.kube.client import KubeError

    controller(api, lambda name, image: True)
    serving(api)
    made = Cluster.set_images

    def lost(self, workload, images, expected=None):
        made(self, workload, images, expected)
        if expected is not None and workload.name == "parents":
            raise KubeError("patch StatefulSet parents: the API server does not answer")

    monkeypatch.setattr(Cluster, "set_images", lost)
    with pytest.raises(RolloutError, match="taken back: parents, decide"):
        roll_out(cluster, NEW, poll_s=0.01, say=lambda line: None)
    assert images_of(api, "statefulsets", "parents")["parents"] == OLD


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({}, "its controller has not seen the change"),
        ({"observedGeneration": 2, "updatedReplicas": 1}, "1 of 2 replicas are new"),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3}, "1 old replicas are there yet"),
        (
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 1},
            "1 of 2 replicas are ready",
        ),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}, None),
    ],
)
def test_deployment_when_asked_whether_it_is_rolled_out_then_as_kubectl_judges(status, why):
    assert (
        not_ready({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
        == why
    )


def test_repository_when_a_reference_has_port_tag_and_digest_then_without_tag_and_digest():
    assert repository_of("host:5000/a/b:1@sha256:00") == "host:5000/a/b"
    assert repository_of("a/b") == "a/b"
