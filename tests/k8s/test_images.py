"""What images are made of: pinned, hashed, without root or compiler; the gateway's holds only what it may import."""

import ast
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "k8s" / "images"
TARGETS = ("data", "train", "serve", "gateway", "mlflow")
LOCKS = sorted((IMAGES / "requirements").glob("*.txt"))
COMPILERS = ("gcc", "g++", "clang", "make", "build-essential", "libc6-dev")


def stages(text):
    """Name, base and instructions of each stage of a Dockerfile; what stands before the first FROM is left out."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    found = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, current := [])
        elif found:
            current.append((word, rest.strip()))
    return found


def lineage(found, name):
    """Instructions of a stage and of all that it is made from, the oldest first."""
    base, own = found[name]
    return (lineage(found, base) if base in found else []) + own


@pytest.fixture(scope="module")
def dockerfile():
    return stages((IMAGES / "Dockerfile").read_text())


@pytest.mark.parametrize("target", TARGETS)
def test_image_when_built_then_runs_as_an_unprivileged_number_and_is_healthy_or_not(dockerfile, target):
    instructions = lineage(dockerfile, target)
    users = [rest for word, rest in instructions if word == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])  # a name would not satisfy runAsNonRoot
    assert any(word == "HEALTHCHECK" for word, _ in instructions)
    labels = " ".join(rest for word, rest in instructions if word == "LABEL")
    assert "org.opencontainers.image.revision=$REVISION" in labels


@pytest.mark.parametrize("target", ["data", "train", "serve", "gateway"])
def test_image_when_its_health_is_asked_then_holds_what_is_run(dockerfile, target):
    (check,) = (rest for word, rest in lineage(dockerfile, target) if word == "HEALTHCHECK")
    asked = re.search(r'"-m", "([\w.]+)"|import ([\w.]+)', check)
    name = (asked[1] or asked[2]).replace(".", "/")
    assert ROOT / f"{name}.py" in copied_files(dockerfile, target), f"{target} does not hold {name}.py"


@pytest.mark.parametrize("target", TARGETS)
def test_image_when_built_then_its_last_layers_hold_no_compiler(dockerfile, target):
    for word, rest in lineage(dockerfile, target):
        if word == "RUN" and "apt-get install" in rest:
            packages = shlex.split(re.split(r"&&", rest.split("apt-get install", 1)[1])[0])
            assert not set(packages) & set(COMPILERS), rest
        if word == "COPY" and rest.startswith("--from="):
            source = rest.split()[1]
            assert source in ("/opt/venv", "/app"), rest


def test_images_when_built_then_start_from_an_exact_tag():
    base = re.search(r"^ARG BASE=(\S+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    assert base and re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w-]+", base[1])


def test_images_when_built_then_every_file_that_is_copied_exists_and_is_let_through(dockerfile):
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for _, instructions in dockerfile.values():
        for word, rest in instructions:
            if word != "COPY" or rest.startswith("--from="):
                continue
            sources = [part for part in shlex.split(rest) if not part.startswith("--")][:-1]
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(source == top or source.startswith(f"{top}/") for top in allowed), source


def test_locks_when_read_then_every_package_is_exact_and_hashed():
    assert {path.stem for path in LOCKS} == {"data", "train-cpu", "train-cuda", "serve", "gateway", "mlflow"}
    for path in LOCKS:
        blocks = re.split(r"\n(?=\S)", path.read_text().strip())
        assert len(blocks) > 20
        for block in blocks:
            name = block.split()[0]
            assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*(\[[a-z,0-9-]+\])?==[^\s;]+", name), f"{path.name}: {name}"
            assert "--hash=sha256:" in block, f"{path.name}: {name} has no hash"


def versions(path):
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(), re.MULTILINE))


def test_locks_when_read_then_agree_with_the_constraints_of_the_tests():
    pinned = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for path in LOCKS:
        for name, version in versions(path).items():
            if name in pinned and path.stem != "mlflow":  # the server's other needs are its own
                assert version.removesuffix("+cpu") == pinned[name], f"{path.name}: {name}"


def test_lock_of_the_gateway_when_read_then_holds_nothing_that_runs_a_model_or_a_flow():
    gateway = versions(IMAGES / "requirements" / "gateway.txt")
    assert not {"onnxruntime", "torch", "ray", "prefect", "pyspark", "mlflow", "mlflow-skinny", "numpy", "numba"} & set(
        gateway
    )
    assert {"quickfix-tls", "msgspec", "websockets", "uvloop"} <= set(gateway)


def test_lock_for_cpu_when_read_then_holds_no_cuda():
    cpu, cuda = (versions(IMAGES / "requirements" / f"train-{kind}.txt") for kind in ("cpu", "cuda"))
    assert cpu["torch"] == f"{cuda['torch']}+cpu"
    assert not [name for name in cpu if name.startswith(("nvidia-", "cuda-")) or name == "triton"]
    only_cuda = {name for name in cuda if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert only_cuda and set(cuda) - only_cuda == set(cpu)


def copied_files(dockerfile, target):
    """Python files of the project in an image, by the COPY and `rm -rf` lines of its build stage."""
    found = set()
    for word, rest in dockerfile[f"{target}-build"][1]:
        if word == "COPY":
            parts = [part for part in shlex.split(rest) if not part.startswith("--")][:-1]
            for part in parts:
                path = ROOT / part
                found |= {path} if path.is_file() else set(path.rglob("*.py"))
        for folder in re.findall(r"rm -rf (\S+)", rest) if word == "RUN" else ():
            found -= set((ROOT / folder).rglob("*.py"))
    return {path for path in found if path.suffix == ".py" and path.is_relative_to(ROOT) and "k8s" not in path.parts}


def imported_modules(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("target", ["serve", "gateway"])
def test_image_when_its_modules_import_one_another_then_all_of_them_are_there(dockerfile, target):
    files = copied_files(dockerfile, target)
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files}
    assert len(modules) > 10
    optional = {"serving.gateway.compile_core"}  # builds the compiled core; not run in an image
    for path in files:
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) in optional:
            continue
        for module in imported_modules(path):
            if module.split(".")[0] in ("feature_repo", "serving", "training", "flows"):
                assert module in modules or module.rpartition(".")[0] in modules, f"{path}: imports {module}"


def test_image_of_the_gateway_when_built_then_holds_nothing_of_flows_training_or_features(dockerfile):
    tops = {path.relative_to(ROOT).parts[0] for path in copied_files(dockerfile, "gateway")}
    assert tops == {"serving"}
    folders = {path.relative_to(ROOT).parts[1] for path in copied_files(dockerfile, "gateway")}
    assert folders == {"__init__.py", "contracts", "gateway", "observe", "wire"}


def test_entrypoint_when_given_a_command_then_becomes_it_and_else_starts_an_executor(tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    script = str(IMAGES / "entrypoint")
    assert subprocess.run([script, "echo", "a b"], capture_output=True, text=True, check=True).stdout == "a b\n"
    environment = {
        "PATH": "/usr/bin:/bin", "JAVA_HOME": str(tmp_path), "SPARK_HOME": "/spark",
        "SPARK_DRIVER_URL": "spark://driver:7078", "SPARK_EXECUTOR_ID": "3", "SPARK_EXECUTOR_CORES": "2",
        "SPARK_EXECUTOR_MEMORY": "1g", "SPARK_APPLICATION_ID": "spark-1", "SPARK_EXECUTOR_POD_IP": "10.0.0.7",
        "SPARK_EXECUTOR_POD_NAME": "exec-3", "SPARK_RESOURCE_PROFILE_ID": "0", "SPARK_JAVA_OPT_0": "-Da=first value",
        "SPARK_JAVA_OPT_1": "-Db=1", "SPARK_JAVA_OPT_10": "-Dc=3", "SPARK_JAVA_OPT_2": "-Dd=2",
    }  # fmt: skip
    done = subprocess.run([script, "executor"], env=environment, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[:6] == ["-Da=first value", "-Db=1", "-Dd=2", "-Dc=3", "-Xms1g", "-Xmx1g"]
    assert said[said.index("--driver-url") + 1] == "spark://driver:7078"
    assert said[said.index("--podName") + 1] == "exec-3"
    del environment["SPARK_DRIVER_URL"]
    refused = subprocess.run([script, "executor"], env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "SPARK_DRIVER_URL" in refused.stderr


def test_digests_when_pinned_then_replace_the_images_block_alone():
    spec = importlib.util.spec_from_file_location("pin", IMAGES / "pin.py")
    pin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pin)
    top, bottom = "resources:\n  - ../../base\n", "patches:\n  - path: a.yaml\n"
    before = f"{top}images:\n  - name: shortfall/serve\n    newTag: 0.1.0\n{bottom}"
    name, digest = "registry.example.com/shortfall/serve", f"sha256:{'a' * 64}"
    after = pin.pinned(before, {"serve": f"{name}@{digest}"})
    assert after == (f"{top}images:\n  - name: shortfall/serve\n    newName: {name}\n    digest: {digest}\n{bottom}")
    assert pin.pinned(after, {"serve": f"{name}@{digest}"}) == after
    with pytest.raises(ValueError, match="no image with a digest"):
        pin.pinned(before, {"serve": "shortfall/serve:latest"})
    with pytest.raises(ValueError, match="0 blocks"):
        pin.pinned("resources: []\n", {"serve": f"shortfall/serve@{digest}"})
