"""Reads prefect.yaml, the one list of deployments, and fits it to where it is applied: a laptop or a cluster."""

import copy
import re
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError

REPO = Path(__file__).resolve().parent.parent
LAPTOP_POOL = "shortfall"
_MEMORY = re.compile(r"^(\d+)(Mi|Gi)$")


def read_deployments(path: Path = REPO / "prefect.yaml") -> dict[str, Any]:
    """Content of prefect.yaml as Prefect reads it."""
    import yaml

    return yaml.safe_load(path.read_text())


def for_laptop(content: dict[str, Any]) -> dict[str, Any]:
    """The same deployments, all of them in one pool of processes on this machine."""
    pool = {
        "name": LAPTOP_POOL,
        "work_queue_name": "default",
        "job_variables": {"working_dir": "{{ $SHORTFALL_HOME }}"},
    }
    return {**_whole(content), "deployments": [{**item, "work_pool": pool} for item in content["deployments"]]}


def for_cluster(
    content: dict[str, Any], max_cpu: str | None = None, max_memory: str | None = None, gpus: int | None = None
) -> dict[str, Any]:
    """The deployments as they are, with no pod above `max_cpu` or `max_memory`, and `gpus` where one asks for any."""
    fitted = copy.deepcopy(_whole(content))
    for item in fitted["deployments"]:
        variables = item["work_pool"]["job_variables"] = dict(item["work_pool"]["job_variables"])
        if max_cpu is not None:
            variables["cpu"] = min(variables["cpu"], max_cpu, key=_millicores)
        if max_memory is not None:
            variables["memory"] = min(variables["memory"], max_memory, key=mebibytes)
            half = mebibytes(variables["memory"]) // 2  # the rest is for Python and the workers of Spark
            if "driver_memory" in variables and _heap_mib(variables["driver_memory"]) > half:
                variables["driver_memory"] = f"{half}m"
        if gpus is not None and "gpu" in variables:
            variables["gpu"] = str(gpus)
    return fitted


def mebibytes(quantity: str) -> int:
    """A memory quantity in MiB; raises InputError for one in other units than Mi and Gi."""
    found = _MEMORY.match(quantity)
    if not found:
        raise InputError(f"memory {quantity!r}: a whole number of Mi or Gi is needed, e.g. 4Gi")
    return int(found[1]) * (1024 if found[2] == "Gi" else 1)


def write_file(content: dict[str, Any], path: Path) -> Path:
    """Write deployments where `prefect deploy --prefect-file` reads them."""
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _whole(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != "definitions"}


def _millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def _heap_mib(heap: str) -> int:
    return int(heap[:-1]) * (1024 if heap[-1] == "g" else 1)
