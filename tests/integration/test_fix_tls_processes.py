"""The processes' FIX sessions over TLS: gateway to venue and its drop copy, the OMS to parents, by certificate."""

import asyncio
import contextlib
import json
import socket
import time

import pytest
import yaml
from certificates import Authority
from fix_peers import RawEnd
from gateway_process import Desk, Trading
from parents_process import ACCOUNT, settings_for
from pydantic import ValidationError
from test_parents_inbound import Nowhere, served

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Filled
from serving.wire.identity import client_tls, hash_token
from training.market.venue.settings import VenueSettings

SUBJECT = "commonName=%s,organizationName=desk"


@contextlib.contextmanager
def trading(folder, subjects):
    """Venue and gateway with every line between them under TLS; `subjects` of the gateway's sessions at the venue."""
    authority = Authority(folder)
    certificate, key = authority.issue("venue")
    words = (f"--certificate={certificate}", f"--key={key}", f"--authority={authority.certificate}")
    desk = Trading(folder, venue_words=(*words, f"--subjects={json.dumps(subjects)}"))
    files = dict(zip(("certificate", "key"), map(str, authority.issue("gateway")), strict=True))
    files["authority"] = str(authority.certificate)
    path = desk.files.folder / "venues.yaml"
    document = yaml.safe_load(path.read_text())
    entry = document["venues"]["SYN"]
    for session in (entry["fix"], entry["drop_copy"]):
        session |= {**files, "subject": SUBJECT % "venue"}
    entry["feed"] |= {**files, "url": entry["feed"]["url"].replace("ws://", "wss://")}
    path.write_text(yaml.safe_dump(document))
    desk.start_venue()
    desk.start_gateway()
    try:
        yield desk
    finally:
        desk.__exit__()


def test_gateway_trades_over_tls_and_its_drop_copy_agrees(tmp_path):
    with trading(tmp_path, {"GATEWAY": SUBJECT % "gateway", "DROPCOPY": SUBJECT % "gateway"}) as both:
        both.armed()  # reconciled: sessions, drop copy and feed are up

        async def go():
            desk = await Desk(both.files.client_token).open(both.ports["order"])
            while not isinstance(await desk.ask(desk.order(lots=3)), Allowed):
                await asyncio.sleep(0.1)  # the windows of messages are full after a start
            await desk.until(lambda: desk.filled == 3, "the fill")
            desk.line.close("done")
            return desk.of(Filled)

        fills = asyncio.run(go())
        copy = both.state / "drop-copy-SYN.jsonl"
        both.gateway.wait_for(lambda: fills[-1].exec_id in copy.read_text(), "the drop copy")
        assert "GATEWAY" in both.venue.said() and "refused" not in both.venue.said()


@pytest.mark.slow
def test_gateway_whose_certificate_is_another_s_is_not_let_in_and_never_arms(tmp_path):
    with trading(tmp_path, {"GATEWAY": SUBJECT % "exchange member", "DROPCOPY": SUBJECT % "gateway"}) as both:
        both.venue.wait_for(lambda: "which is commonName=exchange member" in both.venue.said(), "the refusal")
        time.sleep(2)
        assert "armed without a person" not in both.gateway.said()


@pytest.mark.parametrize("token", ["", "an OMS's password beside its certificate"])
def test_oms_sends_parents_over_tls_by_its_certificate_and_nobody_else_does(tmp_path, token):
    made = Authority(tmp_path)
    certificate, key = made.issue("parents")
    peer = {"account": ACCOUNT, "subject": SUBJECT % "oms", "token_sha256": hash_token(token) if token else ""}
    tls = {"certificate": certificate, "key": key, "authority": made.certificate}
    clients = {"oms": {"account": ACCOUNT, "subject": SUBJECT % "oms"}}
    configured = settings_for(tmp_path, Nowhere(), fix_peers={"OMS": peer}, clients=clients, decide_wait_s=0.0, **tls)

    def call(service, name, password, sequence):
        context = client_tls(*made.issue(name), made.certificate)
        line = socket.create_connection(("127.0.0.1", service.ports["fix"]), 20)
        end = RawEnd(context.wrap_socket(line, server_hostname="127.0.0.1"), "OMS", "PARENTS")
        end.sequence = sequence
        end.send("A", [(98, "0"), (108, "30"), *([(554, password)] if password else [])])
        return end

    def ask(service):
        for name in ("decide", "parents", "gateway"):
            with contextlib.suppress(OSError):  # the line is closed, however that shows
                assert call(service, name, token, 1).closed()
        oms = call(service, "oms", token, 1)
        assert oms.receive("A")["49"] == "PARENTS"
        oms.send("H", [(11, "nothing"), (55, "SYN1"), (54, "1"), (790, "q")])
        assert oms.receive("8")["58"] == "the order is unknown"
        oms.send("5")
        oms.receive("5")
        oms.connection.close()
        if token:
            assert call(service, "oms", "", 100).closed()

    async def run():
        async with served(configured) as service:
            service.alert, told = lambda what, message: told.append(f"{what} {message}"), []
            await asyncio.to_thread(ask, service)
            reason = f"{SUBJECT} logs on as 'OMS', which is {SUBJECT % 'oms'}"
            assert [alert for alert in told if alert.startswith("intruder")] == [
                f"intruder FIX PARENTS: 127.0.0.1 is refused: {reason % name}"
                for name in ("decide", "parents", "gateway")
            ]

    asyncio.run(run())


def test_settings_that_would_leave_a_session_to_any_certificate_are_refused(tmp_path):
    tls = dict.fromkeys(("certificate", "key", "authority"), tmp_path / "x.pem")
    bare = {"OMS": {"account": ACCOUNT, "token_sha256": "a" * 64}}
    clients = {"oms": {"account": ACCOUNT, "subject": "commonName=oms"}}
    with pytest.raises(ValidationError, match="FIX peer OMS has no subject: any certificate could be it"):
        settings_for(tmp_path, Nowhere(), fix_peers=bare, clients=clients, **tls)
    named = {"OMS": {**bare["OMS"], "subject": "commonName=oms"}}
    with pytest.raises(ValidationError, match="FIX peer OMS has a subject, and there is no TLS"):
        settings_for(tmp_path, Nowhere(), fix_peers=named)
    with pytest.raises(ValidationError, match="subjects of GATEWAY, wanted of DROPCOPY, GATEWAY"):
        VenueSettings(drop_copy="DROPCOPY", subjects={"GATEWAY": "commonName=gateway"}, **tls)
    with pytest.raises(ValidationError, match="subjects of GATEWAY, wanted none without TLS"):
        VenueSettings(subjects={"GATEWAY": "commonName=gateway"})
