"""Everything of the gateway's process: the service, and what shows and commands it (admin plane, metrics, alerts)."""

from serving.gateway.service import GatewayService
from serving.gateway.settings import GatewaySettings


class GatewayProcess:
    """Starts and stops the parts in order. Made and run in the deciding thread."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.service = GatewayService(settings)

    async def run(self) -> None:
        """Serve until a signal comes or `service.stop` is called."""
        await self.service.run()
