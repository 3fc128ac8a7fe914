"""`python -m feature_repo.server`: Feast's feature server, for those who have a token and for reading alone.

Feast's own server has no password: its Kubernetes mode takes the name in a token for who sent it. Here a request bears
a token (`Authorization: Bearer ...`) whose SHA-256 stands in a file, and only the online values can be asked for: what
pushes, materializes or chats is not there.
"""

import hmac
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from feature_repo.errors import InputError

OPEN = {("GET", "/health")}
ASKED = {("POST", "/get-online-features")}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class FeatureServerSettings(BaseSettings):
    """Where the server listens, who may ask, and which store it reads."""

    model_config = SettingsConfigDict(env_prefix="SHORTFALL_FEATURE_SERVER_", extra="forbid", cli_kebab_case=True)

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(6566, ge=1, le=65535, description="Port to listen on")
    tokens: Path = Field(description="File with the SHA-256 of each token that may ask, in hexadecimal, one a line")
    repository: Path = Field(Path("feature_repo"), description="Folder of the Feast repository")
    store: str = Field("feature_store.k8s.yaml", description="Its configuration, in the repository's folder")
    registry_ttl_s: int = Field(60, ge=1, description="How long the registry is kept before it is read again")


def read_tokens(path: Path) -> frozenset[bytes]:
    """Digests of the tokens that may ask. Raises InputError where there is none or a line is no SHA-256."""
    try:
        lines = [line.strip().lower() for line in path.read_text().splitlines()]
    except OSError as error:
        raise InputError(f"tokens {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line and not re.fullmatch("[0-9a-f]{64}", line):
            raise InputError(f"tokens {path}:{number}: {len(line)} characters, a SHA-256 has 64 hexadecimal digits")
    digests = frozenset(bytes.fromhex(line) for line in lines if line)
    if not digests:
        raise InputError(f"tokens {path}: empty, so that nobody may ask")
    return digests


class Guard:
    """An ASGI application that hands on only what may be asked, of those who may ask."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], digests: frozenset[bytes]) -> None:
        self._app, self._digests = app, digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for what is not there and 401 without a token, else what the application answers."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        asked = (scope["method"], scope["path"])
        if asked not in OPEN | ASKED:
            await _answer(send, 404, b'{"detail": "not found"}')
        elif asked in ASKED and not self._known(scope):
            await _answer(send, 401, b'{"detail": "a token is needed"}', (b"www-authenticate", b"Bearer"))
        else:
            await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1 or not values[0].startswith(b"Bearer "):
            return False
        digest = sha256(values[0].removeprefix(b"Bearer ")).digest()
        # every digest is compared, so that the time says nothing of which one
        return any([hmac.compare_digest(digest, known) for known in self._digests])


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


def application(settings: FeatureServerSettings) -> Guard:
    """The server as an ASGI application. Raises InputError for tokens that cannot be read."""
    digests = read_tokens(settings.tokens)
    from feast import FeatureStore
    from feast.feature_server import get_app
    from feast.permissions.auth_model import NoAuthConfig
    from feast.permissions.server.utils import (
        ServerType,
        init_auth_manager,
        init_security_manager,
        str_to_auth_manager_type,
    )

    store = FeatureStore(repo_path=str(settings.repository), fs_yaml_file=settings.repository / settings.store)
    # Feast's own permissions are off: the guard stands before it
    kind = str_to_auth_manager_type("no_auth")
    init_security_manager(auth_type=kind, fs=store)
    init_auth_manager(auth_type=kind, server_type=ServerType.REST, auth_config=NoAuthConfig())
    return Guard(get_app(store, settings.registry_ttl_s), digests)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after a signal, 2 for bad settings, 1 for what failed; one line says what."""
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        settings = CliApp.run(FeatureServerSettings, given, cli_exit_on_error=False)
        app = application(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        print(f"error: {where}: {first['msg']}", file=sys.stderr)
        return 2
    except (InputError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        # whatever Feast's registry raises: its text may hold the address with the password
        print(f"error: the feature store cannot be opened: {type(error).__name__}", file=sys.stderr)
        return 1
    import uvicorn

    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
