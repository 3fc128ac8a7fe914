"""The promoter's key as a pod finds it: root's file in a mounted secret, read through the pod's own group."""

import os
from pathlib import Path

import pytest

from feature_repo.errors import InputError
from serving.signing import open_signer, open_verifier


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key that belongs to somebody else and that nobody may write, whoever runs the test."""
    path = tmp_path / "promoter.pem"
    open_signer(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda asked, mode: mode != os.W_OK)
    return path


def test_signer_when_the_pods_group_reads_the_mounted_key_then_signs(key):
    key.chmod(0o440)
    open_verifier(key.with_suffix(".pub")).verify(b"x", open_signer(key).sign(b"x"), "x")


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o640 | 0o004])
def test_signer_when_more_than_the_group_may_read_it_then_refuses(key, mode):
    key.chmod(mode)
    with pytest.raises(InputError, match="lets others read"):
        open_signer(key)


def test_signer_when_the_group_may_read_ones_own_key_then_refuses(key, monkeypatch):
    key.chmod(0o440)
    monkeypatch.setattr(os, "geteuid", lambda: key.stat().st_uid)
    with pytest.raises(InputError, match="mode 440"):
        open_signer(key)
