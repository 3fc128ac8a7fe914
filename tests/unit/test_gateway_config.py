"""The files that the gateway is told by, who may stand in them, and the offset of the clock."""

import pytest
import yaml
from certificates import Authority
from gateway_process import INSTRUMENT

from serving.gateway import clock_offset
from serving.gateway.config import (
    ConfigError,
    load_book,
    load_clients,
    load_people,
    load_venues,
    parse_book,
    service_subjects,
    subject_of,
)
from serving.gateway.order_server import told_by
from serving.gateway.paper import write_paper
from serving.gateway.settings import GatewaySettings
from serving.wire.identity import hash_token

TOKEN = hash_token("t" * 32)


@pytest.fixture()
def files(tmp_path):
    return write_paper(tmp_path, [INSTRUMENT])


def people_file(tmp_path, *people):
    path = tmp_path / "people.yaml"
    path.write_text(yaml.safe_dump({"people": list(people)}))
    return path


def test_paper_files_are_sound(files):
    folder = files.folder
    assert load_venues(folder / "venues.yaml")["SYN"].is_loopback
    people = load_people(folder / "people.yaml", load_clients(folder / "clients.yaml"))
    assert {item.subject: item.scopes for item in people}["cn=risk"] == {"posture"}
    assert load_book(folder / "day.yaml").instruments[0].symbol == "SYN1"


@pytest.mark.parametrize("scope", ["kill", "risk", "arm"])
def test_process_that_runs_a_model_holds_no_admin_scope(tmp_path, scope):
    path = people_file(tmp_path, {"subject": "CN=parents", "scopes": ["read", scope], "runs_model": True})
    with pytest.raises(ConfigError, match=f"runs a model and may not hold {scope}"):
        load_people(path, ())


@pytest.mark.parametrize(
    "person",
    [
        {"subject": "CN=parents,O=desk", "scopes": ["read"]},
        {"subject": "o=DESK, cn=Parents", "scopes": ["kill"]},  # the same subject in another spelling
        {"subject": "CN=other", "scopes": ["kill"], "token_sha256": TOKEN},
    ],
)
def test_whoever_sends_orders_holds_no_scope_at_all(tmp_path, person):
    clients = tmp_path / "clients.yaml"
    entry = {"account": "a", "strategies": ["s"], "subject": "commonName=parents,organizationName=desk"}
    clients.write_text(yaml.safe_dump({"clients": [{**entry, "token_sha256": TOKEN}]}))
    with pytest.raises(ConfigError, match="sends orders"):
        load_people(people_file(tmp_path, person), load_clients(clients))


@pytest.mark.parametrize("scopes", [["read"], ["kill"], ["posture"]])
@pytest.mark.parametrize("says", [{}, {"runs_model": True}, {"runs_model": False}])
def test_certificate_of_a_process_holds_no_scope_whatever_the_people_file_says(tmp_path, scopes, says):
    services = {"commonName=decide": "of a process (services)", "CN=Venue,O=Exchange": "that of venue SYN"}
    for subject, whose in (
        ("CN=decide", "of a process"),
        ("cn=DECIDE", "of a process"),
        ("O=exchange,CN=venue", "venue"),
    ):
        path = people_file(tmp_path, {"subject": subject, "scopes": scopes, **says})
        with pytest.raises(ConfigError, match=f"is .*{whose}.*no person: it holds no scope"):
            load_people(path, (), services)
    assert load_people(people_file(tmp_path, {"subject": "CN=ann", "scopes": scopes}), (), services)


def test_certificates_that_the_settings_name_are_no_people_s(files, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway", "Shortfall")
    shown, own = authority.issue("member 7", "Exchange")
    path = files.folder / "venues.yaml"
    document = yaml.safe_load(path.read_text())
    fix, tls = document["venues"]["SYN"]["fix"], {"key": str(own), "authority": str(authority.certificate)}
    fix |= {"certificate": str(shown), "subject": "commonName=venue,organizationName=Exchange", **tls}
    path.write_text(yaml.safe_dump(document))
    settings = GatewaySettings(
        venues=path, services=["CN=decide"], certificate=certificate, key=key, authority=authority.certificate
    )
    found = service_subjects(settings, load_venues(path))
    for subject in ("CN=decide", "CN=gateway,O=Shortfall", "CN=member 7,O=Exchange", "CN=venue,O=exchange"):
        with pytest.raises(ConfigError, match="no person"):
            load_people(people_file(tmp_path, {"subject": subject, "scopes": ["kill"]}), (), found)


def test_strategy_is_of_one_account_since_its_heartbeat_is_one(tmp_path):
    clients = [{"account": name, "strategies": ["S1"], "token_sha256": name * 64} for name in "ab"]
    path = tmp_path / "clients.yaml"
    path.write_text(yaml.safe_dump({"clients": clients}))
    with pytest.raises(ConfigError, match="strategy S1 is of accounts a and b"):
        load_clients(path)


def test_one_person_is_never_two(tmp_path):
    twice = [{"subject": "CN=Ann,O=Risk", "scopes": ["risk"]}, {"subject": "o=risk,cn=ann", "scopes": ["risk"]}]
    with pytest.raises(ConfigError, match="stands twice"):
        load_people(people_file(tmp_path, *twice), ())
    tokens = [{"subject": f"CN={n}", "scopes": ["risk"], "token_sha256": TOKEN} for n in "ab"]
    with pytest.raises(ConfigError, match="stands twice"):
        load_people(people_file(tmp_path, *tokens), ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v["SYN"]["fix"].update(host="10.0.0.1"), "not a loopback address"),
        (lambda v: v["SYN"]["fix"].update(port="9880"), "fix.port"),
        (lambda v: v["SYN"]["fix"].update(subject="commonName=venue"), "there is no TLS"),
        (lambda v: v["SYN"]["fix"].update(server_name="fix.example.com"), "there is no TLS"),
        (lambda v: v["SYN"]["symbols"]["SYN1"].update(tick_size="0.1x"), "tick size"),
        (lambda v: v["SYN"].update(more=1), "more"),
        (lambda v: v["SYN"]["drop_copy"].update(comp_id="GATEWAY"), "share"),
        (lambda v: v.clear(), "holds none"),
    ],
)
def test_venues_file_that_is_wrong_is_refused_by_its_place(files, change, says):
    path = files.folder / "venues.yaml"
    document = yaml.safe_load(path.read_text())
    change(document["venues"])
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=says):
        load_venues(path)


@pytest.mark.parametrize(
    "change",
    [{"opens": "2026-01-01T00:00:00"}, {"date": "tomorrow"}, {"instruments": [{"symbol": "X"}]}, {"more": 1},
     {"holdings": [{"account": "a", "strategy": "s", "symbol": "X", "lots": 1.5}]}],
)  # fmt: skip
def test_book_that_is_wrong_is_refused(files, change):
    document = yaml.safe_load((files.folder / "day.yaml").read_text())
    with pytest.raises(ConfigError):
        parse_book({**document, **change}, "day")


def test_subject_of_a_certificate_cannot_be_forged_by_its_values():
    honest = {"subject": ((("organizationName", "Risk"),), (("commonName", "Ann"),))}
    assert subject_of(honest) == "CN=Ann,O=Risk"
    forged = {"subject": ((("commonName", "Ann,O=Risk"),),)}
    assert subject_of(forged) != subject_of(honest)


@pytest.mark.parametrize("state", [clock_offset.TIME_ERROR, -1])
def test_clock_that_nobody_disciplines_has_no_offset(monkeypatch, state):
    class Library:
        def adjtimex(self, timex):
            return state

    monkeypatch.setattr(clock_offset.ctypes, "CDLL", lambda *a, **k: Library())
    assert clock_offset.kernel_offset_ns() is None


def test_clock_offset_adds_what_remains_and_what_is_uncertain(monkeypatch):
    class Library:
        def adjtimex(self, reference):
            timex = reference._obj
            timex.offset, timex.esterror, timex.status = -2_000, 3, clock_offset.STA_NANO
            return 0

    monkeypatch.setattr(clock_offset.ctypes, "CDLL", lambda *a, **k: Library())
    assert clock_offset.kernel_offset_ns() == 2_000 + 3_000


def test_order_that_never_left_is_told_as_a_refusal():
    from serving.gateway.events import Unsent

    told = told_by(Unsent(utc_ns=5, order_id=3, what="new", reason="too old"))
    assert type(told).__name__ == "Rejected" and told.reason == "unsent: too old"
