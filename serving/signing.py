"""Ed25519 signatures over promotion records: the promoter signs, every loader of a champion verifies."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.errors import InputError, ShortfallError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class SignatureError(ShortfallError):
    """A record's signature is not the promoter's, or what it signs has been changed since."""


class Signer:
    """Holds the promoter's private key; created by `open_signer` alone."""

    def __init__(self, private_key: "Ed25519PrivateKey") -> None:
        """Wrap a loaded key."""
        self._private_key = private_key

    def sign(self, message: bytes) -> str:
        """Detached signature of `message`, 128 hex digits."""
        return self._private_key.sign(message).hex()


class Verifier:
    """Checks signatures against one public key."""

    def __init__(self, public_key: "Ed25519PublicKey", path: Path) -> None:
        """Wrap a loaded key; `path` names it in messages."""
        self._public_key = public_key
        self._path = path

    def verify(self, message: bytes, signature_hex: str, what: str) -> None:
        """Return when `signature_hex` is this key's over `message`; raise SignatureError naming `what` otherwise."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public_key.verify(bytes.fromhex(signature_hex), message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"{what}: signature {signature_hex[:16]!r}... is not by the key {self._path}; refused, promote again"
            ) from error


def public_key_path(private_key_path: Path) -> Path:
    """Where the public half of the pair lies: the same name with the suffix `.pub`."""
    return private_key_path.with_suffix(".pub")


def open_signer(private_key_path: Path) -> Signer:
    """Load the promoter's private key, creating the pair on first use (private half readable by its owner only).

    Raises InputError when the file is no Ed25519 key in PEM form, when others may read it, or when the public half
    stands alone (a lost private key is replaced by a person, never silently).
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not private_key_path.exists():
        _create_pair(private_key_path)
    if not _is_guarded(private_key_path):
        mode = private_key_path.stat().st_mode & 0o777
        raise InputError(f"{private_key_path}: mode {mode:o} lets others read the key, the limit is 600; chmod 600 it")
    try:
        key = load_pem_private_key(private_key_path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{private_key_path}: not an unencrypted PEM private key ({error}); restore it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{private_key_path}: holds a {type(key).__name__}, wanted an Ed25519 private key")
    _write_public(key.public_key(), public_key_path(private_key_path))
    return Signer(key)


def _is_guarded(path: Path) -> bool:
    """Whether nobody else reads the file: its owner alone, or this process through the group of a mounted secret.

    Kubernetes gives a secret's files to root and lets the pod's own group read them (fsGroup): 440, never 400.
    """
    status = path.stat()
    shared = status.st_mode & 0o077
    return shared == 0 or (shared == 0o040 and status.st_uid != os.geteuid() and not os.access(path, os.W_OK))


def open_verifier(path: Path) -> Verifier:
    """Load a public key in PEM form; raises InputError where it is absent or of another kind."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable public key ({error}); give the promoter's .pub file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: holds a {type(key).__name__}, wanted an Ed25519 public key")
    return Verifier(key, path)


def _create_pair(private_key_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    public = public_key_path(private_key_path)
    if public.exists():
        raise InputError(f"{private_key_path}: is gone but {public} stands; restore the private key, or remove both")
    private_key_path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    staged = private_key_path.with_name(f".{private_key_path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, private_key_path)


def _write_public(key: "Ed25519PublicKey", path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if path.exists() and path.read_bytes() == pem:
        return
    if path.exists():
        raise InputError(f"{path}: is not the public half of the private key beside it; restore the pair")
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(pem)
    os.replace(staged, path)
