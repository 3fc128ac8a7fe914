import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import numpy as np
import pytest
from certificates import Authority
from policy_bundles import random_bundle

from serving.contracts.bundle import load_bundle
from serving.contracts.observation import OBSERVATION_NAMES, OBSERVATION_SIZE
from serving.decide.__main__ import main
from serving.decide.client import DecideClient
from serving.decide.local import LocalPolicies
from serving.decide.protocol import DecideError
from serving.decide.service import DecideService
from serving.decide.settings import DecideSettings
from serving.registry import Registry
from serving.wire.identity import client_tls, hash_token
from training.execution.static_rule import write_bundle_zero

TOKEN = "a" * 64


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    root = tmp_path_factory.mktemp("promoted") / "registry"
    ticks = count(1_000)
    registry = Registry(root, now_ns=lambda: next(ticks))
    registry.ensure_bundle_zero(write_bundle_zero)
    agent = random_bundle(root.parent / "agent", seed=1, stack=2, window=4)
    registry.promote(registry.register(agent.folder, {}), "night", force=True)
    continuous = random_bundle(root.parent / "continuous", seed=2, actions="continuous")
    registry.promote(registry.register(continuous.folder, {}), "night")
    return root


@pytest.fixture
def root(tmp_path, promoted):
    shutil.copytree(promoted, tmp_path / "registry")
    return tmp_path / "registry"


def settings_of(root, **changes):
    plain = {"port": 0, "metrics_port": 0, "watch_s": 0.02, "tokens": {"parents": hash_token(TOKEN)}}
    return DecideSettings(registry=root, folder=root.parent / "state", **{**plain, **changes})


@asynccontextmanager
async def running(root, **changes):
    """The service in this process; gives its URL and the service."""
    service = DecideService(settings_of(root, **changes))
    task = asyncio.create_task(service.run())
    ports = root.parent / "state" / "ports.json"
    try:
        while not ports.exists():
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
        service.ports = json.loads(ports.read_text())
        yield f"http://127.0.0.1:{service.ports['http']}", service
    finally:
        service.stop()
        await task


async def post(url, path, content, token=TOKEN):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url + path, data=content) as answer:
        return answer.status, json.loads(await answer.read())


async def until(holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (found := await holds()):
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.02)
    return found


def test_service_when_asked_over_http_then_answers_as_the_policies_in_process(root):
    bundles = [load_bundle(folder) for folder in sorted((root / "bundles").iterdir())]

    async def run():
        async with running(root) as (url, service):
            client = DecideClient(url, TOKEN)
            here = LocalPolicies(service.catalogue)
            listed = await client.policies()
            assert listed == await here.policies()
            assert (listed.champion.version, listed.challenger.version) == (2, 3)
            rng = np.random.default_rng(0)
            for bundle in bundles:
                for _ in range(20):
                    observation = rng.normal(size=bundle.stack * OBSERVATION_SIZE).astype(np.float32)
                    mask = np.array([1, *rng.integers(0, 2, 3)], np.float32)
                    given = None if bundle.action_set == "continuous" else mask
                    assert await client.decide(bundle.sha256, observation, given) == await here.decide(
                        bundle.sha256, observation, given
                    )
            agent = next(bundle for bundle in bundles if bundle.signal_onnx)
            features = rng.normal(size=(4, len(agent.metadata["feature_names"]))).astype(np.float32)
            found = await client.forecast(agent.sha256, features)
            np.testing.assert_array_equal(found, agent.forecast_bps(features[None])[0])
            await client.close()

    asyncio.run(run())


def bad_requests(sha256):
    row = [0.0] * OBSERVATION_SIZE * 2
    whole = {"sha256": sha256, "observation": row, "action_mask": [1, 1, 1, 1]}
    return [
        (b"", 422, "cannot be read"),
        (b"{", 422, "cannot be read"),
        (b"[]", 422, "cannot be read"),
        (json.dumps(whole | {"extra": 1}), 422, "extra"),
        (json.dumps(whole | {"observation": row[1:]}), 422, f"({1}, {len(row) - 1})"),
        (json.dumps(whole | {"observation": "x"}), 422, "observation"),
        (json.dumps(whole | {"observation": [float("nan"), *row[1:]]}), 422, "cannot be read"),
        (json.dumps(whole | {"observation": [1e300, *row[1:]]}), 422, f"{OBSERVATION_NAMES[0]} of row 0 is inf"),
        (json.dumps(whole).replace("0.0", "1e999", 1), 422, ""),
        (json.dumps(whole | {"action_mask": [0, 0, 0, 0]}), 422, "allows no action"),
        (json.dumps(whole | {"action_mask": [2, 0, 0, 0]}), 422, "other than 0 and 1"),
        (json.dumps(whole | {"action_mask": [10**30, 0, 0, 0]}), 422, ""),
        (json.dumps(whole | {"action_mask": [1]}), 422, "action mask"),
        (json.dumps({k: v for k, v in whole.items() if k != "action_mask"}), 422, "action_mask is missing"),
        (json.dumps(whole | {"sha256": "f" * 64}), 404, "f" * 64),
        (json.dumps(whole | {"sha256": "../../etc"}), 404, "etc"),
        (b"x" * (2**20 + 1), 413, "1048576"),
    ]


def test_service_when_the_request_is_bad_then_says_what_and_never_fails(root):
    async def run():
        async with running(root) as (url, service):
            for content, status, says in bad_requests(service.catalogue.champion.sha256):
                found, body = await post(url, "/v1/decide", content)
                assert (found, says in body["error"]) == (status, True), (content[:80], found, body)
            for content in ("{}", json.dumps({"sha256": service.catalogue.champion.sha256, "features": [[1.0], []]})):
                assert (await post(url, "/v1/forecast", content))[0] == 422

    asyncio.run(run())


@pytest.mark.parametrize("token", ["", "short", "b" * 64])
def test_service_when_the_token_is_not_known_then_answers_401_everywhere(root, token):
    async def run():
        async with running(root) as (url, _):
            for path in ("/v1/decide", "/v1/forecast", "/nowhere"):
                assert (await post(url, path, "{}", token))[0] == 401
            with pytest.raises(DecideError) as caught:
                client = DecideClient(url, token)
                try:
                    await client.policies()
                finally:
                    await client.close()
            assert caught.value.reason == "unauthorised"

    asyncio.run(run())


def test_service_when_a_champion_is_promoted_then_loads_it_hot_and_a_parent_ends_on_the_former(root):
    async def run():
        async with running(root) as (url, _):
            client = DecideClient(url, TOKEN)
            former = (await client.policies()).champion
            await asyncio.to_thread(Registry(root).promote, 3, "by hand", None, True)

            async def promoted():
                return (await client.policies()).champion.version == 3

            await until(promoted)
            observation = np.zeros(former.stack * OBSERVATION_SIZE, np.float32)
            assert (await client.decide(former.sha256, observation, np.ones(4))).version == former.version
            await client.close()

    asyncio.run(run())


def test_service_when_started_anew_then_a_former_champion_is_loaded_for_whoever_still_asks(root):
    former = next(v for v in Registry(root).list_versions() if v.version == 1)

    async def run():
        async with running(root) as (url, _):
            client = DecideClient(url, TOKEN)
            assert former.sha256 not in {policy.sha256 for policy in (await client.policies()).loaded}
            asked = client.decide(former.sha256, np.zeros(OBSERVATION_SIZE, np.float32), np.ones(4))
            assert (await asked).version == 1
            assert (await client.policies()).find(former.sha256) is not None
            await client.close()

    asyncio.run(run())


def test_service_when_the_promoted_bundle_was_tampered_with_then_refuses_it_and_goes_on(root, tmp_path):
    agent = random_bundle(tmp_path / "new", seed=9)
    registry = Registry(root)
    version = registry.register(agent.folder, {})

    def promote_tampered():
        registry.promote(version, "by hand", force=True)

    async def run():
        heard = []

        async def hear(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            heard.append(json.loads(await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        webhook = await asyncio.start_server(hear, "127.0.0.1", 0)
        alert_url = f"http://127.0.0.1:{webhook.sockets[0].getsockname()[1]}/"
        async with running(root, watch_s=60, alert_url=alert_url) as (url, service):
            client = DecideClient(url, TOKEN)
            before = (await client.policies()).champion
            stored = root / "bundles" / agent.sha256 / "policy.onnx"
            sound = stored.read_bytes()
            await asyncio.to_thread(promote_tampered)
            stored.write_bytes(load_bundle(root / "bundles" / before.sha256).policy_onnx)
            await asyncio.to_thread(service.catalogue.refresh)  # as when the journal's change is seen
            assert [item.what for item in service.catalogue.refusals] == [agent.sha256]
            assert (await client.policies()).champion == before
            metrics = await asyncio.to_thread(_get, service.ports["metrics"], "/metrics")
            assert b"shortfall_decide_refusals_total 1.0" in metrics

            async def alerted():
                return any(item["refused"] == agent.sha256 for item in heard)

            await until(alerted)
            stored.write_bytes(sound)
            await asyncio.to_thread(service.catalogue.refresh)
            assert (await client.policies()).champion.version == version
            assert service.catalogue.refusals == ()
            await client.close()

    asyncio.run(run())


def test_service_when_over_tls_then_only_named_certificates_may_ask(root, tmp_path):
    authority = Authority(tmp_path)
    own, parents, stranger = authority.issue("decide"), authority.issue("parents"), authority.issue("stranger")
    elsewhere = Authority(tmp_path, "another authority").issue("parents elsewhere")
    subject = "commonName=parents,organizationName=desk"
    tls = {"certificate": own[0], "key": own[1], "authority": authority.certificate, "subjects": [subject]}

    async def ask(url, pair):
        context = client_tls(*pair, authority.certificate)
        client = DecideClient(url.replace("http", "https"), tls=context)
        try:
            return await client.policies()
        finally:
            await client.close()

    async def run():
        async with running(root, **tls) as (url, service):
            assert (await ask(url, parents)).champion.version == 2
            for pair in (stranger, elsewhere):
                with pytest.raises(DecideError) as caught:
                    await ask(url, pair)
                assert caught.value.reason == "unavailable"

    asyncio.run(run())


def _get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def test_service_when_nothing_is_promoted_then_is_not_ready_until_something_is(root):
    journal, aside = root / "journal.jsonl", root / "aside"
    journal.rename(aside)

    async def run():
        async with running(root) as (url, service):
            client = DecideClient(url, TOKEN)
            assert (await client.policies()).champion is None
            assert b"no champion" in await asyncio.to_thread(_get, service.ports["metrics"], "/readyz")
            aside.rename(journal)

            async def ready():
                return await asyncio.to_thread(_get, service.ports["metrics"], "/readyz") == b"ok\n"

            await until(ready)
            assert await asyncio.to_thread(_get, service.ports["metrics"], "/livez") == b"ok\n"
            await client.close()

    asyncio.run(run())


def test_client_when_nobody_listens_then_says_unavailable():
    async def run():
        client = DecideClient("http://127.0.0.1:9", TOKEN, deadline_s=1.0)
        with pytest.raises(DecideError) as caught:
            await client.policies()
        await client.close()
        assert caught.value.reason == "unavailable"

    asyncio.run(run())


@pytest.mark.parametrize("answer, reason", [(None, "late"), (b"nonsense", "unavailable")])
def test_client_when_the_service_hangs_or_speaks_otherwise_then_says_so_in_time(answer, reason):
    async def serve(reader, writer):
        await reader.read(100)
        if answer is None:
            await asyncio.sleep(5)
        else:
            writer.write(answer)
        writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = DecideClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN, deadline_s=0.3)
        with pytest.raises(DecideError) as caught:
            await client.policies()
        await client.close()
        server.close()
        assert caught.value.reason == reason

    asyncio.run(run())


def start(root, **more):
    environment = {
        "SHORTFALL_DECIDE_REGISTRY": str(root),
        "SHORTFALL_DECIDE_FOLDER": str(root.parent / "state"),
        "SHORTFALL_DECIDE_PORT": "0",
        "SHORTFALL_DECIDE_METRICS_PORT": "0",
        "SHORTFALL_DECIDE_TOKENS": json.dumps({"parents": hash_token(TOKEN)}),
        **{f"SHORTFALL_DECIDE_{name}": value for name, value in more.items()},
    }
    command = [sys.executable, "-m", "serving.decide"]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_when_signalled_then_ends_with_0_and_its_log_is_json(root, number):
    process = start(root)
    ports = root.parent / "state" / "ports.json"
    deadline = time.monotonic() + 60
    while not ports.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    records = [json.loads(line) for line in log.splitlines()]
    assert any("deciding on" in record["message"] for record in records)
    assert TOKEN not in log


def test_process_when_the_promoters_key_is_absent_then_ends_with_2_and_one_line(root, capsys):
    shutil.rmtree(root / "keys")
    assert main(["--registry", str(root), "--allow-anonymous-loopback", "true"]) == 2
    assert "promoter.pub" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--host", "0.0.0.0", "--allow-anonymous-loopback", "true"], "not a loopback address"),
        ([], "nobody could ask"),
        (["--certificate", "x.pem", "--allow-anonymous-loopback", "true"], "go together"),
        (["--port", "70000", "--allow-anonymous-loopback", "true"], "65535"),
    ],
)
def test_process_when_settings_contradict_then_ends_with_2_and_says_what(arguments, says, capsys):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_serving_path_of_a_decision_then_holds_neither_training_nor_torch_nor_pickle():
    code = (
        "import sys, serving.decide.service, serving.decide.client, serving.decide.local\n"
        "banned = ('training', 'flows', 'torch', 'ray', 'pyspark', 'mlflow', 'onnx')\n"
        "print([name for name in sys.modules if name.split('.')[0] in banned])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
