"""Work pool templates: what Prefect's worker renders of each deployment is a valid, restricted Job."""

import asyncio
import copy
import json
import uuid
from pathlib import Path

import pytest
from fake_kinds import first_error, strict_validator
from kube_policy import restricted_faults

from flows.deployments import for_cluster, read_deployments
from flows.kube.setup import POOLS, SetupSettings, pool_template

IMAGES = {"image_data": "registry.example/shortfall/data:1.0", "image_train": "registry.example/shortfall/train:1.0"}
CONFIG = SetupSettings(**IMAGES)
CONTENT = for_cluster(read_deployments())
DEPLOYMENTS = {item["name"]: item for item in CONTENT["deployments"]}
PLACEHOLDERS = {
    "{{ $SHORTFALL_IMAGE_DATA }}": IMAGES["image_data"],
    "{{ $SHORTFALL_IMAGE_TRAIN }}": IMAGES["image_train"],
}


def variables_of(deployment: dict) -> dict:
    variables = dict(deployment["work_pool"]["job_variables"])
    return {**variables, "image": PLACEHOLDERS[variables["image"]]}


def render(template: dict, variables: dict) -> dict:
    """The Job that Prefect's own worker makes of it."""
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration

    async def make() -> dict:
        made = await Configuration.from_template_and_values(copy.deepcopy(template), variables, client=object())
        made.prepare_for_flow_run(FlowRun(id=uuid.UUID(int=7), flow_id=uuid.UUID(int=8), name="Smart Otter"))
        return made.job_manifest

    return asyncio.run(make())


def refusals(template: dict, variables: dict) -> list[str]:
    """What Prefect's server says to job variables, by its own validation."""
    from prefect.utilities.schema_tools import validate

    defaults = {k: v["default"] for k, v in template["variables"]["properties"].items() if "default" in v}
    found = validate(
        {**defaults, **variables}, template["variables"], raise_on_error=False, allow_none_with_default=True
    )
    return [error.message for error in found]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployment_when_rendered_by_prefects_worker_then_a_valid_restricted_job(name):
    import kubernetes_validate

    pool, variables = DEPLOYMENTS[name]["work_pool"]["name"], variables_of(DEPLOYMENTS[name])
    template = pool_template(pool, CONFIG)
    assert refusals(template, variables) == []
    job = render(template, variables)
    kubernetes_validate.validate(job, "1.36", strict=True)
    spec = job["spec"]["template"]["spec"]
    assert restricted_faults(spec) == []
    assert job["metadata"]["namespace"] == "shortfall-flows" and job["metadata"]["generateName"] == "smart-otter-"
    assert (
        job["spec"]["backoffLimit"] >= 1
        and job["spec"]["activeDeadlineSeconds"]
        and job["spec"]["ttlSecondsAfterFinished"]
    )
    assert spec["serviceAccountName"] == f"flow-{pool}" and spec["restartPolicy"] == "Never"
    container = spec["containers"][0]
    assert container["image"] == variables["image"]
    assert container["resources"]["limits"]["cpu"] == variables["cpu"]
    assert [*container["command"], *container["args"]][-5:] == ["python", "-m", "prefect", "flow-run", "execute"]
    assert "{{" not in json.dumps(job) and "$SHORTFALL" not in json.dumps(job)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployment_when_read_then_its_flow_and_its_pool_exist(name):
    import importlib

    path, _, attribute = DEPLOYMENTS[name]["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), attribute)
    assert flow.name == name, "run_flow finds the deployment of a flow by the flow's name"
    assert DEPLOYMENTS[name]["work_pool"]["name"] in POOLS
    flow.validate_parameters(DEPLOYMENTS[name]["parameters"])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("service_account_name", "flow-promote"), ("serviceAccountName", "flow-promote"), ("namespace", "kube-system"),
        ("command", "sh -c env"), ("args", ["env"]), ("image", "evil.example/x:1"), ("env", {"LD_PRELOAD": "x.so"}),
        ("labels", {"shortfall.io/component": "gateway"}), ("annotations", {"a": "b"}), ("cluster_config", {}),
        ("security_context", {"runAsUser": 0}), ("volumes", [{"name": "k", "secret": {"secretName": "promoter-key"}}]),
        ("vendor_data", {"name": "vendor-data", "secret": {"secretName": "promoter-key"}}),
        ("vendor_data", {"name": "vendor-data", "persistentVolumeClaim": {"claimName": "lake", "readOnly": True}}),
        ("vendor_data", {"name": "x", "persistentVolumeClaim": {"claimName": "vendor-data", "readOnly": True}}),
        ("retries", 0), ("deadline", 0), ("ttl", 10), ("memory", "lots"), ("cpu", "-1"), ("shared_memory", "0Gi"),
        ("tolerations", [{"key": "a", "effect": "Sometimes"}]), ("job_manifest", {}), ("name", "other"),
    ],
)  # fmt: skip
def test_job_variables_when_they_reach_for_what_is_fixed_then_refused_by_prefects_validation(pool, variable, value):
    template = pool_template(pool, CONFIG)
    image = template["variables"]["properties"]["image"]["default"]
    assert refusals(template, {"image": image}) == []
    assert refusals(template, {"image": image, variable: value}) != []


@pytest.mark.parametrize("pool", POOLS)
def test_job_variables_when_they_get_past_validation_all_the_same_then_change_nothing_that_is_fixed(pool):
    template = pool_template(pool, CONFIG)
    image = {"image": template["variables"]["properties"]["image"]["default"]}
    reaching = {
        "service_account_name": "other", "namespace": "kube-system", "command": "env", "env": {"LD_PRELOAD": "/x.so"},
        "labels": {"shortfall.io/component": "gateway"}, "annotations": {"a": "b"}, "job_manifest": {"kind": "Pod"},
        "cluster_config": {"config": {}}, "security_context": {}, "volumes": [], "name": "other",
    }  # fmt: skip
    assert render(template, {**image, **reaching}) == render(template, image)


def test_vendor_data_when_a_claim_of_that_name_is_chosen_then_mounted_read_only():
    volume = {"name": "vendor-data", "persistentVolumeClaim": {"claimName": "vendor-data-lobster", "readOnly": True}}
    template = pool_template("cpu", CONFIG)
    assert refusals(template, {"image": IMAGES["image_data"], "vendor_data": volume}) == []
    spec = render(template, {"image": IMAGES["image_data"], "vendor_data": volume})["spec"]["template"]["spec"]
    assert volume in spec["volumes"]
    assert {"name": "vendor-data", "mountPath": "/data", "readOnly": True} in spec["containers"][0]["volumeMounts"]


def test_promoter_key_when_pools_are_compared_then_only_pods_of_promote_hold_it_and_they_have_no_token():
    holders = [pool for pool in POOLS if "promoter-key" in json.dumps(pool_template(pool, CONFIG))]
    assert holders == ["promote"]
    spec = render(pool_template("promote", CONFIG), {"image": IMAGES["image_train"]})["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    signing = {item["name"] for item in CONTENT["deployments"] if item["work_pool"]["name"] == "promote"}
    assert signing == {"opponent", "promote", "rollback"}


def test_secrets_when_rendered_then_named_by_secret_and_key_and_never_values(monkeypatch):
    monkeypatch.setenv("PREFECT_API_KEY", "")
    for pool in POOLS:
        image = pool_template(pool, CONFIG)["variables"]["properties"]["image"]["default"]
        container = render(pool_template(pool, CONFIG), {"image": image})["spec"]["template"]["spec"]["containers"][0]
        for entry in container["env"]:
            if any(word in entry["name"] for word in ("PASSWORD", "TOKEN", "USERNAME", "SECRET")):
                assert set(entry["valueFrom"]["secretKeyRef"]) >= {"name", "key"} and "value" not in entry


def test_worker_when_it_makes_the_job_then_the_prefect_password_is_named_by_its_secret(api, monkeypatch):
    """The worker's own code, from its settings to the Job that the API server gets."""
    from prefect_kubernetes.worker import KubernetesWorker
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration

    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_"
    monkeypatch.setenv(f"{prefix}NAME", "prefect-api")
    monkeypatch.setenv(f"{prefix}KEY", "auth-string")
    api.rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]

    async def run() -> None:
        from kubernetes_asyncio import config
        from prefect.client.schemas.objects import FlowRun
        from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

        image = {"image": IMAGES["image_data"]}
        made = await Configuration.from_template_and_values(pool_template("cpu", CONFIG), image, client=object())
        with temporary_settings({PREFECT_API_AUTH_STRING: "admin:very-secret"}):
            made.prepare_for_flow_run(FlowRun(flow_id=uuid.uuid4(), name="Smart Otter"))
        async with await config.new_client_from_config_dict(api.kubeconfig()) as client:
            await KubernetesWorker(work_pool_name="cpu")._create_job(made, client)

    asyncio.run(run())
    job = api.items("jobs")[0]
    entries = [
        e for e in job["spec"]["template"]["spec"]["containers"][0]["env"] if e["name"] == "PREFECT_API_AUTH_STRING"
    ]
    assert entries == [
        {
            "name": "PREFECT_API_AUTH_STRING",
            "valueFrom": {"secretKeyRef": {"name": "prefect-api", "key": "auth-string"}},
        }
    ]
    assert "very-secret" not in json.dumps(job)


@pytest.mark.parametrize("pool", POOLS)
def test_template_when_a_field_is_renamed_then_the_job_is_no_longer_valid(pool):
    template, validator = pool_template(pool, CONFIG), strict_validator("Job", "batch/v1")
    job = render(template, {"image": template["variables"]["properties"]["image"]["default"]})
    assert first_error(validator, job) is None
    for path in _paths(template["job_configuration"]["job_manifest"]["spec"]):
        *folders, name = path
        parent = job["spec"]
        for part in folders:  # of `env` counted from the end: the worker puts its own before the template's
            parent = parent[part]
        parent[f"{name}X"] = parent.pop(name)
        assert first_error(validator, job) is not None, path
        parent[name] = parent.pop(f"{name}X")


def _paths(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            if key not in ("labels", "requests", "limits"):
                yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index - len(value) if path[-1] == "env" else index))


def test_pool_when_a_variable_is_renamed_then_a_deployment_is_refused():
    template = pool_template("gpu", CONFIG)
    for name in ("cpu", "memory", "gpu"):
        renamed = copy.deepcopy(template)
        renamed["variables"]["properties"][f"{name}_x"] = renamed["variables"]["properties"].pop(name)
        assert refusals(renamed, variables_of(DEPLOYMENTS["train-agent"])) != []


def test_follower_when_a_rayjob_trains_then_its_pod_has_no_gpu_and_its_variables_are_the_pools():
    from flows.infra import FOLLOWER

    template, variables = pool_template("gpu", CONFIG), {**variables_of(DEPLOYMENTS["train-agent"]), **FOLLOWER}
    assert refusals(template, variables) == []
    limits = render(template, variables)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "1", "memory": "4Gi", "nvidia.com/gpu": "0"}


def test_setup_when_the_cluster_is_small_then_pods_fit_it_and_one_with_gpus_gets_its_nodes():
    small = {item["name"]: item["work_pool"]["job_variables"] for item in _fitted("1", "3Gi", 0)}
    assert {v["cpu"] for v in small.values()} == {"500m", "1"} and {v["memory"] for v in small.values()} == {
        "2Gi",
        "3Gi",
    }
    assert small["train-agent"]["gpu"] == "0" and small["clean"]["driver_memory"] == "1536m"
    many = {item["name"]: item["work_pool"]["job_variables"] for item in _fitted(None, None, 4)}
    assert many["train-agent"]["gpu"] == "4" and "gpu" not in many["clean"]
    selector, tolerations = {"nvidia.com/gpu.present": "true"}, [{"key": "gpu", "operator": "Exists"}]
    config = SetupSettings(**IMAGES, gpus=2, gpu_node_selector=selector, gpu_tolerations=tolerations)
    spec = render(pool_template("gpu", config), {"image": IMAGES["image_train"]})["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == selector and spec["tolerations"] == tolerations
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pool_template("cpu", config)["variables"]["properties"]["node_selector"]["default"] == {}


def _fitted(*limits) -> list[dict]:
    return for_cluster(read_deployments(), *limits)["deployments"]


@pytest.mark.parametrize("image", ["shortfall/data", "shortfall/data:latest", "host:5000/shortfall/data"])
def test_setup_when_an_image_is_not_exact_then_refused(image):
    from feature_repo.errors import InputError

    with pytest.raises(InputError, match="no exact tag or digest"):
        pool_template("cpu", SetupSettings(**{**IMAGES, "image_data": image}))


def test_laptop_when_deployments_are_fitted_then_the_same_ones_in_one_process_pool():
    from flows.deployments import for_laptop

    laptop = for_laptop(read_deployments())
    assert [item["name"] for item in laptop["deployments"]] == list(DEPLOYMENTS)
    assert {item["work_pool"]["name"] for item in laptop["deployments"]} == {"shortfall"}
    for item in laptop["deployments"]:
        whole = DEPLOYMENTS[item["name"]]
        assert {k: v for k, v in item.items() if k != "work_pool"} == {
            k: v for k, v in whole.items() if k != "work_pool"
        }


def test_templates_when_kept_as_files_then_prefect_takes_them_and_they_are_formatted():
    for pool in POOLS:
        path = Path(__file__).resolve().parents[2] / "k8s" / "work-pools" / f"{pool}.json"
        content = json.loads(path.read_text())
        assert path.read_text() == json.dumps(content, indent=2) + "\n"
