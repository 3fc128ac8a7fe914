"""A small Ray inside the calling process's machine, started only where none runs and stopped only by who started it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECT_STORE_BYTES = 128 * 2**20


@contextmanager
def local_ray(cpus: int, address: str | None = None) -> Iterator[None]:
    """Ray for the length of the block: the one that runs already, the cluster at `address`, or one of `cpus` cores.

    One that is started here offers this machine's GPUs. Sends no telemetry.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # One thread each: Ray's processes share the machine's cores with the learner.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import ray

    if ray.is_initialized():
        yield
        return
    if address is not None:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()
        return
    # A short path of our own: Ray's sockets have a limit of 107 characters, and its files should not outlive it.
    folder = tempfile.mkdtemp(prefix="sf-ray-", dir="/tmp")
    try:
        ray.init(
            num_cpus=cpus,
            num_gpus=_gpus(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
