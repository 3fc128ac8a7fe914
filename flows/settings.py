"""One Settings object, read from SHORTFALL_* environment variables, and the training profiles in YAML."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError

SECTIONS = ("signal", "agent", "evaluation")
PROFILES = Path(__file__).parent / "profiles"


class Settings(BaseSettings):
    """Where the platform keeps its data and how it runs; each field is overridden by SHORTFALL_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_", extra="ignore")

    lake: Path = Field(Path("lake"), description="Folder of every dataset, model and report")
    execution: Literal["local", "deployments"] = Field(
        "local", description="local: stages run as subflows here; deployments: each stage runs as its own deployment"
    )
    cores: int = Field(2, ge=1, description="Cores for Spark and training on one machine")
    driver_memory: str = Field("2g", description="Memory of the Spark driver, as Spark writes it")
    spark_master: str | None = Field(None, description="Spark master URL; local[cores] where absent")
    signing_key: Path | None = Field(
        None, description="Private key that signs promotions; <lake>/registry/keys where absent"
    )
    tracking_uri: str | None = Field(
        None, description="MLflow server that runs and the signed registry are published to; a SQLite file where absent"
    )
    spark_executor_image: str | None = Field(None, description="Image of Spark's executors on Kubernetes")
    spark_executors: int = Field(2, ge=1, description="Executor pods of a flow")
    spark_executor_cores: int = Field(2, ge=1, description="Cores of an executor")
    spark_executor_memory: str = Field("4g", description="Heap of an executor")
    spark_executor_overhead: str = Field("2g", description="Memory of an executor beside its heap: Python's workers")
    spark_auth_secret: Path = Field(
        Path("/etc/shortfall/spark-auth/secret"), description="Where the driver finds the secret shared with executors"
    )
    spark_executor_secret: str = Field("spark-auth:secret", description="Secret and key that executors find it in")
    spark_pod_template: Path = Field(Path("/etc/shortfall/spark/pod.yaml"), description="Template of an executor's pod")
    spark_driver_service: str | None = Field(
        None, description="Headless service that names the driver's pod; its address where absent"
    )
    spark_driver_port: int = Field(7078, ge=0, description="Port that executors call the driver at")
    spark_block_port: int = Field(7079, ge=0, description="Port of the driver's blocks")
    learner_gpus: int = Field(0, ge=0, description="GPUs of this pod, for the agent's learner")
    ray_image: str | None = Field(None, description="Image of a RayJob's pods")
    ray_head_cpu: str = Field("4", description="Cores of a RayJob's head, where the learner is")
    ray_head_memory: str = Field("16Gi", description="Memory of the head")
    ray_head_gpus: int = Field(1, ge=0, description="GPUs of the head")
    ray_workers: int = Field(1, ge=0, description="Worker pods of a RayJob")
    ray_worker_cpu: str = Field("4", description="Cores of a worker")
    ray_worker_memory: str = Field("8Gi", description="Memory of a worker")
    ray_worker_gpus: int = Field(0, ge=0, description="GPUs of a worker")
    ray_shared_memory: str = Field("4Gi", description="Size of /dev/shm in head and workers: Ray's object store")
    ray_deadline_s: int = Field(172_800, ge=60, description="Longest that a RayJob may take")
    ray_node_selector: dict[str, str] = Field({}, description="Node labels of a RayJob's pods with a GPU, as JSON")
    pod_name: str | None = Field(None, description="This pod's name, from the downward API")
    pod_uid: str | None = Field(None, description="This pod's uid, from the downward API")
    pod_ip: str | None = Field(None, description="This pod's address, from the downward API")
    pod_namespace: str | None = Field(None, description="This pod's namespace, from the downward API")
    job_name: str | None = Field(None, description="The Job that this pod belongs to, from the downward API")
    job_uid: str | None = Field(None, description="Uid of that Job, from the downward API")
    redis: str | None = Field(
        None, description="Redis of the online store, host:port and Redis' options behind it; SQLite where absent"
    )
    redis_password: SecretStr | None = Field(None, description="Password of that Redis, kept out of its address")
    timezone: str = Field("UTC", description="IANA zone of the nightly schedule")
    decide_url: str | None = Field(None, description="Decide service that promotions are watched at; none where absent")
    decide_tls: Path | None = Field(None, description="Folder with tls.crt, tls.key and ca.crt of a client of decide")
    decide_token: SecretStr | None = Field(None, description="Bearer token of a client of decide")
    decide_wait_s: float = Field(300.0, gt=0, description="How long decide may take to announce a new champion")
    decide_answers: int = Field(5, ge=1, description="Smoke decisions in a row that must be right")

    @property
    def online_store(self) -> dict[str, str]:
        """Feast's online store: Redis where one is named, else a SQLite file in the stage's folder."""
        if not self.redis:
            return {"type": "sqlite"}
        secret = f",password={self.redis_password.get_secret_value()}" if self.redis_password else ""
        return {"type": "redis", "connection_string": f"{self.redis}{secret}"}

    @property
    def registry(self) -> Path:
        """Folder of the model registry, its journal and its artifacts."""
        return self.lake.absolute() / "registry"

    @property
    def tracking(self) -> str:
        """Where trainings log: the MLflow server, or a database in the lake (SQLite; MLflow's file store is gone)."""
        if self.tracking_uri is not None:
            return self.tracking_uri
        self.registry.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{self.lake.absolute()}/registry/mlflow.db"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Settings of this process, read once."""
    return Settings()


def load_profile(name: str) -> dict[str, Any]:
    """A profile: a name in flows/profiles, or the path of a YAML file.

    `extends` names the built-in settings (quick or full) that its sections `signal`, `agent` and `evaluation` override.

    Raises InputError for an unknown name, a file that is no mapping, or a section that nothing reads.
    """
    import yaml

    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in PROFILES.glob("*.yaml")))
        raise InputError(f"profile {name!r}: no file {path}; known profiles: {known}, or give the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"profile {path}: not valid YAML ({error})") from error
    if not isinstance(content, dict) or set(content) - {"extends", *SECTIONS}:
        unknown = (
            sorted(set(content) - {"extends", *SECTIONS}) if isinstance(content, dict) else [type(content).__name__]
        )
        raise InputError(f"profile {path}: unknown section {unknown}; allowed: extends, {', '.join(SECTIONS)}")
    if content.get("extends") not in ("quick", "full"):
        raise InputError(f"profile {path}: extends is {content.get('extends')!r}, it must be quick or full")
    for section in SECTIONS:
        if not isinstance(content.get(section) or {}, dict):
            raise InputError(
                f"profile {path}: section {section!r} must be a mapping, not {type(content[section]).__name__}"
            )
    return {"extends": content["extends"], **{section: dict(content.get(section) or {}) for section in SECTIONS}}
