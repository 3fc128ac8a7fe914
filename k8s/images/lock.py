"""Write the hash-locked requirements of each image from pyproject.toml, within constraints.txt: `make image-locks`.

Needs `uv`. Images are x86_64: the FIX wheel is (elsewhere QuickFIX is built from source, see pyproject.toml).
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent / "requirements"

EXTRAS = {"data": ("data", "k8s"), "train": ("train", "k8s", "ray-cluster")}
GROUPS = ("serve", "gateway")
SERVERS = ("mlflow",)
"""Images that hold nothing of Shortfall: their packages need not agree with its constraints."""

# PyTorch's own CPU wheel, of which the package index knows nothing
TORCH_CPU = """torch==2.13.0+cpu \\
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"""
ONLY_CUDA = re.compile(r"^(torch==|triton==|cuda-|nvidia-)")


def compile_lock(selection: list[str], *, constrained: bool = True) -> str:
    """Requirements with hashes for one selection of extras or a group, as text."""
    within = ["--constraints", "constraints.txt"] if constrained else []
    command = [
        "uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28",
        "--generate-hashes", "--no-header", "--no-annotate", "--prerelease", "if-necessary-or-explicit",
        *within, *selection,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"uv pip compile {' '.join(selection)} failed:\n{done.stderr}")
    return done.stdout


def without_cuda(lock: str) -> str:
    """The same lock with PyTorch's CPU wheel in the place of the CUDA build and all that only that one needs."""
    blocks = re.split(r"\n(?=\S)", lock.strip())
    kept = [block for block in blocks if not ONLY_CUDA.match(block)]
    return "\n".join(sorted([*kept, TORCH_CPU])) + "\n"


def main() -> None:
    """Write every lock."""
    LOCKS.mkdir(exist_ok=True)
    locks = {
        name: compile_lock(["pyproject.toml", *(f"--extra={extra}" for extra in extras)])
        for name, extras in EXTRAS.items()
    }
    locks |= {name: compile_lock(["--group", f"pyproject.toml:image-{name}"]) for name in GROUPS}
    locks |= {name: compile_lock(["--group", f"pyproject.toml:image-{name}"], constrained=False) for name in SERVERS}
    train = locks.pop("train")
    locks |= {"train-cuda": train, "train-cpu": without_cuda(train)}
    for name, text in sorted(locks.items()):
        (LOCKS / f"{name}.txt").write_text(text)
        print(f"{name}: {len(re.findall('^[a-z0-9]', text, re.M))} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
