"""Spark's Java: found, missing, or of the wrong version, always with one message that says what to do."""

import pytest

from feature_repo.errors import ShortfallError
from feature_repo.pipeline.spark import find_java


def fake_java(folder, version):
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024' >&2\n")
    program.chmod(0o755)
    return program


def test_java_when_home_holds_17_then_it_is_taken(tmp_path, monkeypatch):
    program = fake_java(tmp_path, "17.0.9")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == program


@pytest.mark.parametrize("version", ["1.8.0_402", "21.0.2"])
def test_java_when_version_is_other_then_says_which_and_what_to_install(tmp_path, monkeypatch, version):
    fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ShortfallError, match=rf"is version {version.split('.')[0]}; install .*openjdk-17-jre-headless"):
        find_java()


def test_java_when_absent_then_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ShortfallError, match=r"no java on PATH.*Debian: openjdk-17-jre-headless"):
        find_java()


def test_java_when_home_is_wrong_then_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ShortfallError, match="holds no bin/java"):
        find_java()
