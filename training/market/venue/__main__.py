"""`python -m training.market.venue`: the paper venue, by settings from SHORTFALL_VENUE_* and the command line."""

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from feature_repo.errors import InputError, ShortfallError
from serving.observe.entry import run_process
from training.market.venue.days import Listing, depth_listings, silver_listings, synthetic_listings
from training.market.venue.settings import VenueSettings


def load(settings: VenueSettings) -> Mapping[str, Listing]:
    """The symbols that the settings name. Raises InputError where they cannot be had."""
    latency_ns = None if settings.latency_us is None else 1000 * settings.latency_us
    if settings.data is not None:
        if settings.world == "replay":
            return silver_listings(settings.data, settings.symbols, settings.date, latency_ns)
        return depth_listings(settings.data, settings.symbols, settings.date, latency_ns, settings.fill_model)
    reactive = settings.world == "reactive"
    return synthetic_listings(
        settings.symbols, settings.date, settings.hours, settings.seed, settings.strength, latency_ns, reactive
    )


def run(settings: VenueSettings) -> None:
    """Run until the day is over or a signal comes.

    Raises InputError for settings that cannot be met, OSError where a port or the log's file cannot be had.
    """
    from training.market.venue.service import VenueService

    async def serve() -> None:
        try:
            await VenueService(settings, listings).run()
        finally:
            # It ends: with the default that the loop gives back, a signal that comes now would look like a failure.
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            with suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

    listings = load(settings)
    asyncio.run(serve())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 for a day that ended or a signal, 2 for bad settings, 1 for what failed; one line says what."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run_process(
        VenueSettings,
        arguments,
        run,
        (InputError, FileExistsError),
        (OSError, RuntimeError, ShortfallError, ValueError),
    )


if __name__ == "__main__":
    raise SystemExit(main())
