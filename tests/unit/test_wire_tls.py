"""TLS before FIX, without QuickFIX: pipes under pressure and half-closed, first messages that are none, bounds."""

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import simplefix
from certificates import Authority
from fix_peers import until
from hypothesis import given
from hypothesis import strategies as st

from serving.wire.fix_settings import FixTls
from serving.wire.tls_line import TOLD_EVERY_S, TOLD_MOST, Bounds, TlsAcceptorLine, TlsInitiatorLine, is_own
from serving.wire.tls_logon import LOGON_MAX, LogonError, comp_ids, read_logon, with_secret
from serving.wire.tls_pipe import BUFFER, Pipe, TlsEnd

SUBJECTS = {"GATE": "commonName=gate,organizationName=desk"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority):
    venue, gate = authority.issue("venue"), authority.issue("gate")
    return FixTls(*venue, authority.certificate), FixTls(*gate, authority.certificate)


def logon(sender="GATE", target="VENUE", more=(), kind="A", heartbeat=5):
    message = simplefix.FixMessage()
    for tag, value in ((8, "FIX.4.4"), (35, kind), (49, sender), (56, target), (34, 1), (52, "20250106-10:00:00")):
        message.append_pair(tag, value, header=True)
    for tag, value in ((98, 0), (108, heartbeat), *more):
        message.append_pair(tag, value)
    return message.encode()


def logon_with(tag):
    """A Logon with a field of a tag that simplefix would not write."""
    return with_secret(logon(), "x").replace(b"\x015703=", b"\x01%s=" % tag)


def in_parts(*parts):
    left = list(parts)
    return lambda: left.pop(0) if left else b""


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), 10)
        far, _ = listener.accept()
    far.settimeout(10)
    return near, far


# The pipe -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def piped(tls):
    """A client under TLS, the plain socket behind the pipe that it speaks to, and the pipe's thread."""
    near, far = tcp_pair()
    inner, plain = tcp_pair()

    def run():
        end = TlsEnd(far, tls[0].context(server=True), server=True)
        end.handshake(time.monotonic() + 5)
        Pipe(end, inner, b"first").run()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client = TlsEnd(near, tls[1].context(server=False), server=False, name="127.0.0.1")
    client.handshake(time.monotonic() + 5)
    try:
        assert plain.recv(5) == b"first"
        yield client, plain, thread
    finally:
        for sock in (near, far, inner, plain):
            sock.close()


def received(client, size):
    found = b""
    while len(found) < size and (data := client.receive(time.monotonic() + 10)):
        found += data
    return found


def test_bytes_pass_unchanged_both_ways_however_many_there_are(tls):
    with piped(tls) as (client, plain, _):
        blob = bytes(range(256)) * 4096  # more than every buffer on the way together
        sender = threading.Thread(target=plain.sendall, args=(blob,), daemon=True)
        sender.start()
        assert received(client, len(blob)) == blob
        client.put(blob)
        client.sock.setblocking(False)
        back = b""
        while len(back) < len(blob):
            client.flush()
            back += plain.recv(1 << 16)
        assert back == blob


def test_side_that_reads_nothing_holds_the_other_one_back(tls):
    with piped(tls) as (client, plain, _):
        plain.setblocking(False)
        sent, full_since = 0, time.monotonic()
        while time.monotonic() - full_since < 0.3:
            with contextlib.suppress(BlockingIOError):
                sent += plain.send(bytes(1 << 16))
                full_since = time.monotonic()
        assert sent < 64 * BUFFER  # the kernel's buffers and the pipe's, and no more
        assert len(received(client, sent)) == sent


def test_plain_side_that_closes_is_heard_to_the_end_and_answered_until_then(tls):
    with piped(tls) as (client, plain, thread):
        plain.sendall(b"logout")
        plain.shutdown(socket.SHUT_WR)
        assert received(client, 7) == b"logout" and client.ended
        client.sock.setblocking(False)
        client.put(b"and yours")
        client.flush()
        assert plain.recv(100) == b"and yours"
        client.finish()
        client.flush()
        assert plain.recv(100) == b""
        thread.join(5)
        assert not thread.is_alive()


def test_tls_side_that_closes_is_heard_to_the_end_and_answered_until_then(tls):
    with piped(tls) as (client, plain, thread):
        client.sock.setblocking(False)
        client.put(b"logout")
        client.finish()
        client.flush()
        assert plain.recv(100) == b"logout" and plain.recv(100) == b""
        plain.sendall(b"and yours")
        plain.close()
        assert received(client, 10) == b"and yours" and client.ended
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("garbage", [True, False])
def test_line_that_is_cut_or_spoilt_ends_the_plain_side(tls, garbage):
    with piped(tls) as (client, plain, thread):
        if garbage:
            client.sock.sendall(b"no record of TLS at all, but long enough to be read as one")
        else:
            client.sock.close()
        assert plain.recv(100) == b""
        plain.close()
        thread.join(5)
        assert not thread.is_alive()


# The first message ----------------------------------------------------------------------------------------------------


def test_logon_is_read_from_any_parts_and_what_follows_is_kept():
    whole = logon() + b"8=FIX.4.4\x019=5"
    for cut in range(len(whole)):
        found, rest = read_logon(in_parts(whole[:cut] or whole[:1], whole[cut:] if cut else whole[1:]))
        assert found == logon() and whole.startswith(found + rest)
        assert comp_ids(found) == ("GATE", "VENUE")


def test_secret_is_a_field_of_a_logon_that_is_right_otherwise():
    parser = simplefix.FixParser()
    changed = with_secret(logon(), "ab" * 16)
    parser.append_buffer(changed)
    message = parser.get_message()
    assert message.get(5703) == b"ab" * 16 and message.get(49) == b"GATE"
    assert comp_ids(logon()) == ("GATE", "VENUE")
    with pytest.raises(LogonError, match="tag 5703 is not for"):
        comp_ids(changed)


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it begins with"),
        (b"8=FIX.4.2\x019=5\x01", "it begins with"),
        (b"8=FIX.4.4\x019=99999\x01", "no number"),
        (b"8=FIX.4.4\x019=-1\x01", "no number"),
        (b"8=FIX.4.4\x019=0\x01", "from 1 to"),
        (b"8=FIX.4.4\x019=%d\x01" % (LOGON_MAX + 1), "from 1 to"),
        (logon().replace(b"\x0110=", b"\x0111="), "does not end where"),
        (logon()[:-4] + b"999\x01", "checksum"),
        (logon(kind="D"), "not a Logon"),
        (logon(more=[(49, "OTHER")]), "tag 49 stands 2 times"),
        (logon(more=[(95, 8), (96, "x\x0149=OMS")]), "tag 49 stands 2 times"),
        (logon(more=[(56, "OTHER")]), "tag 56 stands 2 times"),
        (logon(more=[(34, 2)]), "tag 34 stands 2 times"),
        (logon(more=[(5703, "guess")]), "tag 5703 is not for"),
        *((logon_with(tag), "is no tag") for tag in (b"0049", b"+549", b"abcd", b"    ")),
        (logon(heartbeat="zz"), "HeartBtInt"),
        (logon(heartbeat="1.5"), "HeartBtInt"),
        (logon(heartbeat="9" * 20), "HeartBtInt"),
        (logon(more=[(108, 5)]), "tag 108 stands 2 times"),
        (logon(sender="GATE" * 17), "CompID 'GATEGATE"),
        (logon(sender="G\xc4TE"), "is not of 1 to 64 ASCII characters"),
        (logon()[:40], "it ended after 40 bytes"),
        (b"", "it ended after 0 bytes"),
    ],
)
def test_first_message_that_is_no_logon_is_refused(first, error):
    with pytest.raises(LogonError, match=error):
        comp_ids(read_logon(in_parts(first))[0])


@given(st.lists(st.binary(min_size=1, max_size=64), max_size=8), st.binary(max_size=64), st.integers(0, 90))
def test_first_message_of_any_bytes_is_read_or_refused_and_never_grows(parts, spoilt, at):
    for stream in (parts, [logon()[:at] + spoilt + logon()[at:]]):
        try:
            found, _ = read_logon(in_parts(*stream))
            comp_ids(found)
        except LogonError:
            continue
        assert len(found) <= LOGON_MAX + 40


# The lines ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def accepting(tls, bounds):
    with socket.create_server(("127.0.0.1", 0)) as inner, socket.create_server(("127.0.0.1", 0)) as free:
        inner.settimeout(5)
        port = free.getsockname()[1]
        free.close()
        line = TlsAcceptorLine(
            "VENUE", SUBJECTS, tls[0].context(server=True), inner.getsockname(), lambda _: "s" * 32, bounds=bounds
        )
        line.start("127.0.0.1", port)
        try:
            yield line, port, inner
        finally:
            line.stop()


def test_logon_that_does_not_come_in_time_is_not_waited_for(tls):
    with accepting(tls, Bounds(logon_s=0.3)) as (line, port, _):
        context = tls[1].context(server=False)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as silent:
            assert silent.recv(10) == b""
        assert line.last_refusal == "commonName=gate,organizationName=desk: it took too long to say who it is"
        slow = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        with slow, pytest.raises((OSError, StopIteration)):  # byte by byte: no byte makes the time longer
            pieces = iter(logon())
            while True:
                slow.sendall(bytes([next(pieces)]))
                time.sleep(0.02)
        with socket.create_connection(("127.0.0.1", port), 5) as dumb:  # not even TLS
            assert dumb.recv(10) == b""
        assert line.refusals == 3


def test_connections_that_have_not_logged_on_are_few(tls):
    with accepting(tls, Bounds(waiting=3, waiting_each=2)) as (line, port, inner), contextlib.ExitStack() as open_ones:
        held = [open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(2)]
        with socket.create_connection(("127.0.0.1", port), 5) as more:
            assert more.recv(10) == b""
        until(lambda: line.refusals == 1)
        assert line.last_refusal == "2 connections of this address have not logged on yet"
        held[0].close()
        until(lambda: line.refusals == 2)
        context = tls[1].context(server=False)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as gate:
            gate.sendall(logon() + b"rest")
            plain, _ = inner.accept()
            with plain:
                assert plain.recv(4096) == with_secret(logon(), "s" * 32) + b"rest"
            assert line._waiting.total() == 1  # who has logged on no longer counts


def test_connections_of_one_comp_id_are_few_however_often_it_logs_on(tls):
    with accepting(tls, Bounds(of_peer=2)) as (line, port, inner), contextlib.ExitStack() as open_ones:
        context, plain = tls[1].context(server=False), []

        def connect():
            raw = socket.create_connection(("127.0.0.1", port), 5)
            secure = open_ones.enter_context(context.wrap_socket(raw, server_hostname="127.0.0.1"))
            secure.sendall(logon())
            return secure

        for _ in range(2):
            connect()
            plain.append(open_ones.enter_context(inner.accept()[0]))
            assert plain[-1].recv(4096)
            until(lambda: len(line._pipes) == len(plain))
        assert connect().recv(10) == b""
        assert line.last_refusal.endswith("2 connections of GATE are open already")
        line_ends = list(line._pipes)
        plain.pop().close()
        line_ends[0].abort()
        line_ends[1].abort()
        until(lambda: not line._pipes)
        connect()
        assert open_ones.enter_context(inner.accept()[0]).recv(4096)


def test_people_hear_of_an_intruder_once_a_minute_and_through_any_noise(tls):
    told, inner = [], ("127.0.0.1", 1)
    line = TlsAcceptorLine(
        "VENUE", SUBJECTS, tls[0].context(server=True), inner, lambda _: "s" * 32, on_refused=told.append
    )
    for number in range(100):
        line._refuse("192.0.2.1", f"noise {number}")
    for _ in range(50):
        line._refuse("192.0.2.2", "eve logs on as GATE", is_known=True)
    assert told == ["FIX VENUE: 192.0.2.2 is refused: eve logs on as GATE"]
    for number in range(100):  # what it calls itself is in its own hands
        line._refuse("192.0.2.2", f"eve logs on as {number}", is_known=True)
    assert len(told) == TOLD_MOST and line.refusals == 250
    line._told = dict.fromkeys(line._told, time.monotonic() - TOLD_EVERY_S)
    line._refuse("192.0.2.2", "eve logs on as GATE", is_known=True)
    assert len(told) == TOLD_MOST + 1


def test_initiator_s_line_is_for_sockets_of_its_own_process(tls):
    with socket.create_server(("127.0.0.1", 0)) as venue:
        line = TlsInitiatorLine("VENUE", tls[1].context(server=False), venue.getsockname(), "127.0.0.1")
        line.start()
        code = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print(s.recv(10))"
        other = subprocess.run([sys.executable, "-c", code, str(line.port)], capture_output=True, timeout=20, text=True)
        assert other.stdout.strip() == "b''" or "ConnectionResetError" in other.stderr
        assert line.last_refusal == "it is of another process"
        venue.setblocking(False)
        with pytest.raises(BlockingIOError):  # the venue has not even been called
            venue.accept()
        near, far = tcp_pair()
        with near, far:
            assert is_own(near) and is_own(far)
        line.stop()


def test_context_takes_no_old_tls_and_no_client_without_a_certificate(tls, authority):
    with accepting(tls, Bounds()) as (line, port, _):
        nobody = ssl.create_default_context(cafile=str(authority.certificate))
        with (
            pytest.raises(OSError),
            nobody.wrap_socket(  # noqa: PT012 - in TLS 1.3 the answer comes behind the handshake
                socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1"
            ) as sock,
        ):
            assert sock.recv(10)
        until(lambda: line.refusals == 1)
        assert "peer did not return a certificate" in line.last_refusal
        old = tls[1].context(server=False)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            old.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1")
        until(lambda: line.refusals == 2)
