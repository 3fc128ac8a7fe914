"""Clients and people anew while the gateway runs: at SIGHUP, or when someone asks. Venues take a restart."""

import asyncio
import logging
from typing import TYPE_CHECKING

from serving.gateway.access import Access, AccessChange, approve_access, note_access, propose_access
from serving.gateway.config import load_clients, load_people, service_subjects
from serving.gateway.fix_out import read_now

if TYPE_CHECKING:
    from serving.gateway.service import GatewayService

log = logging.getLogger(__name__)
HANGUP = "CN=SIGHUP"
"""Who proposes where the signal came: whoever may signal the process. It approves nothing."""


class Reloading:
    """Keeps who may do what. But for `read` everything is of the deciding thread."""

    def __init__(self, service: "GatewayService") -> None:
        """Read the files. Raises ConfigError."""
        self._service = service
        self.access = self.read()
        self._task: asyncio.Task[None] | None = None

    def read(self) -> Access:
        """The files as they are now, in any thread. Raises ConfigError."""
        settings = self._service.settings
        clients = load_clients(settings.clients)
        services = service_subjects(settings, self._service.venues)
        return Access(clients, load_people(settings.people, clients, services))

    def begin(self) -> None:
        """Journal whose files these are. Raises JournalError."""
        if note_access(self._service.gateway, self.access, read_now()):
            log.warning("clients or people are not those that the gateway last ran with: sha256 %s", self.access.hash())

    def propose(self, wanted: Access, by: str) -> AccessChange:
        """Let hold at once what is tighter, and the rest when two people approve. Raises PersonError, JournalError."""
        before = self.access
        self._hold(before.tightest(wanted))  # before the disk is asked: whoever is struck waits for nothing
        change = propose_access(self._service.gateway, before, wanted, by, read_now())
        for line in change.less:
            log.warning("no longer: %s", line)
        if change.looser:
            log.warning("more clients or people wait for two people: change %s", change.change,
                        extra={"looser": list(change.looser[:20])})  # fmt: skip
        return change

    def approve(self, change: str, by: str) -> bool:
        """Count a person; True once the change holds. Raises PersonError, JournalError."""
        found = approve_access(self._service.gateway, self.access, change, by, read_now())
        if found is not None:
            self._hold(found)
        return found is not None

    def hang_up(self) -> None:
        """SIGHUP came."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._again(), name="reload")

    async def _again(self) -> None:
        try:
            change = self.propose(await asyncio.to_thread(self.read), HANGUP)
        except Exception as error:  # what holds goes on holding
            log.error("SIGHUP: clients and people stay as they are: %s", error)
            return
        log.info("SIGHUP: %d struck or less, %d wait for two people", len(change.less), len(change.looser))

    def _hold(self, access: Access) -> None:
        service = self._service
        self.access = access
        service.directory.replace(access.clients)
        for line in set(service.orders.lines.values()):
            identity = line.identity
            assert identity is not None
            if identity.principal is None or not access.allows(identity.principal, identity.strategies):
                service.orders.strike(line, f"{identity.subject} may no longer send orders as it did")
