"""Order port and admin plane behind TLS: certificates alone count, and each subject for what it is."""

import asyncio
import ssl

import httpx
import pytest
import yaml
from certificates import Authority
from gateway_process import Desk
from gateway_served import Served

from serving.gateway.config import ConfigError
from serving.gateway.gateway_metrics import GatewayCollector
from serving.wire.frames import Hello
from serving.wire.identity import client_tls
from serving.wire.link import connect

SCRAPE = "scrape" * 8


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(tmp_path_factory, authority):
    certificate, key = authority.issue("gateway", "Shortfall")
    tls = {"certificate": certificate, "key": key, "authority": authority.certificate}
    token = tmp_path_factory.mktemp("metrics") / "token"
    token.write_text(SCRAPE)
    served = Served(tmp_path_factory.mktemp("tls"), metrics_token_file=token, **tls)
    folder = served.files.folder
    people = {
        "people": [
            {"subject": "CN=Ann Lee,O=Risk", "scopes": ["read", "kill", "risk", "arm"]},
            {"subject": "CN=Bob,O=Risk", "scopes": ["read", "risk"]},
            {"subject": "CN=monitor,O=Ops", "scopes": ["read"]},
            {"subject": "CN=risk-model,O=Models", "scopes": ["posture"], "runs_model": True},
        ]
    }
    (folder / "people.yaml").write_text(yaml.safe_dump(people))
    subject = "commonName=parents,organizationName=desk"
    clients = {"clients": [{"account": "main", "strategies": ["policy"], "subject": subject}]}
    (folder / "clients.yaml").write_text(yaml.safe_dump(clients))
    with served:
        yield served


def client(served, authority, name=None, organisation="Risk", signer=None, **headers):
    if name is None:
        context = ssl.create_default_context(cafile=str(authority.certificate))
    else:
        context = client_tls(*(signer or authority).issue(name, organisation), authority.certificate)
    base = f"https://127.0.0.1:{served.process.admin.port}"
    return httpx.Client(base_url=base, verify=context, timeout=20, headers=headers)


def test_subject_decides_what_may_be_done(served, authority):
    with client(served, authority, "Ann Lee") as ann:
        assert ann.get("/v1/state").json()["you"] == {
            "subject": "cn=ann lee,o=risk", "scopes": ["arm", "kill", "read", "risk"],
        }  # fmt: skip
        assert ann.post("/v1/kill", json={"scope": "symbol", "name": "SYN1"}).status_code == 200
        killed = [event for event in served.gateway.state.nodes.values() if event.killed]
        assert [(node.scope, node.name) for node in killed] == [("symbol", "SYN1")]
    with client(served, authority, "monitor", "Ops") as monitor:
        assert monitor.get("/v1/state").status_code == 200
        assert monitor.post("/v1/kill", json={"scope": "all"}).status_code == 403
    with client(served, authority, "risk-model", "Models") as model:
        assert model.post("/v1/kill", json={"scope": "all"}).status_code == 403
        assert model.post("/v1/arm", json={}).status_code == 403
        place = {"scope": "symbol", "name": "SYN1", "factor_bps": 1, "lasts_s": 5}
        assert model.post("/v1/posture", json=place).status_code == 200


def test_metrics_are_for_their_token_and_the_book_is_left_out_where_anybody_could_read_it(served):
    page = f"http://127.0.0.1:{served.process.metrics.port}/metrics"
    assert httpx.get(page).status_code == 401
    text = httpx.get(page, headers={"Authorization": f"Bearer {SCRAPE}"}).text
    book = {"position_lots", "realised", "unrealised", "limit_used_ratio"}
    assert all(f"# TYPE shortfall_gateway_{name} " in text for name in book)
    process = served.process
    for shows in (True, False):
        shown = GatewayCollector(served.service, process.seen, process.alerts, shows).collect()
        names = {metric.name.removeprefix("shortfall_gateway_") for metric in shown}
        assert names & book == (book if shows else set()) and {"armed", "open_orders", "killed"} <= names


def test_process_s_own_certificate_commands_nothing(served):
    path = served.files.folder / "people.yaml"
    before = path.read_text()
    path.write_text(yaml.safe_dump({"people": [{"subject": "CN=Gateway,O=shortfall", "scopes": ["kill"]}]}))
    try:
        with pytest.raises(ConfigError, match="the gateway's own, no person"):
            served.service.reloading.read()
    finally:
        path.write_text(before)


def test_two_certificates_of_one_subject_are_one_person(served, authority):
    limits = (served.files.folder / "limits.yaml").read_text()
    kind = {"Content-Type": "application/yaml"}
    with client(served, authority, "Ann Lee") as one, client(served, authority, "ANN  LEE", "risk") as two:
        change = one.post("/v1/limits/propose", content=limits, headers=kind).json()["change"]
        assert one.post("/v1/limits/approve", json={"change": change}).json() == {"holds": False}
        assert two.post("/v1/limits/approve", json={"change": change}).status_code == 403
    with client(served, authority, "Bob") as bob:
        assert bob.post("/v1/limits/approve", json={"change": change}).json() == {"holds": True}


@pytest.mark.parametrize(
    ("name", "organisation"),
    [("Eve", "Risk"), ("Ann Lee", "Desk"), ("parents", "desk"), ("Ann Lee,O=Risk", "Desk"), ("Ann Lee", "Risk,OU=x")],
)
def test_subject_that_is_not_known_is_nobody(served, authority, name, organisation):
    with client(served, authority, name, organisation) as other:
        assert other.get("/v1/state").status_code == 401
        assert other.post("/v1/kill", json={"scope": "all"}).status_code == 401


def test_token_over_tls_counts_for_nothing(served, authority):
    token = {"Authorization": f"Bearer {served.files.admin_tokens['ann']}"}
    with client(served, authority, "Ann Lee", **token) as ann:
        assert ann.get("/v1/state").status_code == 401


def test_no_certificate_or_another_authoritys_does_not_get_in(served, authority, tmp_path):
    with client(served, authority) as nobody, pytest.raises(httpx.TransportError):
        nobody.get("/v1/state")
    stranger = Authority(tmp_path, "another authority")
    with client(served, authority, "Ann Lee", signer=stranger) as forged, pytest.raises(httpx.TransportError):
        forged.get("/v1/state")
    with pytest.raises(httpx.TransportError):  # no plain HTTP either
        httpx.get(f"http://127.0.0.1:{served.process.admin.port}/v1/state")


def test_order_port_takes_certificates_bound_to_account_and_strategies(served, authority):
    port = served.service.ports["order"]

    async def enter(name, organisation, account="main", strategies=("policy",), token=""):
        tls = client_tls(*authority.issue(name, organisation), authority.certificate)
        hello = Hello(account=account, strategies=strategies, token=token)
        line = await connect(Desk(token), hello, "127.0.0.1", port, tls)
        line.close("done")
        return line.welcomed.result().subject

    assert "parents" in asyncio.run(enter("parents", "desk"))
    for refused in (
        enter("Ann Lee", "Risk"), enter("parents", "desk", account="other"), enter("parents", "other"),
        enter("parents", "desk", strategies=("twap",)), enter("parents", "desk", token=served.files.client_token),
    ):  # fmt: skip
        with pytest.raises(ConnectionError):
            asyncio.run(refused)
