"""What `make secrets` makes: every secret that a manifest names, kept from run to run, and certificates that work."""

import datetime
import importlib.util
import ssl
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from manifests import declared_secrets

from serving.signing import open_signer, open_verifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "k8s" / "make_secrets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp("secrets")
    assert tool.main(["local", "--out", str(out)]) == 0
    return out


def secrets_of(folder):
    documents = yaml.safe_load_all((folder / "secrets.yaml").read_text())
    return {(d["metadata"]["namespace"], d["metadata"]["name"]): d["stringData"] for d in documents}


def test_secrets_when_made_again_then_nothing_changes_and_nobody_else_may_read(tool, made):
    before = {path.name: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert tool.main(["local", "--out", str(made)]) == 0
    assert {path.name: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    for path in [made, *made.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def copied(made, folder):
    for name in ("secrets.yaml", "authority.pem"):
        (folder / name).write_bytes((made / name).read_bytes())
    return folder


def test_secrets_when_made_then_are_those_that_are_declared_key_by_key(made):
    assert {key: set(content) for key, content in secrets_of(made).items()} == declared_secrets("local")
    assert all(value for content in secrets_of(made).values() for value in content.values())


def test_secret_when_rotated_then_it_changes_wherever_it_is_used_and_nothing_else_does(tool, made, tmp_path):
    out = copied(made, tmp_path)
    assert tool.main(["local", "--out", str(out), "--rotate", "shortfall-platform/postgres/feast-password"]) == 0
    before, after = secrets_of(made), secrets_of(out)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("shortfall-platform", "postgres"), ("shortfall-platform", "feast")}
    password = after["shortfall-platform", "postgres"]["feast-password"]
    assert f"feast:{password}@postgres" in after["shortfall-platform", "feast"]["registry-url"]
    assert password != before["shortfall-platform", "postgres"]["feast-password"]


def test_authority_when_rotated_then_every_certificate_is_signed_anew(tool, made, tmp_path):
    out = copied(made, tmp_path)
    tool.main(["local", "--out", str(out), "--rotate", "authority"])
    before, after = secrets_of(made), secrets_of(out)
    owners = [key for key in before if "tls.crt" in before[key]]
    assert len(owners) >= 5
    for key in owners:
        assert before[key]["tls.crt"] != after[key]["tls.crt"]
        leaf, parent = (x509.load_pem_x509_certificate(after[key][part].encode()) for part in ("tls.crt", "ca.crt"))
        leaf.verify_directly_issued_by(parent)


def test_certificate_when_it_soon_ends_then_is_renewed_with_the_same_authority(tool, made, tmp_path, monkeypatch):
    out = copied(made, tmp_path)
    monkeypatch.setattr(tool, "RENEWED_BEFORE", datetime.timedelta(days=400))
    tool.main(["local", "--out", str(out)])
    before, after = (secrets_of(folder)["shortfall-serving", "decide-tls"] for folder in (made, out))
    assert before["tls.crt"] != after["tls.crt"] and before["ca.crt"] == after["ca.crt"]


def test_secret_when_somebody_must_give_it_then_the_command_says_which_and_writes_nothing(tool, tmp_path, capsys):
    declared = {"secrets": [{"namespace": "a", "name": "b", "keys": {"c": {"given": "the venue's logon"}}}]}
    maker = tool.Maker(declared, "local", {}, None, [], {})
    maker.secrets()
    assert maker.missing == ["a/b/c: the venue's logon"]
    given = tool.Maker(declared, "local", {}, None, [], {("a", "b", "c"): "logon"})
    assert given.secrets() == {("a", "b"): {"c": "logon"}} and not given.missing


@pytest.mark.parametrize("arguments", [["--rotate", "nothing"], ["--set", "a=b"], ["--set", "a/b/c=d"]])
def test_secrets_when_a_name_is_unknown_then_ends_with_2_and_writes_nothing(tool, tmp_path, arguments, capsys):
    assert tool.main(["local", *arguments, "--out", str(tmp_path)]) == 2
    assert arguments[1].partition("=")[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_secrets_when_the_overlay_is_unknown_then_ends_with_2(tool, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        tool.main(["nowhere", "--out", str(tmp_path)])
    assert stopped.value.code == 2


def test_certificates_when_made_then_name_their_service_and_two_sides_trust_each_other(made, tmp_path):
    content = secrets_of(made)["shortfall-serving", "gateway-tls"]
    certificate = x509.load_pem_x509_certificate(content["tls.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    assert {"gateway.shortfall-serving.svc", "gateway-admin.shortfall-serving.svc"} <= set(hosts)
    assert certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=398)
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    client.load_cert_chain(made / "people" / "operator-1.crt", made / "people" / "operator-1.key")
    said = handshake(server, client, "gateway-admin.shortfall-serving.svc")
    assert dict(pair[0] for pair in said["subject"])["commonName"] == "operator-1"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, client, "decide.shortfall-serving.svc")


def test_production_s_certificates_when_made_then_name_the_load_balancers_of_its_site(tool):
    declared = yaml.safe_load((tool.ROOT / "k8s" / "secrets.yaml").read_text())
    authority, site = tool.Authority.create(), {"oms-host": "orders.desk.example", "admin-host": "admin.desk.example"}
    place = ("shortfall-serving", "parents-tls", "tls.crt")

    def hosts(known):
        maker = tool.Maker(declared, "production", {}, authority, [], {}, known)
        certificate = x509.load_pem_x509_certificate(maker._value(place).encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)

    assert "orders.desk.example" in hosts(site) and "parents.shortfall-serving.svc" in hosts(site)
    assert not [name for name in hosts({}) if "site" in name or "desk" in name]
    with pytest.raises(tool.SecretsError, match="site.yaml has no oms-host"):
        hosts({"admin-host": "admin.desk.example"})


def handshake(server, client, host):
    """The client's certificate as the server sees it, over buffers in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return there.getpeercert()


def test_promoter_when_its_key_signs_then_the_public_half_that_serving_gets_verifies(made, tmp_path):
    content = secrets_of(made)
    private = tmp_path / "promoter.pem"
    private.write_text(content["shortfall-flows", "promoter-key"]["promoter.pem"])
    private.chmod(0o600)
    public = tmp_path / "served.pub"
    public.write_text(content["shortfall-serving", "promoter-public-key"]["promoter.pub"])
    open_verifier(public).verify(b"what", open_signer(private).sign(b"what"), "a record")
    holders = [key for key, value in content.items() if any("promoter.pem" in name for name in value)]
    assert holders == [("shortfall-flows", "promoter-key")]  # no process that serves or trains can sign
    assert load_pem_private_key(private.read_bytes(), password=None)
