import pytest

from feature_repo.errors import InputError
from serving.signing import SignatureError, open_signer, open_verifier, public_key_path


@pytest.fixture
def key(tmp_path):
    return tmp_path / "keys" / "promoter.pem"


def test_signer_when_first_used_then_creates_a_key_that_only_its_owner_reads(key):
    signature = open_signer(key).sign(b"bundle")
    assert key.stat().st_mode & 0o777 == 0o600
    open_verifier(public_key_path(key)).verify(b"bundle", signature, "record 1")


def test_signer_when_opened_again_then_is_the_same_key(key):
    assert open_signer(key).sign(b"x") == open_signer(key).sign(b"x")


@pytest.mark.parametrize("message, signature", [(b"other", None), (b"bundle", "00" * 64), (b"bundle", "no hex")])
def test_verifier_when_message_or_signature_differ_then_refuses_by_name(key, message, signature):
    signed = open_signer(key).sign(b"bundle")
    with pytest.raises(SignatureError, match="record 1"):
        open_verifier(public_key_path(key)).verify(message, signature or signed, "record 1")


def test_signer_when_others_may_read_the_key_then_refuses(key):
    open_signer(key)
    key.chmod(0o644)
    with pytest.raises(InputError, match="644"):
        open_signer(key)


def test_signer_when_private_half_is_lost_then_makes_no_new_one(key):
    open_signer(key)
    key.unlink()
    with pytest.raises(InputError, match="is gone"):
        open_signer(key)


def test_signer_when_file_is_no_key_then_says_so(key):
    key.parent.mkdir(parents=True)
    key.write_text("not a key")
    key.chmod(0o600)
    with pytest.raises(InputError, match="PEM"):
        open_signer(key)
