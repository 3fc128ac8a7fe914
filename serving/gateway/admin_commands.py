"""What people may ask the gateway to do, each in the deciding thread; the kill alone waits in a thread of its own."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from serving.contracts.orders import LOTS_MAX, TEXT_MAX
from serving.gateway.admin_auth import People
from serving.gateway.admin_guard import Approver, Armer, Killing, NotAllowedError, RiskModel, RiskOfficer, document
from serving.gateway.changes import approve_limits, propose_limits, set_posture
from serving.gateway.config import Commander, parse_book
from serving.gateway.day import tighten_day
from serving.gateway.deciding import CALL_S, BusyError
from serving.gateway.events import DayTightened, Locate
from serving.gateway.fix_out import read_now
from serving.gateway.kill import check_scope, enable, order_liquidation, rearm
from serving.gateway.limits import Limits, load_yaml
from serving.gateway.live import SECOND_NS
from serving.gateway.recovery import arm

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)
T = TypeVar("T")
KILLS = 16
"""Kills that are answered at once; threads of their own, so that nothing else that waits is before them."""
Text = Annotated[str, StringConstraints(max_length=TEXT_MAX, pattern=r"^[ -~]*$")]
ScopeName = Literal["all", "venue", "account", "strategy", "symbol"]


_SCOPE_SCHEMA: list[JsonValue] = [
    {"properties": {"scope": {"const": "all"}, "name": {"maxLength": 0}}},
    {
        "properties": {"scope": {"enum": ["venue", "account", "strategy", "symbol"]}, "name": {"minLength": 1}},
        "required": ["name"],
    },
]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Place(_Asked):
    """A scope by its kind and name; `all` has none."""

    model_config = ConfigDict(json_schema_extra={"oneOf": _SCOPE_SCHEMA})

    scope: ScopeName
    name: Text = ""

    @model_validator(mode="after")
    def _is_scope(self) -> Self:
        check_scope(self.scope, self.name)
        return self


class Kill(Place):
    """Stop a scope."""

    reason: str = Field("", max_length=500)


class Change(_Asked):
    """One exact change, as it was proposed."""

    change: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Posture(Place):
    """Shrink a scope's limits for a while."""

    factor_bps: int = Field(ge=0, le=10_000)
    lasts_s: int = Field(ge=1, le=86_400)


class Position(_Asked):
    """What the clearer holds for an account."""

    account: Text
    symbol: Text
    lots: int = Field(ge=-LOTS_MAX, le=LOTS_MAX)


class Positions(_Asked):
    """What the clearer says, where it says anything."""

    positions: list[Position] = Field([], max_length=100_000)


class Located(_Asked):
    """Shares located for an account; fewer than before."""

    account: Text
    symbol: Text
    lots: int = Field(ge=0, le=LOTS_MAX)


class Volume(_Asked):
    """A symbol's average daily volume; less than before."""

    symbol: Text
    adv_lots: int = Field(ge=1, le=LOTS_MAX)


class Tighter(_Asked):
    """What is to be tighter for the rest of the day."""

    restricted: list[Text] = Field([], max_length=10_000)
    locates: list[Located] = Field([], max_length=10_000)
    volumes: list[Volume] = Field([], max_length=10_000)
    needs_locate: list[Text] = Field([], max_length=10_000)


class Nothing(_Asked):
    """An empty object: what is asked needs no more."""


def add_commands(app: FastAPI, service: "GatewayService") -> None:
    """Register every POST."""
    gateway = service.gateway
    kills = ThreadPoolExecutor(KILLS, "kill")

    def log_it(what: str, who: Commander, **more: Any) -> None:
        log.warning("%s by %s", what, who.subject, extra={"who": who.subject, **more})

    @app.post("/v1/kill")
    async def kill(asked: Kill, who: Killing) -> dict[str, Any]:
        """Stop a scope: `blocked, flushed` once every venue is known to have taken all that was sent before."""
        loop, kill = asyncio.get_running_loop(), service.killer.kill
        said = await loop.run_in_executor(kills, kill, asked.scope, asked.name, who.subject, asked.reason)
        return said._asdict()

    @app.post("/v1/reconcile")
    async def reconcile(asked: Positions, who: Armer) -> dict[str, Any]:
        """Ask venues and drop copies, compare, and say what does not agree."""
        assert service.deciding is not None
        log_it("reconcile", who)
        positions = {(item.account, item.symbol): item.lots for item in asked.positions}
        running = asyncio.run_coroutine_threadsafe(service.reconcile(positions), service.deciding.loop)
        breaks = await _answer(running, 10 * service.settings.reconcile_s)
        return {"reconciled": gateway.state.reconciled, "breaks": list(breaks)}

    @app.post("/v1/arm")
    async def arm_(asked: Nothing, who: Armer) -> dict[str, Any]:
        """Let new orders through; the book must be reconciled."""

        log_it("arm", who)
        await apply(service, who, arm, who.subject)
        return {"armed": True}

    @app.post("/v1/rearm")
    async def rearm_(asked: Place, who: Armer) -> dict[str, Any]:
        """Lift a kill; nothing of its scope may be open, and the book must have been reconciled since."""

        log_it("rearm", who, scope=asked.scope, scope_name=asked.name)
        await apply(service, who, rearm, asked.scope, asked.name, who.subject)
        return {"rearmed": True}

    @app.post("/v1/liquidate")
    async def liquidate(asked: Place, who: Approver) -> dict[str, Any]:
        """Order a killed scope to be liquidated; the second person's order lets reduce-only orders through."""

        log_it("liquidate", who, scope=asked.scope, scope_name=asked.name)
        return {"liquidating": await apply(service, who, order_liquidation, asked.scope, asked.name, who.subject)}

    @app.post("/v1/reset")
    async def reset(asked: Place, who: RiskOfficer) -> dict[str, Any]:
        """Reset what tripped in a scope: repeated orders, rejects, false fills. A person looked at it."""

        log_it("reset", who, scope=asked.scope, scope_name=asked.name)
        await apply(service, who, enable, asked.scope, asked.name, who.subject)
        return {"reset": True}

    @app.post("/v1/posture")
    async def posture(asked: Posture, who: RiskModel) -> dict[str, Any]:
        """Shrink a scope's limits for a while; it can only tighten."""

        lasts_ns = asked.lasts_s * SECOND_NS
        await apply(service, who, set_posture, asked.scope, asked.name, asked.factor_bps, lasts_ns, who.subject)
        return {"posture": True}

    @app.post("/v1/limits/approve")
    async def approve(asked: Change, who: Approver) -> dict[str, Any]:
        """Approve one exact change; it holds with the second person's approval."""

        log_it("approve limits", who, change=asked.change)
        return {"holds": await apply(service, who, approve_limits, asked.change, who.subject)}

    _add_access(app, service, log_it)
    _add_day(app, service, log_it)
    _add_documents(app, service, log_it)


def _add_access(app: FastAPI, service: "GatewayService", log_it: Callable[..., None]) -> None:
    """Clients and people, read again."""

    @app.post("/v1/reload")
    async def reload(asked: Nothing, who: RiskOfficer) -> dict[str, Any]:
        """Read clients and people again: who is struck is so at once, who is new waits for two people."""
        log_it("reload", who)
        wanted = await asyncio.to_thread(service.reloading.read)
        change = await in_turn(service, who, service.reloading.propose, wanted, who.subject)
        return {"less": list(change.less), "change": change.change, "looser": list(change.looser)}

    @app.post("/v1/reload/approve")
    async def approve(asked: Change, who: Approver) -> dict[str, Any]:
        """Approve one exact change of clients and people."""
        log_it("approve clients and people", who, change=asked.change)
        return {"holds": await in_turn(service, who, service.reloading.approve, asked.change, who.subject)}


def _add_day(app: FastAPI, service: "GatewayService", log_it: Callable[..., None]) -> None:
    """The day, once its book is proposed."""

    @app.post("/v1/day/approve")
    async def approve(asked: Change, who: Approver) -> dict[str, Any]:
        """Approve one exact book; with the second person the day starts. Says where it differs from what was held."""
        log_it("approve day", who, change=asked.change)
        differs = await in_turn(service, who, service.approve_day, asked.change, who.subject)
        return {"holds": differs is not None, "differs": differs or []}

    @app.post("/v1/day/tighten")
    async def tighten(asked: Tighter, who: RiskOfficer) -> dict[str, Any]:
        """Let less through for the rest of the day: more restricted symbols, fewer located shares, smaller volumes."""
        log_it("tighten day", who)
        tighter = DayTightened(
            utc_ns=0, by=who.subject, restricted=tuple(asked.restricted), needs_locate=tuple(asked.needs_locate),
            locates=tuple(Locate(account=one.account, symbol=one.symbol, lots=one.lots) for one in asked.locates),
            adv_lots=tuple((one.symbol, one.adv_lots) for one in asked.volumes),
        )  # fmt: skip
        await apply(service, who, tighten_day, tighter)
        return {"tightened": True}

    @app.post("/v1/day/end")
    async def day_end(asked: Nothing, who: RiskOfficer) -> dict[str, Any]:
        """End the day and roll the journal; no order may be open."""
        log_it("end day", who)
        return {"journal": await in_turn(service, who, service.end_day)}


def _add_documents(app: FastAPI, service: "GatewayService", log_it: Callable[..., None]) -> None:
    """Commands whose body is a document, YAML or JSON."""
    body = {"required": True, "content": {"application/yaml": {"schema": {"type": "object"}}}}

    @app.post("/v1/limits/propose", openapi_extra={"requestBody": body})
    async def propose(request: Request, who: RiskOfficer) -> dict[str, Any]:
        """Propose limits: what is tighter holds at once, the rest when two people approved that exact change."""
        limits = await asyncio.to_thread(Limits.load, await document(request))  # a large one takes a while

        log_it("propose limits", who)
        change = await apply(service, who, propose_limits, limits, who.subject)
        return {"tightened": change.tightened, "change": change.change, "looser": list(change.looser)}

    @app.post("/v1/day/propose", openapi_extra={"requestBody": body})
    async def day_propose(request: Request, who: RiskOfficer) -> dict[str, Any]:
        """Propose a day's book: the day starts when two people approved exactly it."""
        book = parse_book(await asyncio.to_thread(load_yaml, await document(request)), "day")
        log_it("propose day", who, day=book.day)
        proposed = await in_turn(service, who, service.propose_day, book, who.subject)
        return {"change": proposed.change, "differs": proposed.differs}


async def apply(service: "GatewayService", who: Commander, change: Callable[..., T], *arguments: Any) -> T:
    """Run `change(gateway, *arguments, now)` in the deciding thread and commit it; raises as `in_turn` does."""

    def run() -> T:
        result = change(service.gateway, *arguments, read_now())
        service.try_commit()
        return result

    return await in_turn(service, who, run)


async def in_turn(service: "GatewayService", who: Commander, function: Callable[..., T], *arguments: Any) -> T:
    """Run in the deciding thread. Raises what the function raised, BusyError; NotAllowedError where who is struck."""
    assert service.deciding is not None

    def run() -> T:
        if not People(lambda: service.reloading.access.people).knows(who):  # struck off since he asked
            raise NotAllowedError(f"{who.subject} may no longer")
        return function(*arguments)

    return await _answer(service.deciding.call(run), CALL_S)


async def _answer(future: "Future[T]", limit_s: float) -> T:
    done = asyncio.wrap_future(future)
    await asyncio.wait([done], timeout=limit_s)
    if done.done():
        return done.result()
    taken_back = future.cancel()  # what waits in the queue must not happen when nobody expects it any more
    what = "it is not done" if taken_back else "it may still be done"
    raise BusyError(f"the deciding thread did not answer within {limit_s:g} s: {what}")
