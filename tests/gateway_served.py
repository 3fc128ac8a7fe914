"""The gateway's process inside a test's own process, without a venue: what people can do, and what they cannot."""

import asyncio
import gc
import sys
import threading
from pathlib import Path

import httpx
from fix_peers import free_port, until

from serving.gateway.fix_out import read_now
from serving.gateway.paper import PaperInstrument, write_paper
from serving.gateway.process import GatewayProcess
from serving.gateway.recovery import reconcile
from serving.gateway.settings import GatewaySettings


class Served:
    """A gateway that serves in a thread. Nobody is at its venue's ports, and no limits hold unless `limits` says so.

    The day of the files is approved by two people; with `day` None it waits for them, with False there is none.
    """

    def __init__(self, folder: Path, limits=False, day: bool | None = True, **settings) -> None:
        self._approves = day
        names = [PaperInstrument("SYN1", tick_size="0.01", mark_ticks=10_000)]
        self.files = write_paper(folder, names, fix_port=free_port(), feed_port=free_port())
        given = self.files.settings()
        if not limits:
            given.pop("limits")
        if day is False:
            given.pop("day")
        values = {
            "order_port": 0, "admin_port": 0, "metrics_port": 0, "stop_s": 0, "barrier_s": 0.2, "reconcile_s": 0.2,
            "paper": True, "clock": "assumed", **given, **settings,
        }  # fmt: skip
        self.settings = GatewaySettings(**values)
        self.process: GatewayProcess | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def go():
            self.process = GatewayProcess(self.settings)
            await self.process.run()

        try:
            asyncio.run(go())
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> "Served":
        self._own = gc.get_threshold(), sys.getswitchinterval()  # of the tests' process: the gateway sets its own
        self._thread.start()
        until(lambda: self.failure or (self.settings.folder / "ports.json").exists(), "the gateway")
        if self.failure:
            raise self.failure
        until(lambda: self.process.admin.is_up, "the admin plane")
        if self._approves:
            self.do(self._approve_day)
        return self

    def _approve_day(self) -> None:
        for change, item in list(self.gateway.state.proposals.items()):
            if item.kind == "day":
                assert [self.service.approve_day(change, who) is not None for who in ("CN=x", "CN=y")] == [False, True]

    def __exit__(self, *_) -> None:
        self.process.service.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        threshold, interval_s = self._own
        gc.unfreeze()
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval_s)

    @property
    def service(self):
        return self.process.service

    @property
    def gateway(self):
        return self.process.service.gateway

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.process.admin.port}"

    def client(self, who: str | None = "ann", **more) -> httpx.Client:
        headers = {} if who is None else {"Authorization": f"Bearer {self.files.admin_tokens[who]}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=20, **more)

    def do(self, function, *arguments):
        """Run in the deciding thread."""
        return self.service.deciding.ask(function, *arguments)

    def reconcile(self) -> None:
        """As if the venue had said that nothing is open."""
        self.do(lambda: reconcile(self.gateway, lambda venue, order_id: None, {}, (), read_now()))
