"""Mutation testing of the controls: `make mutants`, or `python tests/mutants.py [CONTROL ...]`.

Every comparison, sum, product, conjunction, negation and whole number of a control is turned into another one, one at a
time (the words of a message aside). The risk tests must then fail; what they let live is tried on adversarial streams
under the oracle. A mutant that survives both is printed, and the command fails where `KNOWN` does not explain it.
"""

import ast
import copy
import importlib
import io
import os
import resource
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ROOT / "serving" / "gateway" / "controls"
FIRST = ("controls", "orders", "kill", "five_cases", "watch")  # the likeliest to notice
TESTS = [str(ROOT / "tests" / "unit" / f"test_risk_{name}.py") for name in (*FIRST, "limits", "recovery")]
STREAM_SEEDS, STREAM_REQUESTS = range(3), 10_000
LIMIT_S = 120
"""CPU time of one mutant; one that needs more never ends."""
SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.FloorDiv,), ast.FloorDiv: (ast.Mult,),
    ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
CLAMPED = "what is at 0 is set to 0, or adds 0"
CREDIT = "gross = (leg.long_value if order.sign > 0 else -leg.short_value) + order.at_mark - leg.gross"
USED = "used = node.gross + gross - (profit if profit < 0 else 0)"
AT_THE_ASK = "at the ask itself neither side is beyond the market"
KNOWN: dict[tuple[str, str, str], str] = {
    ("collar", "if beyond < 0:", "beyond < 0  ->  beyond <= 0"): AT_THE_ASK,
    ("collar", "if beyond < 0:", "0  ->  1"): AT_THE_ASK,
    (
        "duplicate",
        "if not order.is_new or now.mono_ns - recent.last_ns >= limits.duplicate_window_ns:",
        "now.mono_ns - recent.last_ns >= limits.duplicate_window_ns  ->  "
        "now.mono_ns - recent.last_ns > limits.duplicate_window_ns",
    ): "the shortcut alone: the exact comparison below says the same",
    ("credit", "if gross < 0:", "gross < 0  ->  gross <= 0"): CLAMPED,
    ("credit", "if gross < 0:", "0  ->  1"): CLAMPED,
    ("credit", CREDIT, "order.sign > 0  ->  order.sign >= 0"): "a sign is 1 or -1, never 0",
    ("credit", USED, "profit < 0  ->  profit <= 0"): CLAMPED,
    ("credit", USED, "0  ->  1"): CLAMPED,
}
"""Survivors by control, line and change, and why no test can tell them from the control."""


def mutants(path: Path):
    """(line, change, tree) of every mutant of a file."""
    tree = ast.parse(path.read_text())
    places = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    worded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "message"
        for inner in ast.walk(node)
    }
    for function in places:
        for node in ast.walk(function):
            if id(node) in worded:
                continue
            for change in changes(node):
                before = ast.unparse(node)
                undo = change()
                if ast.unparse(node) != before:
                    yield node.lineno, f"{before}  ->  {ast.unparse(node)}", copy.deepcopy(tree)
                undo()


def changes(node):
    """Functions that change a node, each giving one that changes it back."""

    def swap(owner, field, value):
        def change():
            old = getattr(owner, field)
            setattr(owner, field, value)
            return lambda: setattr(owner, field, old)

        return change

    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (swap(node, "ops", [kind()]) for kind in SWAPS.get(type(node.ops[0]), ()))
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        yield from (swap(node, "op", kind()) for kind in SWAPS.get(type(node.op), ()))
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield swap(node, "value", node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp):
        yield swap(node, "test", ast.Constant(False))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield swap(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield swap(node, "operand", ast.UnaryOp(ast.Not(), node.operand))


def judge_all(found) -> list[str]:
    """Each in a process of its own: "test", "oracle", "time", or "" for a mutant that lives."""
    verdicts = [""] * len(found)
    running: dict[int, tuple[int, int]] = {}
    waiting = list(range(len(found)))
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            place = waiting.pop(0)
            pid, pipe = _start(found[place][0], found[place][3])
            running[pid] = (place, pipe)
        time.sleep(0.02)
        for pid, (place, pipe) in list(running.items()):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
            said = os.read(pipe, 100).decode()
            os.close(pipe)
            verdicts[place] = {"-": "", "": "time"}.get(said, said)
            del running[pid]
            if not verdicts[place]:
                print("alive", *found[place][:3], file=sys.stderr, flush=True)
    return verdicts


def _start(control: str, tree) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    found = ""
    try:
        found = _judge(control, tree)
    except BaseException:
        found = "oracle"  # it raised where the streams expect nothing to
    finally:
        os.write(write, (found or "-").encode())
        os._exit(0)


def _judge(control: str, tree) -> str:
    import pytest

    module = importlib.import_module(f"serving.gateway.controls.{control}")
    exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), module.__dict__)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *TESTS]) != 0:
            return "test"
        from gateway_oracle import Oracle
        from gateway_streams import Streams

        for seed in STREAM_SEEDS:
            streams = Streams(seed, Oracle().read)
            streams.run(STREAM_REQUESTS)
            if streams.gateway.broken or streams.gateway.state.halted:
                return "oracle"
    return ""


def main(names: list[str]) -> int:
    """Try every mutant of the named controls, or of all."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.chdir(ROOT)
    import gateway_oracle  # noqa: F401  # loaded once, for every child
    import gateway_streams  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    paths = sorted(path for path in CONTROLS.glob("*.py") if path.stem not in ("__init__", "registry"))
    found = [(path.stem, *item) for path in paths if not names or path.stem in names for item in mutants(path)]
    verdicts = judge_all(found)
    alive = [item[:3] for item, verdict in zip(found, verdicts, strict=True) if not verdict]
    unknown = 0
    for control, line, change in alive:
        source = (CONTROLS / f"{control}.py").read_text().splitlines()[line - 1].strip()
        why = KNOWN.get((control, source, change), "")
        unknown += not why
        print(f"{'known' if why else 'SURVIVED'}  {control}:{line}  {change}{f'  ({why})' if why else ''}")
    killed = {kind: verdicts.count(kind) for kind in sorted(set(verdicts)) if kind}
    print(f"{len(found)} mutants, killed by {killed}, {len(alive)} alive, {unknown} of them not explained")
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
