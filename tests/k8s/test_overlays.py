"""What kubectl builds from each overlay: valid for the API server, whole, applied again and with a new tag."""

import re
import shutil

import jsonschema
import kubernetes_validate
import pytest
import yaml
from fake_kinds import ray_schema
from manifests import (
    K8S,
    OVERLAYS,
    build,
    everything,
    name_of,
    of_kind,
    overlay,
    pods,
    ray_job,
    setup_environment,
    walk,
)
from policy_values import quantity

from flows.deployments import for_cluster, read_deployments
from flows.kube.setup import SetupSettings

KUBERNETES = "1.36"
CUSTOM: set[str] = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of others, whose schemas kubernetes-validate has not."""


def faults(document):
    """What kubernetes-validate says of a document, a kind without a schema included unless it is listed."""
    if document["kind"] == "RayJob":
        return []  # test_ray_job_is_what_kuberay_takes
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{name_of(document)}: {'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [] if document["kind"] in CUSTOM else [f"{name_of(document)}: {error.message}"]
    return []


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_is_valid_for_the_api_server_with_unknown_fields_refused(name):
    documents = everything(overlay(name))
    assert len(documents) > 80
    assert [fault for document in documents for fault in faults(document)] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_ray_job_is_what_kuberay_takes_with_unknown_fields_refused(name):
    schema = ray_schema("rayjobs")
    if schema is None:
        pytest.skip("KubeRay's schemas are not at ../shared/schemas/kuberay")
    document = ray_job(overlay(name))
    jsonschema.validate(document, schema)
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["tmplate"] = {}
    with pytest.raises(jsonschema.ValidationError, match="tmplate"):
        jsonschema.validate(document, schema)


def test_validation_refuses_a_kind_that_is_not_listed():
    assert "ServiceMonitors" in faults({"kind": "ServiceMonitors", "apiVersion": "v1", "metadata": {"name": "a"}})[0]


def test_validation_refuses_a_field_that_no_schema_knows():
    document = next(item for item in overlay("local") if item["kind"] == "Deployment")
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in faults(document)[0]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_document_stands_twice(name):
    names = [name_of(document) for document in overlay(name)]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", OVERLAYS)
def test_apply_with_a_new_tag_changes_no_job_that_is_there(name, tmp_path):
    # a Job's template cannot be changed: whatever differs in one must show in its name
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("images"))
    path = tmp_path / "k8s" / "overlays" / name / "kustomization.yaml"
    path.write_text(re.sub(r"newTag: 0\.1\.0", "newTag: 0.1.1", path.read_text()))
    before = {name_of(job): job for job in of_kind(overlay(name), "Job")}
    after = {name_of(job): job for job in of_kind(build(path.parent), "Job")}
    assert before and after.keys().isdisjoint(before)
    used = {
        c["image"].rsplit(":", 1)[1]
        for pod in pods(build(path.parent))
        for c in pod.containers
        if "shortfall/" in c["image"]
    }
    assert used == {"0.1.1"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_setup_is_told_of_the_images_that_the_overlay_names(name, tmp_path):
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("images"))
    path = tmp_path / "k8s" / "overlays" / name / "kustomization.yaml"
    settings = yaml.safe_load(path.read_text())
    for item in settings["images"]:
        if item["name"].startswith("shortfall/"):
            item |= {"newName": f"registry.example:5000/{item['name']}", "newTag": "7"}
    path.write_text(yaml.safe_dump(settings))
    jobs = [pod for pod in pods(build(path.parent)) if pod.component == "setup"]
    told = {item["name"]: item.get("value") for item in jobs[0].spec["containers"][0]["env"]}
    assert told["SHORTFALL_IMAGE_DATA"] == "registry.example:5000/shortfall/data:7"
    assert told["SHORTFALL_IMAGE_TRAIN"] == "registry.example:5000/shortfall/train:7"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_of_ours_is_named_by_the_overlay(name):
    named = {
        item["name"] for item in yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())["images"]
    }
    assert {"shortfall/data", "shortfall/train", "shortfall/serve", "shortfall/gateway", "shortfall/mlflow"} <= named


def test_everything_particular_to_a_site_is_put_in_from_one_file():
    # SITE stands in production's files where a value of site.yaml goes: none may be left, and no value may go nowhere
    documents = overlay("production")
    left = [
        f"{name_of(document)}: {path}"
        for document in documents
        for path, value in walk(document)
        if isinstance(value, str) and "SITE" in value and not path.endswith((".yaml", ".py", ".sh"))
    ]
    assert left == []
    values = yaml.safe_load((K8S / "overlays" / "production" / "site.yaml").read_text())["data"].values()
    texts = [value for document in documents for _, value in walk(document) if isinstance(value, str)]
    assert [value for value in values if not any(value in text for text in texts if "\n" not in text)] == []
    assert "site" not in {document["metadata"]["name"] for document in of_kind(documents, "ConfigMap")}


def test_local_overlay_fits_on_the_node_that_the_deploy_page_asks_for_with_a_night_at_work():
    documents = overlay("local")
    settings = SetupSettings(**setup_environment(documents))
    fitted = for_cluster(read_deployments(), settings.max_cpu, settings.max_memory, settings.gpus)
    sizes = {item["name"]: item["work_pool"]["job_variables"] for item in fitted["deployments"]}
    for resource, node, others in (("cpu", 4, 1), ("memory", 12 * 2**30, 512 * 2**20)):  # others: kube-system's pods
        steady = sum(
            document["spec"].get("replicas", 1) * quantity(container["resources"]["requests"][resource])
            for document in of_kind(documents, "Deployment", "StatefulSet")
            for (pod,) in [pods([document])]
            for container in pod.containers
            if container in pod.spec["containers"] or container.get("restartPolicy") == "Always"
        )
        stage = max(quantity(size[resource]) for name, size in sizes.items() if name != "nightly")
        asked = steady + others + quantity(sizes["nightly"][resource]) + stage
        assert asked <= node, f"{resource}: {asked} of {node}, {steady} of it before any flow"
