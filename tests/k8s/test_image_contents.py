"""What the serving images hold is enough: every module of each, imported with nothing but its lock and its files."""

import shutil
import subprocess
import sys

import pytest
from test_images import IMAGES, ROOT, copied_files, stages

pytestmark = pytest.mark.slow
ENTRY_POINTS = {
    "serve": ("serving.decide", "serving.parents", "serving.mirror", "training.market.venue"),
    "gateway": ("serving.gateway",),
}
NOT_SERVED = (
    "serving.gateway.compile_core",  # needs mypyc, run by developers
    "feature_repo.entities", "feature_repo.features", "feature_repo.services", "feature_repo.sources",  # Feast's
    "feature_repo.server", "feature_repo.ticks", "feature_repo.pipeline.store", "feature_repo.pipeline.online",
    "training.market.linear_world",
)  # fmt: skip
"""Modules that a serving image carries and never runs, by the beginning of their names."""


@pytest.mark.parametrize("target", sorted(ENTRY_POINTS))
def test_image_when_only_its_lock_is_installed_then_every_module_imports_and_each_entry_point_answers(target, tmp_path):
    app, venv = tmp_path / "app", tmp_path / "venv"
    modules = []
    for path in copied_files(stages((IMAGES / "Dockerfile").read_text()), target):
        place = app / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        modules.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    lock = IMAGES / "requirements" / f"{target}.txt"
    install = [venv / "bin" / "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", lock]
    subprocess.run(install, check=True, timeout=1200)
    wanted = [name for name in modules if not name.endswith("__main__") and not name.startswith(NOT_SERVED)]
    assert len(wanted) > 30
    script = f"import importlib\nfor name in {sorted(wanted)!r}:\n    importlib.import_module(name)\n"
    done = subprocess.run([venv / "bin" / "python", "-c", script], cwd=app, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ENTRY_POINTS[target]:
        subprocess.run([venv / "bin" / "python", "-m", name, "--help"], cwd=app, check=True, capture_output=True)
