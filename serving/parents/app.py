"""The HTTP side: parents in, their state and cost out, each caller within its own account; strict JSON."""

import logging
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.parents.access import Access, AccessError
from serving.parents.orders import Parent
from serving.parents.outputs import ParentRequest, Refusal
from serving.parents.views import parent_view, shadow_view, tca_view

log = logging.getLogger(__name__)
BODY_MAX = 16_384
NS = 1_000_000_000
INT64_MAX = 2**63 - 1
_T = TypeVar("_T", bound=BaseModel)
STATUSES = {"invalid": 422, "unknown": 404, "conflict": 409, "busy": 429}


class NewParent(BaseModel):
    """A parent order; `start` is a time of the market in ns, at once where absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    parent_id: str = Field(min_length=1, max_length=64)
    account: str = Field(min_length=1, max_length=64)
    symbol: str = Field(min_length=1, max_length=64)
    side: Literal["buy", "sell"]
    lots: int = Field(ge=1, le=INT64_MAX)
    horizon_s: int = Field(ge=1, le=86_400)
    start: int | None = Field(None, ge=1, le=INT64_MAX)
    strategy: str | None = Field(None, min_length=1, max_length=64)
    trader: str | None = Field(None, min_length=1, max_length=64)


class NewSize(BaseModel):
    """Another total size of a parent, what is filled included."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lots: int = Field(ge=1, le=INT64_MAX)


class Works(Protocol):
    """What the process does for a caller; each call has reached the disk when it returns."""

    access: Access

    def submit(self, request: ParentRequest) -> Parent:
        """Take a parent. Raises Refusal; RuntimeError where the journal cannot be written."""

    def cancel(self, parent: Parent, reason: str) -> None:
        """End a parent. Raises Refusal."""

    def replace(self, parent: Parent, lots: int) -> None:
        """Change its size. Raises Refusal."""

    def find(self, account: str, parent_id: str) -> Parent | None:
        """A parent of an account."""

    def parents_of(self, account: str) -> list[Parent]:
        """All parents of an account."""

    def run_of(self, parent: Parent) -> Any:
        """What is held of a parent at work."""

    def shadows(self) -> list[Any]:
        """Decisions of challengers, oldest first."""

    def parent(self, number: int) -> Parent:
        """A parent by number."""


def make_app(works: Works) -> FastAPI:
    """The application over `works`."""
    app = FastAPI(title="shortfall parents", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _first(error.errors())}, 422)

    @app.exception_handler(HTTPException)
    async def _refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(Refusal)
    async def _refusal(request: Request, error: Refusal) -> JSONResponse:
        return JSONResponse({"error": str(error)}, STATUSES[error.what])

    @app.exception_handler(RuntimeError)
    async def _stopped(request: Request, error: RuntimeError) -> JSONResponse:
        log.error("a request could not be served: %s", error)
        return JSONResponse({"error": str(error)}, 503)

    async def caller(request: Request) -> tuple[str, str]:
        client = (request.client.host, request.client.port) if request.client else None
        try:
            return works.access.account_of(client, request.headers.get("authorization", ""))
        except AccessError as error:
            raise HTTPException(401, str(error)) from error

    who = Annotated[tuple[str, str], Depends(caller)]

    def found(account: str, parent_id: str) -> Parent:
        parent = works.find(account, parent_id)
        if parent is None:
            raise HTTPException(404, f"no parent {parent_id[:80]!r} of account {account}")
        return parent

    @app.post("/v1/parents", status_code=202)
    async def submit(request: Request, asks: who) -> dict[str, Any]:
        account, name = asks
        body = await _body(request, NewParent)
        if body.account != account:
            raise HTTPException(403, f"account {body.account} is not yours")
        parent = works.submit(
            ParentRequest(
                body.parent_id,
                account,
                body.symbol,
                1 if body.side == "buy" else -1,
                body.lots,
                body.horizon_s * NS,
                body.start or 0,
                body.strategy or "",
                body.trader or "",
                "http",
                name,
            )  # fmt: skip
        )
        return parent_view(parent, works.run_of(parent))

    @app.get("/v1/parents")
    async def parents(
        asks: who, at_work: Annotated[bool, Query()] = False, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
    ) -> dict[str, Any]:
        known = [parent for parent in works.parents_of(asks[0]) if not (at_work and parent.is_ended)]
        return {"parents": [parent_view(parent, works.run_of(parent)) for parent in known[-limit:]]}

    @app.get("/v1/parents/{parent_id}")
    async def parent(parent_id: str, asks: who) -> dict[str, Any]:
        one = found(asks[0], parent_id)
        return parent_view(one, works.run_of(one))

    @app.post("/v1/parents/{parent_id}/cancel", status_code=202)
    async def cancel(parent_id: str, asks: who) -> dict[str, Any]:
        one = found(asks[0], parent_id)
        works.cancel(one, f"cancelled by {asks[1]}")
        return parent_view(one, works.run_of(one))

    @app.post("/v1/parents/{parent_id}/replace", status_code=202)
    async def replace(parent_id: str, request: Request, asks: who) -> dict[str, Any]:
        one = found(asks[0], parent_id)
        works.replace(one, (await _body(request, NewSize)).lots)
        return parent_view(one, works.run_of(one))

    @app.get("/v1/parents/{parent_id}/tca")
    async def tca(parent_id: str, asks: who) -> dict[str, Any]:
        one = found(asks[0], parent_id)
        if not one.is_ended:
            raise HTTPException(409, f"parent {parent_id[:80]} is not done: {one.phase.name.lower()}")
        return tca_view(one)

    @app.get("/v1/shadow")
    async def shadow(asks: who, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000) -> dict[str, Any]:
        own = [(item, works.parent(item.number)) for item in works.shadows()]
        told = [shadow_view(item, of) for item, of in own if of.account == asks[0]]
        return {"decisions": told[-limit:]}

    return app


async def _body(request: Request, model: type[_T]) -> _T:
    """The body of a request as `model`; HTTPException for one that is too long or wrong."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > BODY_MAX:
            raise HTTPException(413, f"a body of more than {BODY_MAX} bytes")
    try:
        return model.model_validate_json(bytes(raw))
    except ValidationError as error:
        raise HTTPException(422, _first(error.errors(include_url=False))) from error


def _first(errors: Any) -> str:
    """The first thing that is wrong, as one line without what cannot be written."""
    first = errors[0]
    where = ".".join(str(part) for part in first.get("loc", ())) or "body"
    return f"{where}: {first.get('msg', 'wrong')}".encode("utf-8", "backslashreplace").decode()[:500]
