"""Mutation testing of the controls: `make mutants`, or `python tests/mutants.py [CONTROL ...]`.

Every comparison, sum, product, conjunction, negation and whole number of a control is turned into another one, and each
part of a conjunction is left out, one at a time (the words of a message aside). The risk tests must then fail; what
they let live is tried on adversarial streams under the oracle. A mutant that survives both is printed, and the command
fails where `KNOWN` does not explain it.

So is `clear`, which may only say yes where no control denies: a mutant dies when a control denies what it says yes to.
"""

import ast
import copy
import importlib
import io
import os
import resource
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTROLS = ROOT / "serving" / "gateway" / "controls"
CLEAR = ROOT / "serving" / "gateway" / "clear.py"
FIRST = ("controls", "edges", "feed_lag", "orders", "kill", "five_cases", "watch")  # the likeliest to notice
TESTS = [str(ROOT / "tests" / "unit" / f"test_risk_{name}.py") for name in (*FIRST, "attacks", "limits", "recovery")]
STREAM_SEEDS, STREAM_REQUESTS, CLEAR_REQUESTS = range(3), 10_000, 1_500
NO_LOOSER = "no looser: it says yes to nothing that `clear` does not"
LIMIT_S = 120
"""CPU time of one mutant; one that needs more never ends."""
SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.FloorDiv,), ast.FloorDiv: (ast.Mult,),
    ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
CALLS = {"abs": "int", "min": "max", "max": "min"}
CLAMPED = "what is at 0 is set to 0, or adds 0"
USED = "used = node.gross + gross - (profit if profit < 0 else 0)"
AT_THE_ASK = "at the ask itself neither side is beyond the market"
THE_SHORTCUT_ALONE = "the shortcut alone: the exact comparison below says the same"
A_SIGN = "a sign is 1 or -1, never 0"
ANYWHERE = {"order.sign > 0  ->  order.sign >= 0": A_SIGN}
"""The same, of every control, by change."""
WAITING = "if now.mono_ns - waiting.floor_ns <= limits.max_unacknowledged_ns:"
KNOWN: dict[tuple[str, str, str], str] = {
    ("collar", "if beyond < 0:", "beyond < 0  ->  beyond <= 0"): AT_THE_ASK,
    ("collar", "if beyond < 0:", "0  ->  1"): AT_THE_ASK,
    (
        "duplicate",
        "if not order.is_new or now.mono_ns - recent.last_ns >= limits.duplicate_window_ns:",
        "now.mono_ns - recent.last_ns >= limits.duplicate_window_ns  ->  "
        "now.mono_ns - recent.last_ns > limits.duplicate_window_ns",
    ): THE_SHORTCUT_ALONE,
    ("unacknowledged", WAITING, WAITING + "\n    return None  ->  if False:\n    return None"): THE_SHORTCUT_ALONE,
    ("unacknowledged", WAITING, f"{WAITING[3:-1]}  ->  {WAITING[3:-1].replace('<=', '<')}"): THE_SHORTCUT_ALONE,
    ("unacknowledged", WAITING, f"{WAITING[3:33]}  ->  {WAITING[3:33].replace('-', '+')}"): THE_SHORTCUT_ALONE,
    (
        "reference",
        "if not market.bid or not market.ask:",
        "not market.bid or not market.ask  ->  not market.bid and (not market.ask)",
    ): "a market has both prices or none (`Market.quote`, `Market.lose`)",
    (
        "reference",
        "if late > limits.max_feed_lag_ns:",
        "late > limits.max_feed_lag_ns  ->  late >= limits.max_feed_lag_ns",
    ): "asked only of a feed that is late or ahead: one that is ahead is not late to the nanosecond of the limit",
    (
        "message_rate",
        "if window is not None and window.used >= window.limit and window.is_full(now.mono_ns):",
        "window is not None and window.used >= window.limit and window.is_full(now.mono_ns)  ->  "
        "window is not None and window.is_full(now.mono_ns)",
    ): THE_SHORTCUT_ALONE,
    ("credit", "if gross < 0:", "gross < 0  ->  gross <= 0"): CLAMPED,
    ("credit", "if gross < 0:", "0  ->  1"): CLAMPED,
    (
        "locate",
        "held = account.position if account.position > 0 else 0",
        "account.position > 0  ->  account.position >= 0",
    ): CLAMPED,
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

    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for kind in SWAPS.get(type(op), ()):
                yield swap(node, "ops", [*node.ops[:place], kind(), *node.ops[place + 1 :]])
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        yield from (swap(node, "op", kind()) for kind in SWAPS.get(type(node.op), ()))
        for place in range(len(getattr(node, "values", ()))):
            yield swap(node, "values", [*node.values[:place], *node.values[place + 1 :]])
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield swap(node, "value", node.value + 1)
    elif isinstance(node, ast.If | ast.IfExp):
        yield swap(node, "test", ast.Constant(False))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield swap(node.func, "id", CALLS[node.func.id])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield swap(node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield swap(node, "operand", ast.UnaryOp(ast.Not(), node.operand))


class Judge:
    """A pytest plugin: the tests are collected once, then each mutant meets them in a process of its own.

    `verdicts` says what killed each: the name of a test, "oracle", "time"; "" for a mutant that lives.
    """

    def __init__(self, found) -> None:
        self.found, self.verdicts = found, [""] * len(found)
        self._loose: list = []  # of a mutant of `clear`: denials of what it says yes to
        self._killers: list[str] = []  # tests that killed, the latest one first: they are tried first

    def pytest_runtestloop(self, session) -> bool:
        """In place of pytest's own loop."""
        running: dict[int, tuple[int, int]] = {}
        waiting = list(range(len(self.found)))
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                place = waiting.pop(0)
                pid, pipe = self._start(session, place)
                running[pid] = (place, pipe)
            time.sleep(0.002)
            for pid, (place, pipe) in list(running.items()):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
                said = os.read(pipe, 1_000).decode()
                os.close(pipe)
                del running[pid]
                self.verdicts[place] = verdict = {"-": "", "": "time"}.get(said, said)
                if "::" in verdict:
                    self._killers = [verdict, *(name for name in self._killers if name != verdict)]
                elif not verdict and place:
                    print("alive", *self.found[place][:3], file=sys.stderr, flush=True)
        return True

    def _start(self, session, place: int) -> tuple[int, int]:
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, read
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
        found = ""
        try:
            control, _, _, tree = self.found[place]
            package = "serving.gateway" if control == CLEAR.stem else "serving.gateway.controls"
            module = importlib.import_module(f"{package}.{control}")
            requests = STREAM_REQUESTS
            if control == CLEAR.stem:
                looser, requests = _ask_both(module, self._loose), CLEAR_REQUESTS
            else:
                registry = importlib.import_module("serving.gateway.controls.registry")
                registry.is_clear = lambda at, order, now: False  # type: ignore[attr-defined]  # it hides new denials
            exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), module.__dict__)
            found = self._fails(session) or _breaches(requests) or ("oracle" if self._loose else "")
            if control == CLEAR.stem and not found and not looser:
                found = NO_LOOSER
        except BaseException:
            found = "oracle"  # it raised where the streams expect nothing to
        finally:
            os.write(write, (found or "-").encode()[:1_000])
            os._exit(0)

    def _fails(self, session) -> str:
        """The first test that fails."""
        from _pytest.runner import runtestprotocol

        order = {name: place for place, name in enumerate(self._killers)}
        for item in sorted(session.items, key=lambda item: order.get(item.nodeid, len(order))):
            if not all(report.passed for report in runtestprotocol(item, log=False, nextitem=None)):
                return item.nodeid
            if self._loose:
                return item.nodeid
        return ""


def _ask_both(clear, denials: list) -> list:
    """Ask every control about what a mutant of `clear` says yes to, and list what they deny in `denials`.

    Gives where the orders are listed that it says yes to, and `clear` itself does not.
    """
    registry = importlib.import_module("serving.gateway.controls.registry")
    checks = [control.check for control in registry.CONTROLS]
    itself: dict = {"__name__": clear.__name__}
    exec(compile(CLEAR.read_text(), CLEAR, "exec"), itself)
    looser: list = []

    def is_clear(at, order, now):
        answer = clear.is_clear(at, order, now)
        if answer:
            denials.extend(filter(None, (check(at, at.limits, order, now) for check in checks)))
            if not itself["is_clear"](at, order, now):
                looser.append(order.request)
        return answer

    registry.CLEAR_MAY_ANSWER, registry.is_clear = True, is_clear
    return looser


def _breaches(requests: int) -> str:
    from gateway_oracle import Oracle
    from gateway_streams import Streams

    for seed in STREAM_SEEDS:
        streams = Streams(seed, Oracle().read)
        streams.run(requests)
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
    paths.append(CLEAR)
    found = [(path.stem, *item) for path in paths if not names or path.stem in names for item in mutants(path)]
    untouched = (paths[0].stem, 0, "nothing changed", ast.parse(paths[0].read_text()))
    judge = Judge([untouched, *found])
    with redirect_stdout(io.StringIO()):
        ended = pytest.main(["-p", "no:cacheprovider", *TESTS], plugins=[judge])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {ended!r}: nothing was judged")
    if judge.verdicts[0]:
        raise SystemExit(f"{judge.verdicts[0]} fails without a mutant: nothing was judged")
    verdicts = judge.verdicts[1:]
    alive = [item[:3] for item, verdict in zip(found, verdicts, strict=True) if not verdict]
    unknown = 0
    for control, line, change in alive:
        path = CLEAR if control == CLEAR.stem else CONTROLS / f"{control}.py"
        source = path.read_text().splitlines()[line - 1].strip()
        why = KNOWN.get((control, source, change), ANYWHERE.get(change, ""))
        unknown += not why
        print(f"{'known' if why else 'SURVIVED'}  {control}:{line}  {change}{f'  ({why})' if why else ''}")
    by = ["test" if "::" in verdict else verdict for verdict in verdicts]
    killed = {kind: by.count(kind) for kind in sorted(set(by) - {"", NO_LOOSER})}
    print(f"{len(found)} mutants, killed by {killed}, {len(alive)} alive, {unknown} of them not explained")
    if NO_LOOSER in by:
        print(f"{by.count(NO_LOOSER)} of `clear` are {NO_LOOSER}")
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
