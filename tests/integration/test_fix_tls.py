"""FIX over TLS with real certificates: who may log on as whom, and what an initiator believes to be its venue."""

import contextlib
import socket
import ssl

import pytest
from certificates import Authority
from fix_peers import Notes, RawEnd, free_port, until

from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import Tag, build
from serving.wire.fix_session import FixAcceptor, FixDownError, FixInitiator
from serving.wire.fix_settings import FixSettings, FixTls
from serving.wire.identity import hash_token

PEERS = ("GATE", "OMS", "SWITCH", "KNOCK", "AGAIN")
TOKEN = "a password beside the certificate"


def subject(name):
    return f"commonName={name.lower()},organizationName=desk"


def called(port, context):
    """A connection under TLS."""
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")


class Venue:
    """An acceptor over TLS for a few peers, each bound to the certificate of its name."""

    def __init__(self, folder):
        self.authority, self.folder, self.port = Authority(folder), folder, free_port()
        self.notes = Notes()
        self.application = GuardedApplication(self.notes)
        tls = FixTls(
            *self.authority.issue("venue"), self.authority.certificate, tuple((peer, subject(peer)) for peer in PEERS)
        )
        self.acceptor = FixAcceptor(
            self.application, FixSettings("VENUE", PEERS, folder / "venue", self.port, heartbeat_s=1, tls=tls)
        )

    def refusal(self, count):
        until(lambda: self.acceptor.line.refusals >= count, "the refusal")
        return self.acceptor.line.last_refusal

    @property
    def refusals(self):
        return self.acceptor.line.refusals

    @contextlib.contextmanager
    def client(self, name, me, issuer=None, **how):
        """A foreign engine with the certificate of `name` that says it is `me`."""
        files = (issuer or self.authority).issue(name, **how)
        with called(self.port, FixTls(*files, self.authority.certificate).context(server=False)) as secure:
            yield RawEnd(secure, me, "VENUE")

    def turned_away(self, name, me, issuer=None, **how):
        """What the line says of a client that is refused."""
        before = self.refusals
        with contextlib.suppress(OSError), self.client(name, me, issuer, **how) as end:
            end.send("A", [(98, 0), (108, 5)])
            assert end.closed()
        return self.refusal(before + 1)


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    venue = Venue(tmp_path_factory.mktemp("tls"))
    venue.acceptor.start()
    yield venue
    assert not venue.notes.failures
    venue.acceptor.stop()


def test_certificate_logs_on_as_its_own_comp_id_and_messages_pass_unchanged(venue):
    with venue.client("oms", "OMS") as oms:
        oms.send("A", [(98, 0), (108, 30)])
        assert oms.receive("A")["56"] == "OMS"
        for number in range(200):
            oms.send("D", [(11, f"x{number}"), (58, "\xe9 1=2 8=FIX")])
        oms.send("1", [(112, "all")])
        assert oms.receive("0")["112"] == "all"
        taken = [fields for fields in venue.notes.messages if fields._values["49"] == "OMS"]
        assert [fields._values["11"] for fields in taken] == [f"x{number}" for number in range(200)]
        venue.acceptor.send("OMS", build("8", {Tag.TEXT: "back"}))
        assert oms.receive("8")["58"] == "back"
        oms.send("5")
        assert oms.receive("5")["35"] == "5" and oms.closed()
    until(lambda: not venue.application.is_up("OMS"))


@pytest.mark.parametrize(
    ("name", "me", "reason"),
    [
        ("oms", "GATE", f"{subject('oms')} logs on as 'GATE', which is {subject('gate')}"),
        ("decide", "OMS", f"{subject('decide')} logs on as 'OMS', which is {subject('oms')}"),
        ("venue", "OMS", f"{subject('venue')} logs on as 'OMS', which is {subject('oms')}"),
        ("OMS", "OMS", f"commonName=OMS,organizationName=desk logs on as 'OMS', which is {subject('oms')}"),
        ("eve", "EVE", f"{subject('eve')} logs on as 'EVE' to 'VENUE', no session of VENUE"),
        ("oms,organizationName=desk", "OMS", "which is commonName=oms,organizationName=desk"),
    ],
)
def test_other_certificate_of_the_same_authority_is_not_that_comp_id(venue, name, me, reason):
    events = list(venue.notes.events)
    assert reason in venue.turned_away(name, me)
    assert venue.notes.events == events  # QuickFIX has not heard of it


def test_certificate_that_is_none_or_over_or_another_authority_s_does_not_get_in(venue, tmp_path):
    assert "certificate has expired" in venue.turned_away("oms", "OMS", expired=True)
    stranger = Authority(tmp_path, "stranger")
    assert "certificate verify failed" in venue.turned_away("oms", "OMS", stranger)
    before = venue.refusals
    nobody = ssl.create_default_context(cafile=str(venue.authority.certificate))
    with contextlib.suppress(OSError), called(venue.port, nobody) as secure:
        RawEnd(secure, "OMS", "VENUE").send("A", [(98, 0), (108, 5)])
        assert not secure.recv(10)
    assert "did not return a certificate" in venue.refusal(before + 1)
    with socket.create_connection(("127.0.0.1", venue.port), 10) as plain:
        end = RawEnd(plain, "OMS", "VENUE")
        end.send("A", [(98, 0), (108, 5)])
        assert end.closed()
    venue.refusal(before + 2)
    assert not venue.application.is_up("OMS")


def test_comp_id_that_changes_behind_the_logon_is_refused_by_quickfix(venue):
    with venue.client("switch", "SWITCH") as end:
        end.send("A", [(98, 0), (108, 30)])
        end.receive("A")
        end.me = "GATE"
        end.send("D", [(11, "stolen")])
        assert end.receive("3")["58"].startswith("CompID problem")
        assert end.receive("5") and end.closed()
    until(lambda: not venue.application.is_up("SWITCH"))
    assert "stolen" not in venue.notes.values("11") and not venue.application.is_up("GATE")


@pytest.mark.parametrize("field", [("+49", "GATE"), ("049", "GATE")])
def test_logon_that_would_end_quickfix_s_process_does_not_reach_it(venue, field):
    before = venue.refusals
    with venue.client("oms", "OMS") as end:
        end.send("A", [(98, 0), (108, 30), field])
        assert end.closed()
    assert "is no tag" in venue.refusal(before + 1)


def test_logon_within_a_session_that_would_reset_its_numbers_is_turned_away(venue):
    with venue.client("again", "AGAIN") as end:
        end.send("A", [(98, 0), (108, 30)])
        end.receive("A")
        end.send("A", [(98, 0), (108, 30), (141, "Y")], sequence=1)
        assert end.receive("5") and end.closed()
    until(lambda: not venue.application.is_up("AGAIN"))


@pytest.mark.parametrize("knows_address", [False, True], ids=["any address", "the line's own address"])
def test_logon_that_did_not_come_through_the_line_is_turned_away(venue, knows_address):
    line = venue.acceptor.line
    for fields in ([(98, 0), (108, 5)], [(98, 0), (108, 5), (5703, "0" * 32)]):
        source = (line._source if knows_address else "127.0.0.1", 0)
        with socket.create_connection(line._inner, 10, source) as plain:
            end = RawEnd(plain, "KNOCK", "VENUE")
            end.send("A", fields)
            assert end.closed()
    assert not venue.application.is_up("KNOCK")


def test_initiator_logs_on_sends_and_connects_again_after_a_cut(venue, tmp_path):
    tls = FixTls(*venue.authority.issue("gate"), venue.authority.certificate, (("VENUE", subject("venue")),))
    gate = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path, venue.port, heartbeat_s=1, tls=tls))
    gate.start()
    until(lambda: gate.is_up, "logon over TLS")
    gate.send(build("D", {Tag.CL_ORD_ID: "1"}))
    assert gate.barrier(10)
    for pipe in list(gate.line._pipes):
        pipe.abort()
    until(lambda: not gate.is_up, "the cut")
    with pytest.raises(FixDownError):
        gate.send(build("D", {Tag.CL_ORD_ID: "lost"}))
    until(lambda: gate.is_up and venue.application.is_up("GATE"), "logon after the cut")
    gate.send(build("D", {Tag.CL_ORD_ID: "2"}))
    assert gate.barrier(10)
    gate.stop()
    mine = [fields._values["11"] for fields in venue.notes.messages if fields._values["49"] == "GATE"]
    assert mine == ["1", "2"]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"server_name": "fix.venue.example.com"}, "Hostname mismatch"),
        ({"subjects": (("VENUE", subject("exchange")),)}, f"is {subject('venue')}, not {subject('exchange')}"),
    ],
)
def test_initiator_does_not_believe_any_server_of_its_authority(venue, tmp_path, how, error):
    tls = FixTls(*venue.authority.issue("gate"), venue.authority.certificate, **how)
    heard = len(venue.notes.events)
    gate = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path, venue.port, heartbeat_s=1, tls=tls))
    gate.start()
    until(lambda: gate.line.refusals, "the refusal")
    assert error in gate.line.last_refusal.replace("IP address mismatch", "Hostname mismatch")
    assert not gate.is_up and len(venue.notes.events) == heard
    gate.stop()


def test_certificate_and_password_are_both_asked_for_where_both_are_given(tmp_path):
    authority, notes = Authority(tmp_path), Notes()
    tls = FixTls(*authority.issue("venue"), authority.certificate, (("TOKEN", subject("token")),))
    settings = FixSettings("VENUE", ("TOKEN",), tmp_path / "venue", free_port(), heartbeat_s=1, tls=tls)
    acceptor = FixAcceptor(GuardedApplication(notes, tokens={"TOKEN": hash_token(TOKEN)}), settings)
    acceptor.start()
    own = FixTls(*authority.issue("token"), authority.certificate)
    right = FixSettings("TOKEN", ("VENUE",), tmp_path / "right", settings.port, heartbeat_s=1, tls=own)
    gate = FixInitiator(Notes(), right, TOKEN)
    gate.start()
    until(lambda: gate.is_up, "logon with both")
    gate.stop()
    until(lambda: notes.events == ["on", "out"])
    with called(settings.port, own.context(server=False)) as secure:
        end = RawEnd(secure, "TOKEN", "VENUE")
        end.send("A", [(98, 0), (108, 5)], sequence=100)
        assert end.receive("5") and end.closed()
    assert notes.events == ["on", "out"]
    acceptor.stop()


def test_acceptor_over_tls_needs_the_subject_of_every_peer(tmp_path):
    authority = Authority(tmp_path)
    tls = FixTls(*authority.issue("venue"), authority.certificate, (("GATE", subject("gate")),))
    settings = FixSettings("VENUE", ("GATE", "OMS"), tmp_path / "v", free_port(), tls=tls)
    with pytest.raises(ValueError, match="TLS without the subject of OMS"):
        FixAcceptor(GuardedApplication(Notes()), settings)
    with pytest.raises(ValueError, match="given for GATE, which is no peer"):
        FixSettings("VENUE", ("OMS",), tmp_path / "v", free_port(), tls=tls)
