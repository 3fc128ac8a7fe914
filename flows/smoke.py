"""Watches what serving does with a new champion: it must load it and answer the decisions that the bundle records.

The gateway takes no part: a policy is a file that decide and parents load, and nothing is restarted.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import ShortfallError
from flows.settings import Settings
from serving.contracts.bundle import load_bundle
from serving.contracts.smoke import SECTION, TOLERANCE
from serving.decide.client import DecideClient
from serving.decide.protocol import DecideError, PolicyClient

POLL_S = 1.0


class SmokeError(ShortfallError):
    """Serving does not decide by the new champion as its bundle says that it must."""


def open_client(config: Settings) -> DecideClient | None:
    """A client of decide by the settings; None where no address is given."""
    if not config.decide_url:
        return None
    tls = None
    if config.decide_tls is not None:
        from serving.wire.identity import client_tls

        folder = config.decide_tls
        tls = client_tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    token = config.decide_token.get_secret_value() if config.decide_token else ""
    return DecideClient(config.decide_url, token, tls, deadline_s=5.0)


def watch_champion(config: Settings, bundle: Path) -> str | None:
    """Wait until decide has the bundle as its champion, then ask it; a sentence of what was seen, None without decide.

    Several answers in a row must be right, since several replicas may answer. Raises SmokeError where the champion is
    not announced within `config.decide_wait_s`, or an answer is wrong or fails.
    """

    async def run() -> str | None:
        client = open_client(config)
        if client is None:
            return None
        try:
            return await check_champion(client, bundle, config.decide_wait_s, config.decide_answers)
        finally:
            await client.close()

    return asyncio.run(run())


async def check_champion(client: PolicyClient, folder: Path, wait_s: float, answers: int) -> str:
    """As `watch_champion`, with a client. `answers` in a row must be right."""
    bundle = load_bundle(folder)
    limit = time.monotonic() + wait_s
    right, seen = 0, "nothing"
    while right < answers:
        try:
            champion = (await client.policies()).champion
            announced = champion is not None and champion.sha256 == bundle.sha256
            seen = f"champion {champion.sha256[:16]}" if champion else "no champion"
        except DecideError as error:
            announced, seen = False, str(error)
        if announced:
            await _ask(client, bundle.sha256, bundle.metadata.get(SECTION), right)
            right += 1
            continue
        right = 0
        if time.monotonic() > limit:
            raise SmokeError(
                f"decide did not announce champion {bundle.sha256[:16]} within {wait_s:.0f} s; last seen: {seen}"
            )
        await asyncio.sleep(min(POLL_S, wait_s / 10))
    return f"decide answered {answers} smoke decisions as recorded"


async def _ask(client: PolicyClient, sha256: str, section: dict[str, Any] | None, turn: int) -> None:
    """One recorded decision; the next one each turn. A bundle from before the record is asked for nothing more."""
    if not section or not section.get("observation"):
        return
    row = turn % len(section["observation"])
    observation = np.array(section["observation"][row], np.float32)
    mask = np.array(section["action_mask"][row], np.float32)
    try:
        answer = await client.decide(sha256, observation, mask)
    except DecideError as error:
        raise SmokeError(f"decide failed a smoke decision of {sha256[:16]}: {error}") from error
    recorded = section["action"][row]
    same = (
        answer.action == recorded
        if isinstance(recorded, int)
        else bool(np.allclose(np.array(answer.action), np.array(recorded), rtol=TOLERANCE, atol=TOLERANCE))
    )
    if not same:
        raise SmokeError(f"decide answered {answer.action} to smoke observation {row} of {sha256[:16]}, not {recorded}")
