"""The compiled core decides as the reference does: the same journal, hash for hash, from the same streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.gateway.compile_core import compile_core

REPO = Path(__file__).resolve().parents[2]
CODE = """
import sys
import serving.gateway.engine as engine
from gateway_oracle import Oracle
from gateway_streams import Streams
oracle = Oracle()
streams = Streams(int(sys.argv[1]), oracle.read)
streams.run(int(sys.argv[2]))
journal = streams.gateway.journal
compiled = engine.__file__.endswith(".so")
print(compiled, journal.sequence, journal._hash.hex(), streams.gateway.state.hash(), streams.denied)
"""


def run(seed, requests, *folders):
    path = os.pathsep.join(map(str, (*folders, REPO / "tests", REPO)))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(seed), str(requests)],
        cwd=folders[0] if folders else REPO,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.timeout(600)
def test_compiled_core_gives_the_reference_s_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("MYPYC_OPT_LEVEL", "0")  # the same C, compiled in half the time
    compile_core(tmp_path)
    compiled, *of_compiled = run(3, 60_000, tmp_path)
    reference, *of_reference = run(3, 60_000)
    assert (compiled, reference) == ("True", "False")
    assert of_compiled == of_reference


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_compiled_core_gives_the_reference_s_journal_in_ten_million_requests(tmp_path):
    compile_core(tmp_path)
    for seed in range(10):
        compiled, *of_compiled = run(seed, 1_000_000, tmp_path)
        reference, *of_reference = run(seed, 1_000_000)
        assert (compiled, reference) == ("True", "False")
        assert of_compiled == of_reference
