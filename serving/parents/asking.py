"""The policy service as the process sees it: which policies there are, what they decide, and why they do not."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from serving.decide.client import DecideClient
from serving.decide.protocol import DecideError, PolicyClient
from serving.parents.core import Core
from serving.parents.outputs import Ask
from serving.parents.settings import ParentsSettings

log = logging.getLogger(__name__)


class Asker:
    """Hands a core the answers to what it asks. `changed` is called whenever the core may want something for it."""

    def __init__(
        self, core: Core, settings: ParentsSettings, changed: Callable[[], None], client: PolicyClient | None
    ) -> None:
        """Ask `client`, or the decide service of the settings. Raises OSError where its token's file cannot be read."""
        self._core, self._settings, self._changed = core, settings, changed
        tls = settings.tls_to_others() if settings.decide_url.startswith("https://") else None
        self._client = client or DecideClient(
            settings.decide_url, settings.decide_bearer(), tls, deadline_s=settings.decide_deadline_s
        )

    async def first(self, stopped: Callable[[], bool]) -> None:
        """Wait for a champion at the start; without one parents begin with the fallback."""
        deadline = time.monotonic() + self._settings.decide_wait_s
        while not await self._poll() and time.monotonic() < deadline and not stopped():
            await asyncio.sleep(min(0.1, self._settings.policies_s))

    async def follow(self) -> None:
        """Hear of promotions, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.policies_s)
            await self._poll()

    async def ask(self, ask: Ask) -> None:
        """Ask a policy, and hand the core its answer or the reason why there is none."""
        answer: Any
        try:
            async with asyncio.timeout(self._settings.decide_deadline_s):
                if ask.features is not None:
                    answer = await self._client.forecast(ask.sha256, ask.features)
                else:
                    assert ask.observation is not None
                    answer = await self._client.decide(ask.sha256, ask.observation, ask.mask)
        except TimeoutError:
            answer = DecideError("late", f"no answer within {self._settings.decide_deadline_s:g} s")
        except DecideError as error:
            answer = error
        except Exception as error:  # whatever a client may raise: the fallback is for that
            answer = DecideError("refused", f"{type(error).__name__}: {error}")
        if ask.features is not None:
            self._core.forecasted(ask.ask_id, answer, time.time_ns())
        else:
            self._core.decided(ask.ask_id, answer, time.time_ns())

    async def close(self) -> None:
        """Let go of the line."""
        await self._client.close()

    async def _poll(self) -> bool:
        try:
            found = await self._client.policies()
        except DecideError as error:
            log.debug("no policies: %s", error)
            return False
        self._core.on_policies(found)
        self._changed()
        return found.champion is not None
