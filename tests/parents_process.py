"""The EMS with the real gateway and the real venue behind it on loopback; policies are the test's own.

Run as a program it is the process that a test kills: `python parents_process.py settings.json`.
"""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from feature_repo.ticks.instruments import save_instruments
from serving.decide.protocol import DecideError, Policies, Policy, PolicyDecision
from serving.parents.service import ParentsService
from serving.parents.settings import ParentsSettings
from serving.wire.identity import hash_token

SYMBOL, ACCOUNT, STRATEGY, FALLBACK = "SYN1", "main", "policy", "twap"
HTTP_TOKEN = "h" * 40
FIX_TOKEN = "f" * 40


class Resting:
    """A policy client without a service: rests at the best price, or takes; late or wrong where it is told to be."""

    def __init__(self, version=1, interval_s=10, prefer=(1, 3, 0)):
        execution = {"decision_interval_s": interval_s, "decisions_per_slice": 1, "ahead_slices": 1}
        self.champion = Policy(version, f"{version:064x}", "static", "discrete", 1, execution)
        self.challenger = None
        self.prefer, self.asked, self.fails = prefer, 0, None

    async def policies(self):
        return Policies(self.champion, self.challenger, (self.champion,))

    async def decide(self, sha256, observation, action_mask=None):
        self.asked += 1
        if self.fails is not None:
            raise DecideError(self.fails, "as the test wants it")
        action = next(item for item in self.prefer if action_mask[item])
        return PolicyDecision(sha256, self.champion.version, int(action), ())

    async def forecast(self, sha256, features):
        return np.zeros(3, np.float32)

    async def close(self):
        return None


def settings_for(folder: Path, trading, **more) -> ParentsSettings:
    """Settings of an EMS for the venue and gateway of a `gateway_process.Trading`."""
    from training.market.venue.days import synthetic_listings

    words = [word for word in getattr(trading, "venue_words", ()) if word.startswith("--hours=")]
    hours = float(words[-1].partition("=")[2]) if words else 0.05
    listing = synthetic_listings([SYMBOL], "2025-01-06", hours, 7, 0.6)[SYMBOL]
    facts = folder / "facts"
    facts.mkdir(parents=True, exist_ok=True)
    save_instruments([listing.instrument], facts)
    values = {
        "folder": folder / "parents", "instruments": facts, "venue": "SYN", "symbols": [SYMBOL],
        "accounts": {ACCOUNT: {"strategy": STRATEGY, "fallback_strategy": FALLBACK,
                               "order_token": trading.files.client_token}},
        "feed_url": f"ws://127.0.0.1:{trading.feed_port}", "gateway_port": trading.ports["order"], "paces": True,
        "port": 0, "metrics_port": 0, "fix_port": 0, "decide_wait_s": 1.0, "policies_s": 0.05,
        "clients": {"oms": {"account": ACCOUNT, "token_sha256": hash_token(HTTP_TOKEN)}},
        **more,
    }  # fmt: skip
    return ParentsSettings(**values)


def main(path: str) -> int:
    """Serve with the settings of a file until killed."""
    plain = json.loads(Path(path).read_text())

    async def serve() -> None:
        await ParentsService(ParentsSettings(**plain), Resting(interval_s=5)).run()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
