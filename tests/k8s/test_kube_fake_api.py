"""The fake API server behaves as the real one does where our code leans on it."""

import json
import threading
import urllib.error
import urllib.request

import pytest
from fake_api import TOKEN, Call

POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-", "labels": {"app": "a"}},
    "spec": {"containers": [{"name": "main", "image": "x:1"}]},
}  # fmt: skip


@pytest.fixture
def core(client):
    from kubernetes.client import CoreV1Api

    return CoreV1Api(client)


def refused(status: int, call, *arguments, **options):
    from kubernetes.client import ApiException

    with pytest.raises(ApiException) as caught:
        call(*arguments, **options)
    assert caught.value.status == status
    return caught.value


def test_create_when_only_a_prefix_is_given_then_each_object_has_a_name_and_version_of_its_own(core):
    made = [core.create_namespaced_pod("n", POD) for _ in range(2)]
    assert all(pod.metadata.name.startswith("p-") and len(pod.metadata.name) == 7 for pod in made)
    assert made[0].metadata.name != made[1].metadata.name and made[0].metadata.uid != made[1].metadata.uid
    assert int(made[0].metadata.resource_version) < int(made[1].metadata.resource_version)
    assert made[0].status.phase == "Pending"


def test_create_when_the_name_is_taken_or_none_is_given_then_refused(core):
    named = {**POD, "metadata": {"name": "one"}}
    core.create_namespaced_pod("n", named)
    assert "AlreadyExists" in refused(409, core.create_namespaced_pod, "n", named).body
    refused(422, core.create_namespaced_pod, "n", {**POD, "metadata": {}})
    refused(400, core.create_namespaced_pod, "n", {**POD, "metadata": {"name": "x", "namespace": "other"}})


def test_create_when_a_field_is_unknown_then_refused_by_name(api):
    misspelt = {**POD, "spec": {**POD["spec"], "serviceAcountName": "x"}}
    request = urllib.request.Request(
        f"{api.url}/api/v1/namespaces/n/pods",
        data=json.dumps(misspelt).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400 and "serviceAcountName" in json.load(caught.value)["message"]


def test_replace_when_somebody_else_wrote_meanwhile_then_conflict_and_a_fresh_read_succeeds(core):
    pod = core.create_namespaced_pod("n", POD)
    core.patch_namespaced_pod(pod.metadata.name, "n", {"metadata": {"labels": {"b": "1"}}})
    pod.metadata.labels["c"] = "2"
    assert "Conflict" in refused(409, core.replace_namespaced_pod, pod.metadata.name, "n", pod).body
    fresh = core.read_namespaced_pod(pod.metadata.name, "n")
    fresh.metadata.labels["c"] = "2"
    assert core.replace_namespaced_pod(pod.metadata.name, "n", fresh).metadata.labels == {
        "app": "a",
        "b": "1",
        "c": "2",
    }


@pytest.mark.parametrize(
    ("selector", "found"),
    [("app=a", "ac"), ("app!=a", "b"), ("app in (a, b)", "abc"), ("app notin (a)", "b"), ("x", "c"), ("!x", "ab"),
     ("app==a,!x", "a"), ("", "abc")],
)  # fmt: skip
def test_list_when_labels_are_selected_then_only_those(core, selector, found):
    for name, labels in (("a", {"app": "a"}), ("b", {"app": "b"}), ("c", {"app": "a", "x": ""})):
        core.create_namespaced_pod("n", {**POD, "metadata": {"name": name, "labels": labels}})
    assert "".join(pod.metadata.name for pod in core.list_namespaced_pod("n", label_selector=selector).items) == found


def test_list_when_fields_are_selected_or_pages_are_asked_for_then_so_given(core, api):
    for name in "abc":
        core.create_namespaced_pod("n", {**POD, "metadata": {"name": name}})
    api.set_status("pods", api.items("pods")[1], {"phase": "Running"})
    found = core.list_namespaced_pod("n", field_selector="status.phase!=Pending").items
    assert [pod.metadata.name for pod in found] == ["b"]
    page = core.list_namespaced_pod("n", limit=2)
    assert [pod.metadata.name for pod in page.items] == ["a", "b"] and page.metadata.remaining_item_count == 1
    rest = core.list_namespaced_pod("n", limit=2, _continue=page.metadata._continue)
    assert [pod.metadata.name for pod in rest.items] == ["c"] and not rest.metadata._continue
    core.delete_namespaced_pod("a", "n")
    api.store.compact()
    refused(410, core.list_namespaced_pod, "n", limit=2, _continue=page.metadata._continue)


def test_watch_when_objects_come_change_and_go_then_told_in_order_as_the_selector_sees_them(core, api):
    from kubernetes.watch import Watch

    version = core.list_namespaced_pod("n").metadata.resource_version
    pod = core.create_namespaced_pod("n", POD)
    core.create_namespaced_pod("n", {**POD, "metadata": {"name": "other", "labels": {"app": "z"}}})
    core.create_namespaced_pod("elsewhere", POD)
    api.set_status(
        "pods", pod.to_dict() | {"metadata": {"namespace": "n", "name": pod.metadata.name}}, {"phase": "Running"}
    )
    core.patch_namespaced_pod(pod.metadata.name, "n", {"metadata": {"labels": {"app": "z"}}})
    core.patch_namespaced_pod(pod.metadata.name, "n", {"metadata": {"labels": {"app": "a"}}})
    core.delete_namespaced_pod(pod.metadata.name, "n")
    stream = Watch().stream(
        core.list_namespaced_pod, "n", label_selector="app=a", resource_version=version, timeout_seconds=1
    )
    seen = [(event["type"], event["object"].metadata.name) for event in stream]
    assert seen == [(kind, pod.metadata.name) for kind in ("ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED")]


def test_watch_when_its_version_is_forgotten_then_told_that_it_is_gone(core, api):
    from kubernetes.client import ApiException
    from kubernetes.watch import Watch

    version = core.list_namespaced_pod("n").metadata.resource_version
    core.create_namespaced_pod("n", POD)
    api.store.compact()
    with pytest.raises(ApiException) as caught:
        list(Watch().stream(core.list_namespaced_pod, "n", resource_version=version, timeout_seconds=5))
    assert caught.value.status == 410


def test_delete_when_an_owner_goes_then_what_it_owns_goes_unless_orphaned_or_owned_by_others_too(core):
    owners = [core.create_namespaced_pod("n", {**POD, "metadata": {"name": name}}) for name in ("one", "two")]
    refer = [
        {"apiVersion": "v1", "kind": "Pod", "name": owner.metadata.name, "uid": owner.metadata.uid} for owner in owners
    ]
    core.create_namespaced_pod("n", {**POD, "metadata": {"name": "child", "ownerReferences": refer[:1]}})
    core.create_namespaced_pod("n", {**POD, "metadata": {"name": "shared", "ownerReferences": refer}})
    core.create_namespaced_config_map("n", {"metadata": {"name": "map", "ownerReferences": refer[1:]}})
    core.delete_namespaced_pod("one", "n")
    assert {pod.metadata.name for pod in core.list_namespaced_pod("n").items} == {"two", "shared"}
    refused(409, core.delete_namespaced_pod, "two", "n", body={"preconditions": {"uid": "another"}})
    core.delete_namespaced_pod("two", "n", propagation_policy="Orphan")
    assert core.list_namespaced_config_map("n").items


def test_delete_when_there_are_finalizers_then_the_object_stays_until_they_are_gone(core):
    core.create_namespaced_pod("n", {**POD, "metadata": {"name": "kept", "finalizers": ["x.io/wait"]}})
    core.delete_namespaced_pod("kept", "n")
    assert core.read_namespaced_pod("kept", "n").metadata.deletion_timestamp
    core.patch_namespaced_pod("kept", "n", [{"op": "remove", "path": "/metadata/finalizers"}])
    refused(404, core.read_namespaced_pod, "kept", "n")


def test_log_when_followed_then_streams_until_the_pod_ends(core, api):
    pod = core.create_namespaced_pod("n", {**POD, "metadata": {"name": "talker"}})
    assert "ContainerCreating" in refused(400, core.read_namespaced_pod_log, "talker", "n").body
    api.set_status("pods", api.items("pods")[0], {"phase": "Running"})

    def talk() -> None:
        api.log("n", "talker", "main", "two", "three")
        api.set_status("pods", api.items("pods")[0], {"phase": "Succeeded"})

    api.log("n", "talker", "main", "one")
    speaker = threading.Timer(0.2, talk)
    speaker.start()
    stream = core.read_namespaced_pod_log(pod.metadata.name, "n", follow=True, _preload_content=False)
    assert b"".join(stream.stream()).decode().split() == ["one", "two", "three"]
    assert core.read_namespaced_pod_log("talker", "n", tail_lines=1) == "three\n"
    speaker.join()


def test_calls_when_rules_are_given_then_others_are_forbidden_and_all_are_recorded(core, api, client):
    from kubernetes.client import AuthorizationV1Api

    api.rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    core.list_namespaced_pod("n")
    refused(403, core.create_namespaced_pod, "n", POD)
    refused(403, core.read_namespaced_pod_log, "x", "n")
    assert api.calls == [
        Call("list", "", "pods", "n"), Call("create", "", "pods", "n"), Call("get", "", "pods/log", "n", "x")
    ]  # fmt: skip
    for verb, allowed in (("list", True), ("delete", False)):
        review = {"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "n"}}}
        answer = AuthorizationV1Api(client).create_self_subject_access_review(review)
        assert answer.status.allowed is allowed


def test_calls_when_the_token_is_wrong_then_unauthorized(api):
    from kubernetes import config
    from kubernetes.client import CoreV1Api

    content = api.kubeconfig()
    content["users"][0]["user"]["token"] = "guess"
    refused(401, CoreV1Api(config.new_client_from_config_dict(content)).list_namespaced_pod, "n")


def test_ray_objects_when_a_field_is_unknown_then_refused_by_kuberays_schema(api, client):
    from fake_kinds import ray_schema
    from kubernetes.client import CustomObjectsApi

    if ray_schema("rayjobs") is None:
        pytest.skip("KubeRay's schemas are not there")
    ray = CustomObjectsApi(client)
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "j"}, "spec": {"entrypoint": "true"}}
    ray.create_namespaced_custom_object("ray.io", "v1", "n", "rayjobs", job)
    wrong = {**job, "metadata": {"name": "k"}, "spec": {"entryPoint": "true"}}
    error = refused(400, ray.create_namespaced_custom_object, "ray.io", "v1", "n", "rayjobs", wrong)
    assert "entryPoint" in error.body
