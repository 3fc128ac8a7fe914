"""The id of each stage's output: a hash of its parameters, its inputs' ids and its code, known before it runs."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from feature_repo.errors import InputError
from feature_repo.parts import Parts, file_sha256
from flows.lake import MARKER, Lake, code_digest, fingerprint
from flows.params import LATEST
from flows.settings import load_profile, settings

_JUDGING = (
    "feature_repo/ticks/synthetic.py",
    "feature_repo/ticks/queue_reactive.py",
    "feature_repo/pipeline",
    "training/market",
    "training/execution",
    "training/evaluation",
    "serving/contracts",
)
_CODE: dict[str, tuple[str, ...]] = {
    "ingest": ("feature_repo/ticks", "feature_repo/parts.py"),
    "clean": (
        "feature_repo/ticks/schema.py",
        "feature_repo/ticks/instruments.py",
        "feature_repo/parts.py",
        "feature_repo/pipeline",
    ),
    "validate": ("feature_repo/parts.py", "feature_repo/pipeline"),
    "features": ("feature_repo/parts.py", "feature_repo/pipeline"),
    "materialize": ("feature_repo",),
    "simulate": (
        "feature_repo/ticks/reactive_tables.py",
        "feature_repo/pipeline",
        "training/market",
        "training/execution",
        "training/evaluation",
        "serving/contracts",
    ),
    "train_signal": ("feature_repo/pipeline", "training/signals", "training/evaluation/splits.py"),
    "train_agent": ("feature_repo/pipeline", "training/market", "training/execution", "serving/contracts"),
    "search": ("feature_repo/pipeline", "training/market", "training/execution", "serving/contracts"),
    "evaluate": _JUDGING,
    "apply_signal": ("feature_repo/pipeline", "training/signals"),
    "backtest": _JUDGING,
    "ablate": _JUDGING,
    "promote": ("serving",),
}
"""Sources whose change makes a stage's earlier output stale."""


def lake() -> Lake:
    """The lake of this process's settings."""
    return Lake(settings().lake.absolute())


def stage_id(stage: str, params: BaseModel, **extra: Any) -> str:
    """Id of the output that `stage` gives for `params`; `force` and `ray` change no content and so no id."""
    content = params.model_dump(mode="json", exclude={"force", "ray"})
    if "profile" in content:  # what the profile says counts, not what it is called
        content["profile"] = load_profile(content["profile"])
    for name in ("rules", "gates"):
        if content.get(name):
            content[name] = file_sha256(existing_file(content[name], name))
    return fingerprint(stage, params=content, code=code_digest(*_CODE[stage]), **extra)


def existing_file(path: str, what: str) -> Path:
    """The file that a parameter names; raises InputError where it is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{what}: {file} is no file; give the path of a YAML file, or leave {what} out")
    return file


def parts(stage: str, force: bool) -> Parts:
    """The lake's store of this stage's finished partitions."""
    return Parts(lake().root / "parts" / stage, code_digest(*_CODE[stage]), force)


def resolve(stage: str, id_: str) -> tuple[str, Path]:
    """Id and folder of a published output of `stage`; 'latest' is the one published last.

    Raises InputError that lists what is there when it is not.
    """
    store = lake()
    base = store.root / stage
    ids = sorted((path.parent.stat().st_mtime_ns, path.parent.name) for path in base.glob(f"*/{MARKER}"))
    if id_ == LATEST and ids:
        return ids[-1][1], base / ids[-1][1]
    if store.summary(stage, id_) is None:
        known = ", ".join(name for _, name in ids[-5:]) or "none"
        raise InputError(f"{base}/{id_}: no finished {stage} output; there: {known}; run the {stage} stage first")
    return id_, base / id_


def summary_of(stage: str, id_: str) -> dict[str, Any]:
    """Summary that the stage returned when it published this output."""
    found = lake().summary(stage, id_)
    if found is None:
        raise InputError(f"{lake().folder(stage, id_)}: no finished {stage} output")
    return found
