"""An account's line to the gateway: opened again whenever it is down, with what came on it handed over in order."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Protocol

from serving.contracts.decisions import Decision
from serving.contracts.orders import Report, Request
from serving.wire.frames import Hello
from serving.wire.link import ClientLine, connect

log = logging.getLogger(__name__)
RETRY_S = 0.5
UNANSWERED_S = 10.0
"""A gateway that leaves a request unanswered for so long is asked again on a new line."""


class LineUser(Protocol):
    """Hears what comes on a line; called in the event loop's thread."""

    def line_up(self, account: str) -> None:
        """The line is open; what it repeated at its opening was handed over before."""

    def line_down(self, account: str, reason: str) -> None:
        """The line is down."""

    def decided(self, account: str, decision: Decision) -> None:
        """The gateway's answer."""

    def reported(self, account: str, report: Report) -> None:
        """The venue's word."""


class GatewayLine:
    """One account's line; its strategies are named in one HELLO."""

    def __init__(
        self,
        account: str,
        strategies: tuple[str, ...],
        token: Callable[[], str],
        host: str,
        port: int,
        user: LineUser,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`token` is asked at each connection: "" behind TLS."""
        self.account = account
        self._strategies, self._token, self._user = strategies, token, user
        self._host, self._port, self._tls = host, port, tls
        self._line: ClientLine | None = None
        self._down = asyncio.Event()
        self._waiting: dict[str, float] = {}  # since when keys are unanswered

    @property
    def is_up(self) -> bool:
        """Requests go out now."""
        return self._line is not None and self._line.is_up

    def send(self, requests: list[Request]) -> None:
        """Send; on a line that is down they go nowhere, and are repeated when it is back."""
        if self._line is not None and self._line.is_up:
            now = asyncio.get_running_loop().time()
            for request in requests:
                self._waiting.setdefault(request.key, now)
            self._line.send(*requests)

    async def run(self) -> None:
        """Keep the line open until cancelled."""
        said = ""
        while True:
            self._down.clear()
            try:
                hello = Hello(account=self.account, strategies=self._strategies, token=self._token())
                self._line = await connect(self, hello, self._host, self._port, self._tls)
                log.info("the line of account %s to the gateway is open", self.account)
                said = ""
                self._user.line_up(self.account)
                await self._until_down()
            except (OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                if reason != said:
                    said = reason
                    self._user.line_down(self.account, reason)
            finally:
                self._close("stopping")
            await asyncio.sleep(RETRY_S)

    # What a ClientLine tells ------------------------------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """See serving.wire.link.Client."""
        self._waiting.pop(decision.key, None)
        self._user.decided(self.account, decision)

    def reported(self, report: Report) -> None:
        """See serving.wire.link.Client."""
        self._user.reported(self.account, report)

    def down(self, reason: str) -> None:
        """See serving.wire.link.Client."""
        self._down.set()
        self._user.line_down(self.account, reason)

    async def _until_down(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._down.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._down.wait()
            except TimeoutError:
                oldest = min(self._waiting.values(), default=loop.time())
                if loop.time() - oldest > UNANSWERED_S:
                    self._waiting.clear()
                    if self._line is not None:  # its end must come before the next line's beginning
                        self._line.cut(f"a request is unanswered for {UNANSWERED_S:g} s")

    def _close(self, reason: str) -> None:
        self._waiting.clear()
        if self._line is not None:
            self._line.close(reason)
            self._line = None
