"""The command line answers at once and refuses in one sentence."""

import subprocess
import sys

import pytest

HEAVY = ("prefect", "ray", "pyspark", "torch", "great_expectations", "feast", "mlflow", "pandas", "numba", "plotly")


def test_help_when_asked_then_imports_nothing_heavy():
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom flows.cli import app\n"
        "for args in (['--help'], ['nightly', '--help'], ['policy', '--help']):\n"
        "    assert CliRunner().invoke(app, args).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly", "--synthetic-days", "1"], "synthetic_days"),
        (["nightly", "--from", "yesterday"], "date_from"),
        (["nightly", "--from", "2025-02-01", "--to", "2025-01-01"], "2025-02-01 is after date_to 2025-01-01"),
        (["nightly", "--synthetic-strength", "2"], "synthetic_strength"),
    ],
)
def test_nightly_when_an_option_is_out_of_range_then_names_it_and_exits_2(arguments, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        env={"SHORTFALL_LAKE": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


def test_policy_commands_when_nothing_is_registered_then_say_so(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", "policy", *arguments],
            capture_output=True,
            text=True,
            env={"SHORTFALL_LAKE": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )

    assert "none yet" in run("list").stdout
    assert run("history", "--json").stdout.strip() == "[]"
    refused = run("rollback", "--reason", "test")
    assert refused.returncode == 2 and "no earlier champion" in refused.stderr


def test_gateway_journal_when_there_is_none_then_says_so_and_exits_1(tmp_path):
    from typer.testing import CliRunner

    from flows.cli import app

    done = CliRunner().invoke(app, ["gateway", "journal", "replay", str(tmp_path)])
    assert done.exit_code == 1
    assert "there is no journal here" in done.stderr
