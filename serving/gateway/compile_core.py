"""Compile the decision path with mypyc, from the same source: `python -m serving.gateway.compile_core FOLDER`.

FOLDER gets a copy of the gateway and of all that it imports of Shortfall, with extension modules beside the files that
they replace; put it first on PYTHONPATH to run them (`python -m serving.gateway` from there is the whole process).
Needs mypy and a C compiler, at build time only.
"""

import shutil
import subprocess
import sys
from pathlib import Path

COMPILED = (
    "books", "keys", "order_table", "tables", "live", "compiled", "clear", "order_events", "control_events", "state",
    "unanswered", "last_line", "journal", "engine",
)  # fmt: skip
"""What a decision runs through, beside all controls. The other modules keep types that mypyc does not compile."""


def compile_core(folder: Path) -> None:
    """Copy and compile. Raises subprocess.CalledProcessError with mypyc's words in `stdout` where that fails."""
    source = Path(__file__).resolve().parent
    package = folder / "serving" / "gateway"
    for name in ("gateway", "wire", "observe"):
        shutil.copytree(
            source.parent / name, package.parent / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    contracts = package.parent / "contracts"
    contracts.mkdir()
    for file in (
        "serving/__init__",
        "serving/contracts/__init__",
        "serving/contracts/orders",
        "serving/contracts/decisions",
    ):
        shutil.copy(source.parent.parent / f"{file}.py", folder / f"{file}.py")
    (folder / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n")
    modules = [f"serving/gateway/{name}.py" for name in COMPILED]
    modules += sorted(str(path.relative_to(folder)) for path in (package / "controls").glob("*.py"))
    subprocess.run(
        [sys.executable, "-m", "mypyc", "--config-file", "mypy.ini", *modules],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shutil.rmtree(folder / "build")


def main(arguments: list[str]) -> int:
    """Compile into the folder given, which must not hold a copy yet."""
    if len(arguments) != 1 or (Path(arguments[0]) / "serving").exists():
        sys.stderr.write("usage: python -m serving.gateway.compile_core FOLDER (without a copy in it)\n")
        return 2
    try:
        compile_core(Path(arguments[0]))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stdout)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
