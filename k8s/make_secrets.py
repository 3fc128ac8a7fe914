"""Make the secrets that k8s/secrets.yaml declares: `make_secrets.py OVERLAY [--rotate WHAT]... [--set WHAT=VALUE]...`.

Writes `build/secrets/<overlay>/`: `secrets.yaml` with the Secrets to apply, the authority that signs certificates, and
`people/` with a certificate for each person. What is there is kept, so a second run changes nothing but certificates
that end within 30 days. `--rotate NAMESPACE/SECRET[/KEY]` (or `authority`) makes anew what was made at random;
`--set NAMESPACE/SECRET/KEY=VALUE` (`=@FILE` for a file's content) gives what somebody outside gives. The folder is kept
as a key is kept: outside git, readable by its owner alone.
"""

import argparse
import base64
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = Path(__file__).resolve().parents[1]
LIFETIME, RENEWED_BEFORE = timedelta(days=397), timedelta(days=30)
"""Of a certificate; the authority lives ten times as long."""
REFERENCE = re.compile(r"\$\{([^}]+)\}")
SITE = "site/"
"""A name of this kind is a value of the overlay's site.yaml."""
Place = tuple[str, str, str]  # namespace, secret, key


class SecretsError(Exception):
    """A declaration, or a command, that cannot be met; the message names the value."""


class Authority:
    """Signs certificates. Kept in one file, key and certificate, PEM."""

    def __init__(self, pem: str) -> None:
        self.certificate = x509.load_pem_x509_certificate(pem.encode())
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SecretsError(f"the authority's key is a {type(key).__name__}, wanted an elliptic curve key")
        self._key, self.pem = key, pem

    @classmethod
    def create(cls) -> "Authority":
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shortfall")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = (
            _builder(name, name, key.public_key(), 10 * LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(_private_pem(key) + _public_pem(builder.sign(key, hashes.SHA256())))

    def issue(self, subject: str, names: list[str]) -> dict[str, str]:
        """`tls.crt`, `tls.key` and `ca.crt` for this common name, good for a server of these names and for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        hosts = [x509.DNSName(host) for host in names or [subject]]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(name, self.certificate.subject, key.public_key(), LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(own, critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return {"tls.crt": _public_pem(signed), "tls.key": _private_pem(key), "ca.crt": _public_pem(self.certificate)}

    def is_current(self, content: Mapping[str, str], subject: str, names: list[str]) -> bool:
        """Whether a certificate is still this authority's, for this subject and names, and not soon at its end."""
        if set(content) != {"tls.crt", "tls.key", "ca.crt"}:
            return False
        found = x509.load_pem_x509_certificate(content["tls.crt"].encode())
        try:
            found.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        hosts = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            found.subject.rfc4514_string() == f"CN={subject}"
            and hosts.get_values_for_type(x509.DNSName) == (names or [subject])
            and found.not_valid_after_utc - datetime.now(UTC) > RENEWED_BEFORE
        )


class Maker:
    """Works the declaration out, each value once, keeping what was made before."""

    def __init__(
        self,
        declared: Mapping[str, Any],
        overlay: str,
        kept: Mapping[Place, str],
        authority: Authority,
        rotated: list[str],
        given: Mapping[Place, str],
        site: Mapping[str, str] | None = None,
    ) -> None:
        # a secret may be declared once for some overlays and otherwise for others
        ordered = sorted(declared["secrets"], key=lambda item: overlay in item.get("overlays", [overlay]))
        self._items = {(item["namespace"], item["name"]): item for item in ordered}
        self._overlay, self._kept, self._authority = overlay, kept, authority
        self._rotated, self._given, self._site = rotated, given, dict(site or {})
        self._values: dict[Place, str] = {}
        self.made: list[str] = []
        self.missing: list[str] = []
        places = [(*owner, key) for owner, item in self._items.items() for key in self._keys(item)]
        paths = {"/".join(place[:count]) for place in places for count in (2, 3)}
        for what in rotated:
            if what != "authority" and what not in paths:
                raise SecretsError(f"--rotate {what}: no such secret; there are {', '.join(sorted(paths))}")
        for place in given:
            if place not in places:
                raise SecretsError(f"--set {'/'.join(place)}: no such key of a secret")

    def secrets(self) -> dict[tuple[str, str], dict[str, str]]:
        """Every secret that the overlay needs, by namespace and name."""
        found = {}
        for owner, item in self._items.items():
            if self._overlay in item.get("overlays", [self._overlay]):
                found[owner] = {key: self._value((*owner, key)) for key in self._keys(item)}
        return found

    def _keys(self, item: Mapping[str, Any]) -> list[str]:
        return ["tls.crt", "tls.key", "ca.crt"] if "certificate" in item else list(item["keys"])

    def _value(self, place: Place) -> str:
        if place not in self._values:
            item = self._items.get(place[:2])
            if item is None:
                raise SecretsError(f"k8s/secrets.yaml refers to {'/'.join(place)}, which it does not declare")
            if "certificate" in item:
                self._certificate(place[:2], item["certificate"])
            else:
                rule = item["keys"].get(place[2])
                if rule is None:
                    raise SecretsError(f"k8s/secrets.yaml refers to {'/'.join(place)}, which it does not declare")
                self._values[place] = self._made(place, rule)
        return self._values[place]

    def _made(self, place: Place, rule: Mapping[str, Any]) -> str:
        if place in self._given:
            return self._given[place]
        if len(rule) != 1:
            raise SecretsError(f"k8s/secrets.yaml: {'/'.join(place)}: {dict(rule)} must say one thing")
        ((how, what),) = rule.items()
        if how == "text":
            return REFERENCE.sub(lambda match: self._value(_place(match[1])), what)
        if how == "same":
            return self._value(_place(what))
        if how == "sha256":
            return hashlib.sha256(self._value(_place(what)).encode()).hexdigest()
        if how == "given":
            if place not in self._kept:
                self.missing.append(f"{'/'.join(place)}: {what}")
                return ""
            return self._kept[place]
        if how == "signing" and what == "public":
            return _public_half(self._signing_key())
        if self._is_kept(place):
            return self._kept[place]
        self.made.append("/".join(place))
        if how == "random":
            return secrets.token_hex((what + 1) // 2)[:what]
        if how == "base64":
            return base64.b64encode(secrets.token_bytes(what)).decode()
        if how == "signing":
            return _private_pem(ed25519.Ed25519PrivateKey.generate())
        raise SecretsError(f"k8s/secrets.yaml: {'/'.join(place)}: unknown rule {how!r}")

    def _signing_key(self) -> str:
        for owner, item in self._items.items():
            for key, rule in item.get("keys", {}).items():
                if rule.get("signing") == "private":
                    return self._value((*owner, key))
        raise SecretsError("k8s/secrets.yaml has a public half of a signing key and no private one")

    def _certificate(self, owner: tuple[str, str], rule: Mapping[str, Any]) -> None:
        names, hosts = ("tls.crt", "tls.key", "ca.crt"), self._hosts(rule["names"])
        old = {key: self._kept[*owner, key] for key in names if (*owner, key) in self._kept}
        given = {key: self._given[*owner, key] for key in names if (*owner, key) in self._given}
        if given:
            content = {**old, **given}
        elif self._is_kept((*owner, "tls.crt")) and self._authority.is_current(old, rule["subject"], hosts):
            content = old
        else:
            content = self._authority.issue(rule["subject"], hosts)
            self.made.append("/".join(owner))
        self._values |= {(*owner, key): content[key] for key in names}

    def _hosts(self, names: list[str]) -> list[str]:
        """DNS names, those of the site in their place."""
        found = []
        for name in names:
            reference = REFERENCE.fullmatch(name)
            if reference is None:
                found.append(name)
            elif self._site:
                key = reference[1].removeprefix(SITE)
                if key not in self._site:
                    raise SecretsError(f"k8s/secrets.yaml: {name}: site.yaml has no {key}")
                found.append(self._site[key])
        return found

    def _is_kept(self, place: Place) -> bool:
        return place in self._kept and not {"/".join(place[:2]), "/".join(place)} & set(self._rotated)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the files are written, 2 for bad usage or a value that somebody must give."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overlay")
    parser.add_argument("--rotate", action="append", default=[], metavar="NAMESPACE/SECRET[/KEY]")
    parser.add_argument("--set", action="append", default=[], metavar="NAMESPACE/SECRET/KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder, build/secrets/OVERLAY where absent")
    options = parser.parse_args(arguments)
    if not (ROOT / "k8s" / "overlays" / options.overlay / "kustomization.yaml").is_file():
        parser.error(f"no overlay {options.overlay}")
    out = options.out or ROOT / "build" / "secrets" / options.overlay
    try:
        return _make(out, options.overlay, options.rotate, options.set)
    except (SecretsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _make(out: Path, overlay: str, rotated: list[str], settings: list[str]) -> int:
    declared = yaml.safe_load((ROOT / "k8s" / "secrets.yaml").read_text())
    signer = out / "authority.pem"
    is_new = not signer.exists() or "authority" in rotated
    authority = Authority.create() if is_new else Authority(signer.read_text())
    kept, given, site = _read(out / "secrets.yaml"), dict(map(_setting, settings)), _site(overlay)
    maker = Maker(declared, overlay, kept, authority, rotated, given, site)
    content = maker.secrets()
    if maker.missing:
        wanted = "\n  ".join(maker.missing)
        raise SecretsError(f"overlay {overlay} needs what is not made here, give each by --set:\n  {wanted}")
    people = out / "people"
    people.mkdir(parents=True, exist_ok=True)
    for folder in (out, people):
        folder.chmod(0o700)
    _write(signer, authority.pem)
    _write(out / "secrets.yaml", yaml.safe_dump_all([_document(*owner, keys) for owner, keys in content.items()]))
    _write(people / "ca.crt", _public_pem(authority.certificate))
    for name in declared["people"]:
        paths = {"tls.crt": people / f"{name}.crt", "tls.key": people / f"{name}.key", "ca.crt": people / "ca.crt"}
        old = {key: path.read_text() for key, path in paths.items() if path.exists()}
        if not authority.is_current(old, name, []):
            maker.made.append(f"people/{name}")
            issued = authority.issue(name, [])
            for key in ("tls.crt", "tls.key"):
                _write(paths[key], issued[key])
    print(f"{out / 'secrets.yaml'}: {len(content)} secrets; made: {', '.join(maker.made) or 'nothing, all were there'}")
    return 0


def _site(overlay: str) -> dict[str, str]:
    """What the overlay's site.yaml says, nothing where it has none."""
    path = ROOT / "k8s" / "overlays" / overlay / "site.yaml"
    return dict(yaml.safe_load(path.read_text())["data"]) if path.is_file() else {}


def _read(path: Path) -> dict[Place, str]:
    documents = yaml.safe_load_all(path.read_text()) if path.exists() else ()
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"], key): value
        for item in documents
        for key, value in item["stringData"].items()
    }


def _document(namespace: str, name: str, content: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "shortfall"}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": content}


def _setting(text: str) -> tuple[Place, str]:
    place, equals, value = text.partition("=")
    if not equals:
        raise SecretsError(f"--set {text}: wanted NAMESPACE/SECRET/KEY=VALUE")
    return _place(place), Path(value[1:]).read_text() if value.startswith("@") else value


def _place(text: str) -> Place:
    parts = text.split("/")
    if len(parts) != 3:
        raise SecretsError(f"{text!r}: wanted NAMESPACE/SECRET/KEY")
    return parts[0], parts[1], parts[2]


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(staged, path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + lifetime)


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


def _public_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _public_half(private: str) -> str:
    key = serialization.load_pem_private_key(private.encode(), password=None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


if __name__ == "__main__":
    sys.exit(main())
