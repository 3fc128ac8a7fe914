"""What the API server refuses of workers, drivers and training flows, whatever Prefect's templates are changed to."""

import pytest
from admission import compile_all, refusals
from manifests import executor, of_kind, overlay, pool_jobs, ray_job

ACCOUNT = "system:serviceaccount:shortfall-flows:"


@pytest.fixture(scope="module")
def documents():
    return overlay("gpu")


def job(documents, pool):
    return next(item for item in pool_jobs(documents) if item["metadata"]["name"] == f"flow-{pool}")


def container(item):
    return item["spec"]["template"]["spec"]["containers"][0]


def worker_of(pool):
    return ACCOUNT + ("worker-promote" if pool == "promote" else "worker")


def test_every_expression_compiles_with_its_types_checked(documents):
    assert compile_all(documents) >= 15


def test_every_policy_is_bound_and_denies(documents):
    bindings = of_kind(documents, "ValidatingAdmissionPolicyBinding")
    bound = {item["spec"]["policyName"]: item["spec"] for item in bindings}
    for policy in of_kind(documents, "ValidatingAdmissionPolicy"):
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert "Deny" in bound[policy["metadata"]["name"]]["validationActions"]


@pytest.mark.parametrize("pool", ["cpu", "gpu", "promote"])
def test_jobs_of_the_pools_pass(documents, pool):
    assert refusals(documents, job(documents, pool), worker_of(pool), "jobs") == []


def test_executors_and_ray_jobs_pass(documents):
    assert refusals(documents, executor(documents), ACCOUNT + "flow-cpu", "pods") == []
    assert refusals(documents, ray_job(documents), ACCOUNT + "flow-gpu", "rayjobs") == []


def test_jobs_of_others_are_not_judged(documents):
    item = job(documents, "cpu")
    item["spec"]["template"]["spec"]["serviceAccountName"] = "sweeper"
    assert refusals(documents, item, "system:serviceaccount:kube-system:cronjob-controller", "jobs") == []


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_worker_when_it_gives_promotes_identity_then_refused(documents, pool):
    item = job(documents, pool)
    item["spec"]["template"]["spec"]["serviceAccountName"] = "flow-promote"
    assert "service account flow-promote" in refusals(documents, item, worker_of(pool), "jobs")[0]


@pytest.mark.parametrize("account", ["sweeper", "worker", "flow-cpu", "default"])
def test_promotes_worker_when_it_gives_another_identity_then_refused(documents, account):
    item = job(documents, "promote")
    item["spec"]["template"]["spec"]["serviceAccountName"] = account
    assert f"service account {account}" in refusals(documents, item, worker_of("promote"), "jobs")[0]


def test_job_without_an_identity_is_refused(documents):
    item = job(documents, "cpu")
    del item["spec"]["template"]["spec"]["serviceAccountName"]
    assert "service account default" in refusals(documents, item, worker_of("cpu"), "jobs")[0]


def mount_key(item):
    volumes = item["spec"]["template"]["spec"]["volumes"]
    volumes.append({"name": "key", "secret": {"secretName": "promoter-key"}})


def project_key(item):
    volumes = item["spec"]["template"]["spec"]["volumes"]
    volumes.append({"name": "key", "projected": {"sources": [{"secret": {"name": "promoter-key"}}]}})


def read_key(item):
    reference = {"secretKeyRef": {"name": "promoter-key", "key": "promoter.pem"}}
    container(item)["env"].append({"name": "KEY", "valueFrom": reference})


def read_all(item):
    container(item)["envFrom"].append({"secretRef": {"name": "promoter-key"}})


@pytest.mark.parametrize("change", [mount_key, project_key, read_key, read_all])
def test_job_when_it_reaches_for_the_promoters_key_then_refused(documents, change):
    item = job(documents, "cpu")
    change(item)
    assert len(refusals(documents, item, worker_of("cpu"), "jobs")) == 1


@pytest.mark.parametrize(
    "image",
    [
        "evil/data:1",
        "docker.io/library/busybox:1",
        "shortfall/gateway:0.1.0",
        "x/shortfall/data:1 --",
        "shortfall/data/x:1",
    ],
)
def test_job_when_its_image_is_not_the_platforms_then_refused(documents, image):
    item = job(documents, "cpu")
    container(item)["image"] = image
    assert "image" in refusals(documents, item, worker_of("cpu"), "jobs")[0]


@pytest.mark.parametrize("image", ["registry.example:5000/team/shortfall/train:7", "shortfall/data@sha256:" + "0" * 64])
def test_job_when_its_image_comes_from_another_registry_then_passes(documents, image):
    item = job(documents, "cpu")
    container(item)["image"] = image
    assert refusals(documents, item, worker_of("cpu"), "jobs") == []


def test_job_when_its_command_is_another_then_refused(documents):
    for words in ({"command": ["sh", "-c"]}, {"args": ["http.server"]}):
        item = job(documents, "cpu")
        container(item).update(words)
        assert "command" in refusals(documents, item, worker_of("cpu"), "jobs")[0]


def test_job_when_an_init_container_runs_something_else_then_refused(documents):
    item = job(documents, "cpu")
    item["spec"]["template"]["spec"]["initContainers"] = [{"name": "x", "image": "evil/x:1", "command": ["sh"]}]
    assert len(refusals(documents, item, worker_of("cpu"), "jobs")) == 2


@pytest.mark.parametrize("account", ["flow-promote", "worker", "sweeper", None])
def test_driver_when_its_pod_is_no_executors_then_refused(documents, account):
    item = executor(documents)
    if account is None:
        del item["spec"]["serviceAccountName"]
    else:
        item["spec"]["serviceAccountName"] = account
    assert "spark-executor" in refusals(documents, item, ACCOUNT + "flow-cpu", "pods")[0]


def test_driver_when_its_pod_mounts_or_reads_a_secret_then_refused(documents):
    item = executor(documents)
    item["spec"]["volumes"].append({"name": "key", "secret": {"secretName": "promoter-key"}})
    item["spec"]["containers"][0]["env"] = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "promoter-key", "key": "promoter.pem"}}}
    ]
    assert len(refusals(documents, item, ACCOUNT + "flow-cpu", "pods")) == 2


@pytest.mark.parametrize("part", ["submitter", "head", "workers"])
def test_ray_job_when_a_part_takes_another_identity_then_refused(documents, part):
    item = ray_job(documents)
    cluster = item["spec"]["rayClusterSpec"]
    template = {
        "submitter": item["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        "workers": cluster["workerGroupSpecs"][0]["template"],
    }[part]
    template["spec"]["serviceAccountName"] = "flow-promote"
    assert "ray's" in refusals(documents, item, ACCOUNT + "flow-gpu", "rayjobs")[0]


def test_ray_job_when_it_reads_the_promoters_key_or_brings_another_container_then_refused(documents):
    item = ray_job(documents)
    spec = item["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    reference = {"secretKeyRef": {"name": "promoter-key", "key": "promoter.pem"}}
    spec["containers"][0]["env"].append({"name": "KEY", "valueFrom": reference})
    spec["initContainers"] = [{"name": "x", "image": "evil/x:1"}]
    assert len(refusals(documents, item, ACCOUNT + "flow-gpu", "rayjobs")) == 2
