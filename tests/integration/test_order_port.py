"""The framed order connection over loopback sockets: who gets in, what ends a line."""

import asyncio
import socket

import pytest
import uvloop
from certificates import Authority

from serving.contracts.decisions import Allowed
from serving.contracts.orders import Cancel
from serving.wire import link
from serving.wire.frames import FrameDecoder, Heartbeat, Hello, Refusal, decode_message, encode_message
from serving.wire.identity import Directory, IdentityError, Principal, client_tls, hash_token, server_tls, subject_of

TOKEN = "0123456789abcdef" * 3
HELLO = Hello(account="main", strategies=("rule",), token=TOKEN)
PRINCIPALS = [
    Principal("main", frozenset({"rule", "twap"}), token_sha256=hash_token(TOKEN)),
    Principal("main", frozenset({"ppo"}), subject="commonName=ems,organizationName=desk"),
]


def request(key, strategy="rule", account="main"):
    who = {"strategy": strategy, "account": account, "algorithm": "a", "trader": "t", "sent_ns": 1}
    return Cancel(key=key, order_key="o", **who)


class Port:
    """Allows everything; notes what it hears."""

    def __init__(self):
        self.heard = []

    def opened(self, line, identity):
        self.heard.append(("opened", identity.account, tuple(sorted(identity.strategies))))

    def requests(self, line, requests):
        self.heard += [("request", item.key) for item in requests]
        line.send(*(Allowed(key=item.key, order_id=1, algorithm="a", trader="t") for item in requests))

    def heartbeat(self, line):
        self.heard.append(("heartbeat",))

    def closed(self, line, reason):
        self.heard.append(("closed", reason))


class Desk:
    def __init__(self):
        self.decisions, self.ended = [], asyncio.get_running_loop().create_future()

    def decided(self, decision):
        self.decisions.append(decision.key)

    def reported(self, report):
        raise AssertionError(report)

    def down(self, reason):
        self.ended.set_result(reason)


def run(scene, tls=None):
    async def whole():
        port = Port()
        server = await link.serve(port, Directory(PRINCIPALS), "127.0.0.1", 0, tls)
        async with server:
            await asyncio.wait_for(scene(port, server.sockets[0].getsockname()[1]), 20)
        return port.heard

    return asyncio.run(whole())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_requests_are_answered_in_order_and_the_end_is_told_once():
    async def scene(port, number):
        desk = Desk()
        line = await link.connect(desk, HELLO, "127.0.0.1", number)
        line.send(*(request(f"k{i}") for i in range(500)), Heartbeat(sent_ns=1))
        await until(lambda: len(desk.decisions) == 500)
        assert desk.decisions == [f"k{i}" for i in range(500)]
        line.close("done")
        await until(lambda: port.heard[-1][0] == "closed")

    heard = run(scene)
    assert heard[0] == ("opened", "main", ("rule",))
    assert [item[1] for item in heard if item[0] == "request"] == [f"k{i}" for i in range(500)]
    assert ("heartbeat",) in heard and [item[0] for item in heard].count("closed") == 1


@pytest.mark.parametrize(
    "hello",
    [
        Hello(account="main", strategies=("rule",), token="f" * 48),
        Hello(account="main", strategies=("rule",), token="short"),
        Hello(account="main", strategies=("rule",)),
        Hello(account="other", strategies=("rule",), token=TOKEN),
        Hello(account="main", strategies=("rule", "ppo"), token=TOKEN),
    ],
)
def test_who_is_not_known_hears_no_more_than_that(hello):
    async def scene(port, number):
        with pytest.raises(ConnectionError, match="^not authenticated$"):
            await link.connect(Desk(), hello, "127.0.0.1", number)

    assert run(scene) == []


@pytest.mark.parametrize("wrong", [request("k", strategy="twap"), request("k", account="other")])
def test_request_of_another_strategy_or_account_ends_the_line_unseen(wrong):
    async def scene(port, number):
        desk = Desk()
        line = await link.connect(desk, HELLO, "127.0.0.1", number)
        line.send(request("good"), wrong, request("late"))
        assert "is not main" in (reason := await desk.ended) or "is none of rule" in reason

    heard = run(scene)
    assert [item for item in heard if item[0] == "request"] == [("request", "good")]
    assert heard[-1][0] == "closed"


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", encode_message(request("k")), encode_message(HELLO) * 2])
def test_wrong_first_words_end_the_line(raw):
    async def scene(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(raw)
        frames = FrameDecoder().feed(await reader.read())
        assert isinstance(decode_message(frames[-1]), Refusal)
        writer.close()

    assert not [item for item in run(scene) if item[0] == "request"]


def test_silent_line_is_taken_down(monkeypatch):
    async def scene(port, number):
        loop = asyncio.get_running_loop()
        line = link.ServerLine(port, Directory(PRINCIPALS), silence_s=0.1)
        server = await loop.create_server(lambda: line, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            writer.write(encode_message(HELLO))
            await until(lambda: port.heard and port.heard[-1][0] == "closed")
            writer.close()

    assert "silent for" in run(scene)[-1][1]


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run])
def test_line_whose_other_end_reads_nothing_ends_at_once_though_much_lies_unsent(runs):
    lines = []

    class Keeping(Port):
        def opened(self, line, identity):
            super().opened(line, identity)
            lines.append(line)

    async def whole():
        port = Keeping()
        async with await link.serve(port, Directory(PRINCIPALS), "127.0.0.1", 0) as server:
            with socket.create_connection(("127.0.0.1", server.sockets[0].getsockname()[1])) as deaf:
                deaf.sendall(encode_message(HELLO))
                async with asyncio.timeout(10):
                    await until(lambda: lines)
                    many = [Allowed(key="k" * 64, order_id=1, algorithm="a", trader="t")] * 1_000
                    while lines[0].is_up:
                        lines[0].send(*many)
                        await asyncio.sleep(0)
                    await until(lambda: port.heard[-1][0] == "closed")
        return port.heard[-1]

    assert runs(whole()) == ("closed", f"more than {link.UNREAD_MAX} bytes lie unread")


def test_certificate_says_who_it_is_and_tokens_do_not_count_beside_it(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    tls = server_tls(*authority.issue("gateway"), authority.certificate)
    ems = client_tls(*authority.issue("ems"), authority.certificate)
    mallory = client_tls(*authority.issue("mallory"), authority.certificate)
    forged = client_tls(*stranger.issue("ems"), authority.certificate)
    by_certificate = Hello(account="main", strategies=("ppo",))

    async def scene(port, number):
        line = await link.connect(Desk(), by_certificate, "127.0.0.1", number, ems)
        assert line.welcomed.result().subject == "commonName=ems,organizationName=desk"
        for hello, context in ((HELLO, ems), (HELLO, mallory), (by_certificate, mallory), (by_certificate, forged)):
            with pytest.raises(OSError):
                await link.connect(Desk(), hello, "127.0.0.1", number, context)
        with pytest.raises((OSError, asyncio.TimeoutError)):
            await link.connect(Desk(), HELLO, "127.0.0.1", number)
        line.close("done")

    assert [item[0] for item in run(scene, tls) if item[0] != "heartbeat"] == ["opened", "closed"]


def test_beyond_loopback_nothing_is_served_without_tls():
    async def scene():
        await link.serve(Port(), Directory(PRINCIPALS), "0.0.0.0", 0)

    with pytest.raises(ValueError, match=r"0\.0\.0\.0 is not a loopback"):
        asyncio.run(scene())
    with pytest.raises(IdentityError, match=r"10\.0\.0\.7 is not a loopback address"):
        Directory(PRINCIPALS).authenticate(HELLO, peer="10.0.0.7", certificate=None)


def test_subject_cannot_be_forged_by_a_name_with_a_comma():
    forged = {"subject": ((("commonName", "ems,organizationName=desk"),),)}
    honest = {"subject": ((("organizationName", "desk"),), (("commonName", "ems"),))}
    assert subject_of(honest) == "commonName=ems,organizationName=desk" != subject_of(forged)
    with pytest.raises(IdentityError, match="no subject"):
        subject_of({})


def test_directory_refuses_shared_secrets():
    twin = Principal("other", frozenset({"x"}), token_sha256=hash_token(TOKEN))
    with pytest.raises(ValueError, match="share a token_sha256"):
        Directory([*PRINCIPALS, twin])


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("encrypted", [False, True])
def test_line_that_is_held_is_read_again_when_it_goes_on_and_loses_nothing(runs, encrypted, tmp_path):
    held = []

    class Holding(Port):
        def requests(self, line, requests):
            super().requests(line, requests)
            if not held:
                line.hold()
            held.append(line)

    async def whole():
        port, tls, mine, hello = Holding(), None, None, HELLO
        if encrypted:
            authority = Authority(tmp_path)
            tls = server_tls(*authority.issue("gateway"), authority.certificate)
            mine = client_tls(*authority.issue("ems"), authority.certificate)
            hello = Hello(account="main", strategies=("ppo",))
        strategy = hello.strategies[0]
        async with await link.serve(port, Directory(PRINCIPALS), "127.0.0.1", 0, tls) as server:
            desk = Desk()
            line = await link.connect(desk, hello, "127.0.0.1", server.sockets[0].getsockname()[1], mine)
            line.send(request("k0", strategy))
            async with asyncio.timeout(10):
                await until(lambda: desk.decisions == ["k0"])
            for number in range(1, 4):
                line.send(request(f"k{number}", strategy))
            await asyncio.sleep(0.2)
            assert desk.decisions == ["k0"]
            held[0].go_on()
            async with asyncio.timeout(10):
                await until(lambda: desk.decisions == ["k0", "k1", "k2", "k3"])
            line.close("done")
            held[0].go_on()  # of a line that has ended: nothing

    runs(whole())
