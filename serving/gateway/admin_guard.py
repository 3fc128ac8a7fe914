"""Before the admin plane does anything: who asks, with which scope, how large, of which type, from which site."""

import logging
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from serving.gateway.admin_auth import UnknownError
from serving.gateway.config import ADMIN_SCOPES, Commander, ConfigError
from serving.gateway.day import DayError
from serving.gateway.deciding import BusyError
from serving.gateway.journal import JournalError
from serving.gateway.limits import LimitsError
from serving.gateway.people import PersonError

log = logging.getLogger(__name__)
BODY_MAX = 1 << 20
JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "application/json")
DOCUMENTS = ("/v1/limits/propose", "/v1/day/propose")
"""Paths whose body is a document, YAML or the JSON that is YAML too."""
VIEWS = tuple(f"/v1/{name}" for name in ("state", "orders", "positions", "limits", "denials", "proposals", "events"))
"""Paths that take no POST: the router says so."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in (
        (400, "Not HTTP with JSON"), (401, "Nobody that is known"), (403, "Not your scope, or the same person twice"),
        (409, "Not now"), (413, "Too large"), (415, "Another content type"), (422, "Not a value of this API"),
        (503, "The deciding thread is busy, or the journal failed"),
    )
}  # fmt: skip


class NotAllowedError(PermissionError):
    """Someone who is known asks for what is not his, or takes a certificate."""


def _need(scope: str) -> Any:
    assert scope in ADMIN_SCOPES

    def who(request: Request) -> Commander:
        found: Commander = request.app.state.people.who(request.scope)
        if scope not in found.scopes:
            raise NotAllowedError(f"{found.subject} does not hold the scope {scope}")
        return found

    return Depends(who)


def _approves() -> Any:
    """One of two people: a token shows that somebody holds it, and who holds two would be two people."""

    def who(request: Request, found: RiskOfficer) -> Commander:
        if found.by_token and not request.app.state.paper:
            raise NotAllowedError(
                f"{found.subject} is known by a token: what takes two people takes two certificates, but on paper"
            )
        return found

    return Depends(who)


Reader = Annotated[Commander, _need("read")]
Killing = Annotated[Commander, _need("kill")]
RiskOfficer = Annotated[Commander, _need("risk")]
Armer = Annotated[Commander, _need("arm")]
RiskModel = Annotated[Commander, _need("posture")]
Approver = Annotated[Commander, _approves()]


async def document(request: Request) -> str:
    """The body of a request as text. Raises LimitsError where it is none."""
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise LimitsError(f"not UTF-8: {error}") from error


def add_refusals(app: FastAPI) -> None:
    """What each error means over HTTP."""

    def refuse(*kinds: type[Exception], status: int, told: str | None = None) -> None:
        def handler(request: Request, error: Exception) -> Response:
            log.info("%s %s: %d %s", request.method, request.url.path, status, error)
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            return JSONResponse({"error": told or str(error)[:1_000]}, status, headers)

        for kind in kinds:
            app.add_exception_handler(kind, handler)

    refuse(UnknownError, status=401, told="not authenticated")
    refuse(NotAllowedError, PersonError, status=403)
    refuse(LimitsError, ConfigError, ArithmeticError, status=422)
    refuse(DayError, ValueError, status=409)
    refuse(JournalError, BusyError, status=503)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 422)

    app.add_exception_handler(RequestValidationError, invalid)


class Guard:
    """ASGI middleware: a body of known type and size, and no page of another site."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Refuse, or hand on."""
        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        took = 0

        async def counted() -> Any:
            nonlocal took
            message = await receive()
            took += len(message.get("body", b""))
            if took > BODY_MAX:
                raise _TooLargeError
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLargeError:
            await _too_large()(scope, receive, send)


class _TooLargeError(Exception):
    pass


def _too_large() -> Response:
    return JSONResponse({"error": f"the body exceeds {BODY_MAX} bytes"}, 413)


def _refusal(scope: dict[str, Any]) -> Response | None:
    if scope["method"] != "POST" or scope["path"] in VIEWS:
        return None
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    site, origin = headers.get(b"sec-fetch-site", "same-origin"), headers.get(b"origin")
    if site not in ("same-origin", "none") or (origin and origin.partition("://")[2] != headers.get(b"host", "")):
        return JSONResponse({"error": "a page of another site may command nothing"}, 403)
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind not in (YAML_TYPES if scope["path"] in DOCUMENTS else JSON_TYPES):
        return JSONResponse({"error": f"content type {kind[:80] or 'absent'} is not what is taken here"}, 415)
    length = headers.get(b"content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > BODY_MAX:
        return _too_large()
    return None
