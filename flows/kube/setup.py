"""`python -m flows.kube.setup`: work pools and deployments into a Prefect server; run again, it brings them up to date.

| environment | what |
| --- | --- |
| `PREFECT_API_URL`, `PREFECT_API_AUTH_STRING` | the server |
| `SHORTFALL_HOME`, `SHORTFALL_TIMEZONE` | the project's folder in the images, and the zone of the nightly schedule |
| `SHORTFALL_IMAGE_DATA`, `SHORTFALL_IMAGE_TRAIN` | exact references: the only images that the pools run |
| `SHORTFALL_MAX_CPU`, `SHORTFALL_MAX_MEMORY`, `SHORTFALL_GPUS` | limits of every pod, for a small cluster |
| `SHORTFALL_GPU_NODE_SELECTOR`, `SHORTFALL_GPU_TOLERATIONS` | JSON: where pods of the pool `gpu` go |
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError, ShortfallError
from flows.deployments import REPO, for_cluster, read_deployments, write_file

POOLS = ("cpu", "gpu", "promote")
TEMPLATES = REPO / "k8s" / "work-pools"


class SetupSettings(BaseSettings):
    """What is particular to a cluster."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_", extra="ignore")

    image_data: str = Field(min_length=1, description="Image of data flows, with its exact tag or digest")
    image_train: str = Field(min_length=1, description="Image of training, evaluation and promotion")
    max_cpu: str | None = Field(None, pattern=r"^([1-9][0-9]*m|[1-9][0-9]?)$", description="Most cores of a flow's pod")
    max_memory: str | None = Field(None, pattern=r"^[1-9][0-9]*(Mi|Gi)$", description="Most memory of a flow's pod")
    gpus: int | None = Field(None, ge=0, le=8, description="GPUs of a training pod; 0 on a cluster without any")
    gpu_node_selector: dict[str, str] | None = Field(None, description="Node labels of the pool gpu")
    gpu_tolerations: list[dict[str, Any]] | None = Field(None, description="Taints that pods of the pool gpu bear")
    wait_s: float = Field(300.0, gt=0, description="How long to wait for the server")

    @property
    def images(self) -> dict[str, str]:
        """Image by the placeholder that stands for it."""
        return {"$SHORTFALL_IMAGE_DATA": self.image_data, "$SHORTFALL_IMAGE_TRAIN": self.image_train}


def pool_template(name: str, config: SetupSettings) -> dict[str, Any]:
    """Base job template of a pool, its allow-list this cluster's images. Raises InputError for one without a tag."""
    for image in config.images.values():
        if "@sha256:" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest")):
            raise InputError(f"image {image!r} names no exact tag or digest; what runs must be what was chosen")
    template = json.loads((TEMPLATES / f"{name}.json").read_text())
    variables = template["variables"]["properties"]
    image = variables["image"]
    image["enum"] = list(dict.fromkeys(config.images[item] for item in image["enum"]))
    image["default"] = config.images[image["default"]]
    if name == "gpu":
        if config.gpus is not None:
            variables["gpu"]["default"] = str(config.gpus)
        if config.gpu_node_selector is not None:
            variables["node_selector"]["default"] = config.gpu_node_selector
        if config.gpu_tolerations is not None:
            variables["tolerations"]["default"] = config.gpu_tolerations
    return template


async def apply_pools(config: SetupSettings) -> None:
    """Create the pools, or give those that are there the present templates."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    async with get_client() as client:
        for name in POOLS:
            template = pool_template(name, config)
            try:
                await client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes", base_job_template=template))
                print(f"work pool {name}: created", flush=True)
            except ObjectAlreadyExists:
                await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
                print(f"work pool {name}: brought up to date", flush=True)


def apply_deployments(config: SetupSettings) -> None:
    """Apply every deployment of prefect.yaml, fitted to this cluster. Raises ShortfallError where Prefect refuses."""
    content = for_cluster(read_deployments(), config.max_cpu, config.max_memory, config.gpus)
    environment = {name[1:]: image for name, image in config.images.items()}
    with tempfile.TemporaryDirectory(prefix="shortfall-setup-") as folder:
        path = write_file(content, Path(folder) / "prefect.yaml")
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)],
            env={"SHORTFALL_HOME": str(REPO), "SHORTFALL_TIMEZONE": "UTC", **os.environ, **environment},
            cwd=REPO,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode:
        raise ShortfallError(f"prefect deploy: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    print(f"deployments: {', '.join(item['name'] for item in content['deployments'])}", flush=True)


async def wait_for_server(wait_s: float) -> None:
    """Wait until the Prefect server answers. Raises ShortfallError where it does not."""
    from prefect.client.orchestration import get_client

    limit = time.monotonic() + wait_s
    async with get_client() as client:
        while (problem := await client.api_healthcheck()) is not None:
            if time.monotonic() > limit:
                raise ShortfallError(f"the Prefect server did not answer within {wait_s:.0f} s: {problem}")
            await asyncio.sleep(2.0)


async def apply(config: SetupSettings) -> None:
    """Pools, then deployments."""
    await wait_for_server(config.wait_s)
    await apply_pools(config)
    await asyncio.to_thread(apply_deployments, config)


def main() -> int:
    """Exit code 0 when all is applied, 2 for bad settings, 1 for what failed."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    try:
        asyncio.run(apply(SetupSettings()))
    except ValidationError as error:
        first = error.errors()[0]
        print(f"error: SHORTFALL_{str(first['loc'][0]).upper()}: {first['msg']}", file=sys.stderr)
        return 2
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ShortfallError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
