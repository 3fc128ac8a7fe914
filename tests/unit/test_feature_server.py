"""The feature server's guard: only what may be asked, only by who has a token; and its settings."""

import asyncio
from hashlib import sha256

import pytest

from feature_repo.errors import InputError
from feature_repo.server import Guard, main, read_tokens

TOKEN = "t" * 40
DIGEST = sha256(TOKEN.encode()).hexdigest()
ASK = ("POST", "/get-online-features")


def ask(method, path, *headers, kind="http"):
    """Status that the guard answers, 200 where the request reached the server behind it."""
    sent = []

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    async def run():
        scope = {"type": kind, "method": method, "path": path, "headers": list(headers)}
        await Guard(behind, frozenset({bytes.fromhex(DIGEST)}))(scope, None, send)

    asyncio.run(run())
    return sent[0].get("status", sent[0]["type"])


def bearer(token):
    return (b"authorization", b"Bearer " + token.encode())


def test_token_that_is_known_reads_online_values():
    assert ask(*ASK, bearer(TOKEN)) == 200


@pytest.mark.parametrize("headers", [
    [], [bearer("x" * 40)], [bearer(TOKEN + " ")], [bearer(DIGEST)], [(b"authorization", b"Basic " + TOKEN.encode())],
    [bearer(TOKEN), bearer(TOKEN)],
])  # fmt: skip
def test_token_that_is_missing_wrong_or_given_twice_is_refused(headers):
    assert ask(*ASK, *headers) == 401


@pytest.mark.parametrize("path", ["/push", "/write-to-online-store", "/materialize", "/chat", "/docs", "/metrics", "/"])
def test_what_writes_or_talks_is_not_there_even_with_a_token(path):
    assert ask("POST", path, bearer(TOKEN)) == 404


@pytest.mark.parametrize(
    "asked", [("GET", "/get-online-features"), ("POST", "/get-online-features/"), ("POST", "/health")]
)
def test_other_spellings_of_what_may_be_asked_are_not_there(asked):
    assert ask(*asked, bearer(TOKEN)) == 404


def test_health_asks_for_no_token():
    assert ask("GET", "/health") == 200


def test_websocket_is_closed():
    assert ask("GET", "/ws/chat", bearer(TOKEN), kind="websocket") == "websocket.close"


def test_tokens_are_read_one_a_line(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"{DIGEST.upper()}\n\n{'0' * 64}\n")
    assert read_tokens(path) == {bytes.fromhex(DIGEST), bytes(32)}


@pytest.mark.parametrize("text, said", [("", "nobody may ask"), (TOKEN, ":1: 40 characters"), ("z" * 64, ":1: 64")])
def test_tokens_when_a_line_is_no_digest_or_there_is_none_then_refused(tmp_path, text, said):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_tokens(path)


def test_server_without_tokens_does_not_start(tmp_path, capsys):
    assert main([f"--tokens={tmp_path / 'none'}"]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main([]) == 2
