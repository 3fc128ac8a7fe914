"""One Settings object, read from SHORTFALL_* environment variables, and the training profiles in YAML."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.errors import InputError

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
    signing_key: Path | None = Field(None, description="Private key that signs promotions; <lake>/registry/keys where absent")
    timezone: str = Field("UTC", description="IANA zone of the nightly schedule")

    @property
    def registry(self) -> Path:
        """Folder of the model registry, its journal and its artifacts."""
        return self.lake.absolute() / "registry"

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking database (SQLite; MLflow's file store is gone)."""
        return f"sqlite:///{self.lake.absolute()}/registry/mlflow.db"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Settings of this process, read once."""
    return Settings()


def load_profile(name: str) -> dict[str, dict[str, Any]]:
    """Sections `signal`, `agent`, `evaluation` of a profile: a name in flows/profiles, or the path of a YAML file.

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
    sections = {"signal", "agent", "evaluation"}
    if not isinstance(content, dict) or set(content) - sections:
        unknown = sorted(set(content) - sections) if isinstance(content, dict) else [type(content).__name__]
        raise InputError(f"profile {path}: unknown section {unknown}; allowed: {sorted(sections)}")
    for section, values in content.items():
        if values is not None and not isinstance(values, dict):
            raise InputError(f"profile {path}: section {section!r} must be a mapping, not {type(values).__name__}")
    return {section: dict(content.get(section) or {}) for section in sections}
