"""Asks the decide service over HTTP."""

import asyncio
import ssl
from typing import Any, TypeVar

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.decide.messages import (
    DecideReply,
    DecideRequest,
    ErrorReply,
    ForecastReply,
    ForecastRequest,
    PoliciesReply,
    decision_of,
    policies_of,
)
from serving.decide.protocol import DecideError, Policies, PolicyClient, PolicyDecision, Reason

REASONS: dict[int, Reason] = {401: "unauthorised", 404: "unknown", 413: "refused", 422: "refused"}
_encode = msgspec.json.Encoder().encode
_Reply = TypeVar("_Reply", DecideReply, ForecastReply, PoliciesReply)


class DecideClient(PolicyClient):
    """Keeps connections open; one instance for one event loop.

    A call ends within `deadline_s`, whatever the service does. A connection that broke is tried once more: asking twice
    changes nothing.
    """

    def __init__(self, url: str, token: str = "", tls: ssl.SSLContext | None = None, deadline_s: float = 1.0) -> None:
        """`url` like http://127.0.0.1:9860; `tls` as of `serving.wire.identity.client_tls`."""
        self.url, self.deadline_s = url.rstrip("/"), deadline_s
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def policies(self) -> Policies:
        """Champion, challenger and all that is loaded."""
        return policies_of(await self._ask("GET", "/v1/policies", None, PoliciesReply))

    async def decide(
        self, sha256: str, observation: NDArray[np.float32], action_mask: NDArray[Any] | None = None
    ) -> PolicyDecision:
        """As `PolicyClient.decide`; an answer of another policy than was asked is refused."""
        mask = None if action_mask is None else np.asarray(action_mask).astype(int).tolist()
        body = _encode(DecideRequest(sha256, np.asarray(observation, np.float32).tolist(), mask))
        reply = await self._ask("POST", "/v1/decide", body, DecideReply)
        _require(sha256, reply.sha256)
        return decision_of(reply)

    async def forecast(self, sha256: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `PolicyClient.forecast`."""
        body = _encode(ForecastRequest(sha256, np.asarray(features, np.float32).tolist()))
        reply = await self._ask("POST", "/v1/forecast", body, ForecastReply)
        _require(sha256, reply.sha256)
        return np.array(reply.forecast_bps, np.float32)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, body: bytes | None, reply: type[_Reply]) -> _Reply:
        try:
            async with asyncio.timeout(self.deadline_s):
                try:
                    status, content = await self._send(method, path, body)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    status, content = await self._send(method, path, body)
        except TimeoutError as error:
            raise DecideError("late", f"{self.url}{path}: no answer within {self.deadline_s} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DecideError("unavailable", f"{self.url}{path}: {error}") from error
        if status != 200:
            raise DecideError(REASONS.get(status, "unavailable"), f"{self.url}{path}: {status} {_reason(content)}")
        try:
            return msgspec.json.decode(content, type=reply)
        except msgspec.MsgspecError as error:
            raise DecideError("refused", f"{self.url}{path}: an answer that cannot be read: {error}") from error

    async def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=60, ssl=self._tls or True)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        async with self._session.request(method, self.url + path, data=body, allow_redirects=False) as answer:
            return answer.status, await answer.read()


def _require(asked: str, answered: str) -> None:
    if asked != answered:
        raise DecideError("refused", f"asked policy {asked}, the answer is of {answered}")


def _reason(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=ErrorReply).error
    except msgspec.MsgspecError:
        return content[:200].decode("utf-8", "replace")
