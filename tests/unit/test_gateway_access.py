"""Clients and people while the gateway runs: struck at once, added by two people; two tokens are no two people."""

import asyncio
import secrets

import pytest
import yaml
from fix_peers import until
from gateway_process import Desk
from gateway_served import Served
from gateway_world import World

from serving.contracts.decisions import Denied
from serving.gateway.access import Access, approve_access, note_access, propose_access
from serving.gateway.config import Commander, ConfigError, load_people
from serving.gateway.people import PersonError
from serving.wire.frames import Hello
from serving.wire.identity import Principal, hash_token
from serving.wire.link import connect

RISK = frozenset({"read", "risk"})


def person(name, scopes=RISK, token=""):
    return Commander(f"cn={name}", frozenset(scopes), token)


def client(strategies=("S1",), account="A1", subject="commonName=desk"):
    return Principal(account, frozenset(strategies), subject)


BEFORE = Access((client(),), (person("ann"), person("bob"), person("eve", {"read", "kill"})))


def test_tighter_part_of_a_mixed_change_holds_and_only_the_rest_waits():
    wanted = Access(
        (client(("S1", "S2")), client(("S3",), "A2", "commonName=new")),
        (person("ann"), person("bob", {"risk"}), person("eve", {"kill", "risk"}), person("zoe", {"read"})),
    )
    held = BEFORE.tightest(wanted)
    assert held.looser_than(BEFORE) == [] and held.looser_than(wanted) == []
    assert BEFORE.looser_than(held) == ["cn=bob holds read", "cn=eve holds read"]
    assert wanted.looser_than(held) == [
        "client commonName=desk of account A1 speaks for S2", "client commonName=new of account A2 speaks for S3",
        "cn=eve holds risk", "cn=zoe holds read",
    ]  # fmt: skip


def test_another_token_is_another_person_and_another_client():
    token, other = "a" * 64, "b" * 64
    before = Access((Principal("A1", frozenset({"S1"}), "", token),), (person("ann", token=token),))
    after = Access((Principal("A1", frozenset({"S1"}), "", other),), (person("ann", token=other),))
    assert before.tightest(after) == Access((), ())
    assert len(after.looser_than(before)) == 2


def test_addition_holds_with_two_people_for_that_change_alone_and_is_journalled():
    world = World()
    wanted = BEFORE._replace(people=(*BEFORE.people, person("zoe")))
    other = BEFORE._replace(people=(*BEFORE.people, person("mia")))
    first = propose_access(world.gateway, BEFORE, wanted, "CN=ann", world.clock())
    second = propose_access(world.gateway, BEFORE, other, "CN=ann", world.clock())
    assert not first.less and first.looser == ("cn=zoe holds read, risk",)
    approve = lambda change, by: approve_access(world.gateway, BEFORE, change, by, world.clock())  # noqa: E731
    assert approve(first.change, "CN=ann") is None and approve(second.change, "CN=bob") is None
    with pytest.raises(PersonError, match="another person must"):
        approve(first.change, "cn=ANN")
    assert approve(first.change, "CN=bob") == wanted
    assert world.state.access == wanted.hash()
    with pytest.raises(PersonError, match="not proposed"):  # measured against what held before
        approve(second.change, "CN=ann")


def test_whoever_is_struck_takes_his_approvals_along():
    world = World()
    wanted = BEFORE._replace(people=(*BEFORE.people, person("zoe")))
    change = propose_access(world.gateway, BEFORE, wanted, "CN=eve", world.clock()).change
    approve_access(world.gateway, BEFORE, change, "CN=ann", world.clock())
    without = BEFORE._replace(people=BEFORE.people[1:])
    done = propose_access(world.gateway, BEFORE, without, "CN=bob", world.clock())
    assert done.less == ("cn=ann holds read, risk",) and not done.change
    assert change not in world.state.proposals and world.state.access == without.hash()


def test_files_that_changed_between_two_runs_are_journalled_and_said():
    world = World()
    assert not note_access(world.gateway, BEFORE, world.clock())
    sequence = world.gateway.journal.sequence
    assert not note_access(world.gateway, BEFORE, world.clock()) and world.gateway.journal.sequence == sequence
    world.disk.crash()
    world.restart()
    assert note_access(world.gateway, BEFORE._replace(people=()), world.clock())


def test_two_people_with_one_token_are_refused(tmp_path):
    digest = hash_token(secrets.token_hex(24))
    people = [{"subject": f"CN={name}", "scopes": ["risk"], "token_sha256": digest} for name in ("ann", "bob")]
    (tmp_path / "people.yaml").write_text(yaml.safe_dump({"people": people}))
    with pytest.raises(ConfigError, match="token_sha256 stands twice"):
        load_people(tmp_path / "people.yaml", ())


def test_two_tokens_are_no_two_people_but_on_paper(tmp_path):
    with Served(tmp_path, limits=True, day=None, paper=False, clock="kernel") as served, served.client("ann") as ann:
        waiting = {item["kind"]: item["change"] for item in ann.get("/v1/proposals").json()["proposals"]}
        assert set(waiting) == {"limits", "day"}
        place = {"scope": "strategy", "name": "policy"}
        assert ann.post("/v1/kill", json=place).status_code == 200  # what stops takes one, by whatever he is known
        for path, body in (
            ("limits/approve", {"change": waiting["limits"]}), ("day/approve", {"change": waiting["day"]}),
            ("reload/approve", {"change": "0" * 64}), ("liquidate", place),
        ):  # fmt: skip
            for who in ("ann", "bob"):
                with served.client(who) as someone:
                    answer = someone.post(f"/v1/{path}", json=body)
                assert answer.status_code == 403 and "two certificates" in answer.json()["error"]
        assert served.gateway.state.limits is None and not served.gateway.state.day_open
        assert all(not item.approvals for item in served.gateway.state.proposals.values())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("access"), day=None) as served:
        yield served


@pytest.fixture()
def files(served):
    """Edits a file of the settings; both are as they were afterwards, in force too."""
    paths = {name: served.files.folder / f"{name}.yaml" for name in ("people", "clients")}
    texts, access = {name: path.read_text() for name, path in paths.items()}, served.service.reloading.access

    def edit(name, change):
        document = yaml.safe_load(paths[name].read_text())
        change(document[name])
        paths[name].write_text(yaml.safe_dump(document))

    yield edit
    for name, path in paths.items():
        path.write_text(texts[name])
    served.do(lambda: served.service.reloading._hold(access))


def test_day_waits_on_the_page_and_starts_with_the_second_person(served):
    with served.client("ann") as ann, served.client("bob") as bob:
        [shown] = ann.get("/v1/proposals").json()["proposals"]
        assert shown["kind"] == "day" and shown["by"] == "cn=settings" and "SYN1 is new" in " ".join(shown["says"])
        assert ann.get("/v1/state").json()["proposals"][0]["kind"] == "day"
        change = {"change": shown["change"]}
        assert ann.post("/v1/day/approve", json=change).json() == {"holds": False, "differs": []}
        assert ann.post("/v1/day/approve", json=change).status_code == 403
        assert not served.gateway.state.day_open
        assert bob.post("/v1/day/approve", json=change).json() == {"holds": True, "differs": []}
        assert served.gateway.state.day_open
        assert ann.post("/v1/day/start", json={}).status_code == 405  # as it was: one person's
        assert ann.post("/v1/day/tighten", json={"restricted": ["SYN1"]}).json() == {"tightened": True}
        assert served.gateway.state.symbols["SYN1"].restricted


def test_person_who_is_struck_commands_nothing_and_hears_no_more(served, files):
    with served.client("mon") as monitor, served.client("ann") as ann, monitor.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        files("people", lambda people: people.pop(2))
        answer = ann.post("/v1/reload", json={}).json()
        assert answer == {"less": ["cn=mon (by token) holds read"], "change": "", "looser": []}
        assert monitor.get("/v1/state").status_code == 401
        for _ in lines:  # ends
            pass


def test_person_who_is_new_waits_for_two_people(served, files):
    token = secrets.token_hex(24)
    zoe = {"subject": "CN=zoe", "scopes": ["kill"], "token_sha256": hash_token(token)}
    files("people", lambda people: people.append(zoe))
    served.files.admin_tokens["zoe"] = token
    with served.client("ann") as ann, served.client("bob") as bob, served.client("zoe") as new:
        answer = ann.post("/v1/reload", json={}).json()
        assert answer["less"] == [] and "cn=zoe" in answer["looser"][0]
        says = next(item for item in ann.get("/v1/proposals").json()["proposals"] if item["kind"] == "access")
        assert says["says"] == answer["looser"] and says["document"] is None
        kill = {"scope": "strategy", "name": "nobody"}
        assert ann.post("/v1/reload/approve", json={"change": answer["change"]}).json() == {"holds": False}
        assert new.post("/v1/kill", json=kill).status_code == 401
        assert bob.post("/v1/reload/approve", json={"change": answer["change"]}).json() == {"holds": True}
        assert new.post("/v1/kill", json=kill).status_code == 200
        assert served.gateway.state.access == served.service.reloading.access.hash()


def test_client_that_is_struck_loses_its_line_and_what_it_sent_is_not_decided(served, files):
    async def work():
        desk = await Desk(served.files.client_token).open(served.service.ports["order"])
        denied = await desk.ask(desk.order(price=10_000))  # answered: the gateway knows the line
        assert isinstance(denied, Denied)
        line = next(iter(served.service.orders.lines.values()))
        files("clients", lambda clients: clients.clear())
        wanted, sequence = served.service.reloading.read(), served.gateway.state.next_id
        late = desk.order(price=10_000)

        def strike():  # what came in the same moment waits behind it
            served.service.orders.requests(line, [late])
            served.service.reloading.propose(wanted, "CN=ann")

        await asyncio.to_thread(served.do, strike)
        await desk.until(lambda: desk.downs)
        assert (
            late.key not in desk.decisions and (late.account, late.strategy, late.key) not in served.gateway.state.keys
        )
        assert served.gateway.state.next_id == sequence
        assert not served.gateway.live.beat("policy").connected
        hello = Hello(account="main", strategies=("policy",), token=served.files.client_token)
        with pytest.raises(ConnectionError, match="not authenticated"):
            await connect(desk, hello, "127.0.0.1", served.service.ports["order"])

    asyncio.run(work())


def test_file_that_is_wrong_changes_nothing(served, files):
    before = served.service.reloading.access
    files("people", lambda people: people.append({"subject": "CN=ann", "scopes": ["risk"]}))
    with served.client("ann") as ann:
        answer = ann.post("/v1/reload", json={})
    assert answer.status_code == 422 and "stands twice" in answer.json()["error"]
    served.do(served.service.reloading.hang_up)
    until(lambda: served.service.reloading._task.done(), "the reload")
    assert served.service.reloading.access == before
