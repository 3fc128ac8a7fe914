"""What manifests tell processes: variables that the code reads, values that it takes, ports that it then listens on."""

import json
import os

import pytest
import yaml
from manifests import K8S, OVERLAYS, everything, of_kind, overlay, pods
from traffic import SITE

from feature_repo.server import FeatureServerSettings
from feature_repo.ticks.instruments import load_instruments
from flows.exporter import ExporterSettings
from flows.kube.setup import SetupSettings
from flows.settings import Settings
from serving.decide.settings import DecideSettings
from serving.gateway.config import load_clients, load_people, load_venues
from serving.gateway.limits import Limits
from serving.gateway.settings import GatewaySettings
from serving.mirror import MirrorSettings
from serving.parents.settings import ParentsSettings
from training.market.venue.settings import VenueSettings

READ = {
    "SHORTFALL_DECIDE_": DecideSettings,
    "SHORTFALL_PARENTS_": ParentsSettings,
    "SHORTFALL_GATEWAY_": GatewaySettings,
    "SHORTFALL_VENUE_": VenueSettings,
    "SHORTFALL_MIRROR_": MirrorSettings,
    "SHORTFALL_FEATURE_SERVER_": FeatureServerSettings,
    "SHORTFALL_EXPORTER_": ExporterSettings,
}
PROCESSES = {
    ("decide", "decide"): (DecideSettings, {"port": "https", "metrics_port": "metrics"}),
    ("parents", "parents"): (ParentsSettings, {"port": "https", "fix_port": "fix", "metrics_port": "metrics"}),
    ("gateway", "gateway"): (
        GatewaySettings,
        {"order_port": "orders", "admin_port": "admin", "metrics_port": "metrics"},
    ),
    ("venue", "venue"): (VenueSettings, {"fix_port": "fix", "feed_port": "feed"}),
    ("decide", "mirror"): (MirrorSettings, {}),
    ("exporter", "exporter"): (ExporterSettings, {"port": "metrics"}),
}
OWN_NAMES = {"SHORTFALL_HOME", "SHORTFALL_FEAST_REGISTRY_URL", "SHORTFALL_DECIDE_URL", "SHORTFALL_DECIDE_TLS"}
OWN_NAMES |= {"SHORTFALL_DECIDE_TOKEN", "SHORTFALL_RAY_IMAGE"}


@pytest.fixture(params=OVERLAYS)
def documents(request):
    return everything(overlay(request.param))


def settings_of(documents, namespace, name):
    return next(
        item["data"]
        for item in of_kind(documents, "ConfigMap")
        if item["metadata"]["namespace"] == namespace and item["metadata"]["name"] == name
    )


def plain(documents, pod, container):
    """Variables of a container whose values stand in the manifests, those of its ConfigMaps included."""
    found = {}
    for item in container.get("envFrom", []):
        found |= settings_of(documents, pod.namespace, item["configMapRef"]["name"])
    return found | {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}


def variables(documents):
    for pod in pods(documents):
        for container in pod.containers:
            named = {item["name"] for item in container.get("env", [])}
            yield pod, container, named | set(plain(documents, pod, container))


def load(monkeypatch, kind, environment):
    for name in list(os.environ):
        if name.startswith("SHORTFALL_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return kind()


def test_every_variable_is_one_that_the_code_reads(documents):
    flows = {f"SHORTFALL_{name.upper()}" for name in (*Settings.model_fields, *SetupSettings.model_fields)}
    for pod, container, names in variables(documents):
        for name in names:
            prefix = next((item for item in READ if name.startswith(item) and name not in OWN_NAMES), None)
            if prefix is not None:
                field = name.removeprefix(prefix).lower()
                assert field in READ[prefix].model_fields, f"{pod.where}: {container['name']}: nothing reads {name}"
            elif name.startswith("SHORTFALL_"):
                assert name in flows | OWN_NAMES, f"{pod.where}: {container['name']}: nothing reads {name}"


def test_every_variable_of_prefect_is_one_of_its_settings(documents):
    from prefect.settings.base import PrefectBaseSettings

    def names(kind, prefix=""):
        found = set()
        own = str(kind.model_config.get("env_prefix", "")).upper()
        for field, info in kind.model_fields.items():
            inner = info.annotation
            if isinstance(inner, type) and issubclass(inner, PrefectBaseSettings):
                found |= names(inner)
            else:
                found.add(own + field.upper())
            for choice in getattr(info.validation_alias, "choices", []):
                found.add(str(choice).upper())
        return found

    from prefect.settings import Settings as PrefectSettings
    from prefect_kubernetes.settings import KubernetesSettings

    known = names(PrefectSettings) | names(KubernetesSettings) | {"PREFECT_REDIS_MESSAGING_URL"}
    known |= {"PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL"}  # of prefect-redis, which only servers have
    asked = {name for _, _, found in variables(documents) for name in found if name.startswith("PREFECT_")}
    assert "PREFECT_SERVER_API_AUTH_STRING" in asked
    assert asked - known == {"PREFECT_PASSWORD"} & asked | {"PREFECT_URL"} & asked  # of Postgres' own scripts


@pytest.mark.parametrize("process", PROCESSES, ids="/".join)
def test_process_takes_its_settings_and_listens_where_its_pod_says(process, documents, monkeypatch):
    component, name = process
    found = [pod for pod in pods(documents) if pod.component == component]
    if not found:
        assert component == "venue"  # the paper venue is not in production
        return
    kind, ports = PROCESSES[process]
    container = next(item for item in found[0].containers if item["name"] == name)
    settings = load(monkeypatch, kind, plain(documents, found[0], container))
    named = {item["name"]: item["containerPort"] for item in container.get("ports", [])}
    assert named == {port: getattr(settings, field) for field, port in ports.items()}


def test_files_that_settings_name_lie_on_a_mount(documents):
    for pod in pods(documents):
        for container in pod.containers:
            mounts = [item["mountPath"] for item in container.get("volumeMounts", [])]
            for name, value in plain(documents, pod, container).items():
                if name.startswith("SHORTFALL_") and value.startswith("/") and name != "SHORTFALL_HOME":
                    inside = any(value == path or value.startswith(f"{path}/") for path in mounts)
                    optional = pod.component.startswith("flow-") or pod.component in ("sweeper", "exporter")
                    assert inside or optional, f"{pod.where}: {name}={value} lies on none of {mounts}"


def test_gateway_takes_its_files(documents, tmp_path):
    data = settings_of(documents, "shortfall-serving", config_of(documents, "gateway"))
    data |= settings_of(documents, "shortfall-serving", "gateway-access")  # by this name: it is read again in the pod
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    venues = load_venues(tmp_path / "venues.yaml")
    clients = load_clients(tmp_path / "clients.yaml")
    gateway = next(pod for pod in pods(documents) if pod.component == "gateway")
    services = json.loads(plain(documents, gateway, gateway.containers[0])["SHORTFALL_GATEWAY_SERVICES"])
    people = load_people(tmp_path / "people.yaml", clients, dict.fromkeys(services, "a process"))
    assert sum("risk" in item.scopes for item in people) >= 2, "what is looser needs two people"
    limits = Limits.load((tmp_path / "limits.yaml").read_text())
    assert limits.venues == set(venues)
    assert {item.account: item.strategies for item in clients} == limits.accounts
    if "SYN" not in venues:  # only on paper may the clock's offset be unknown
        assert limits.numbers["all", ""]["max_clock_age_ns"] <= 60 * 10**9
        assert limits.numbers["all", ""]["max_clock_offset_ns"] <= 10**7


def config_of(documents, component):
    pod = next(pod for pod in pods(documents) if pod.component == component)
    return next(v["configMap"]["name"] for v in pod.spec["volumes"] if v["name"] in ("config", "instruments"))


def test_parents_knows_its_instruments_and_follows_the_gateways_venue(documents, tmp_path, monkeypatch):
    pod = next(pod for pod in pods(documents) if pod.component == "parents")
    data = settings_of(documents, "shortfall-serving", config_of(documents, "parents"))
    (tmp_path / "instruments.json").write_text(data["instruments.json"])
    environment = plain(documents, pod, pod.containers[0]) | {"SHORTFALL_PARENTS_INSTRUMENTS": str(tmp_path)}
    settings = load(monkeypatch, ParentsSettings, environment)
    assert set(settings.known_instruments()) == set(settings.symbols)
    venues = settings_of(documents, "shortfall-serving", config_of(documents, "gateway"))["venues.yaml"]
    (tmp_path / "venues.yaml").write_text(venues)
    venue = load_venues(tmp_path / "venues.yaml")[settings.venue]
    assert settings.feed_url == venue.feed.url
    assert set(settings.symbols) <= set(venue.symbols)
    assert {item.tick_size for item in load_instruments(tmp_path).values()} == {
        float(item.tick_size) for item in venue.symbols.values()
    }


def test_fix_sessions_are_bound_to_certificates_that_are_made_for_them(documents, tmp_path, monkeypatch):
    declared = yaml.safe_load((K8S / "secrets.yaml").read_text())
    made = {item["name"]: item["certificate"]["subject"] for item in declared["secrets"] if "certificate" in item}
    found = {pod.component: pod for pod in pods(documents)}
    parents = load(monkeypatch, ParentsSettings, plain(documents, found["parents"], found["parents"].containers[0]))
    assert {peer.subject for peer in parents.fix_peers.values()} == {"commonName=oms"} and "oms" in declared["people"]
    gateway = plain(documents, found["gateway"], found["gateway"].containers[0])
    services = set(json.loads(gateway["SHORTFALL_GATEWAY_SERVICES"]))
    assert services >= {f"CN={subject}" for subject in made.values()} | {"CN=oms"}, "every process's certificate"
    data = settings_of(documents, "shortfall-serving", config_of(documents, "gateway"))
    (tmp_path / "venues.yaml").write_text(data["venues.yaml"])
    ((_, venue),) = load_venues(tmp_path / "venues.yaml").items()
    if "venue" in found:
        paper = load(monkeypatch, VenueSettings, plain(documents, found["venue"], found["venue"].containers[0]))
        shown = f"commonName={made['venue-credentials']}"
        assert paper.subjects == {venue.fix.comp_id: shown, venue.drop_copy.comp_id: shown}
        assert venue.fix.subject == venue.drop_copy.subject == f"commonName={made['venue-tls']}"


def test_metrics_of_the_book_are_for_prometheus_and_its_token_alone(documents):
    for component in ("gateway", "parents"):
        pod = next(pod for pod in pods(documents) if pod.component == component)
        path = plain(documents, pod, pod.containers[0])[f"SHORTFALL_{component.upper()}_METRICS_TOKEN_FILE"]
        mounts = {item["mountPath"]: item["name"] for item in pod.containers[0]["volumeMounts"]}
        secrets = {item["name"]: item["secret"]["secretName"] for item in pod.spec["volumes"] if "secret" in item}
        assert secrets[mounts[path.rpartition("/")[0]]] == "metrics-token"
    for monitor in of_kind(documents, "ServiceMonitor"):
        if monitor["metadata"]["name"] in ("gateway", "parents"):
            (endpoint,) = monitor["spec"]["endpoints"]
            assert endpoint["authorization"]["credentials"] == {"name": "metrics-token", "key": "token"}


def test_order_line_is_one_that_the_gateway_knows(documents, tmp_path):
    pod = next(pod for pod in pods(documents) if pod.component == "parents")
    accounts = json.loads(plain(documents, pod, pod.containers[0])["SHORTFALL_PARENTS_ACCOUNTS"])
    clients = settings_of(documents, "shortfall-serving", "gateway-access")["clients.yaml"]
    (tmp_path / "clients.yaml").write_text(clients)
    for client in load_clients(tmp_path / "clients.yaml"):
        account = accounts[client.account]
        assert client.strategies == {account["strategy"], account["fallback_strategy"]}
        assert client.subject == "commonName=parents"


def test_production_when_a_container_has_the_address_of_a_database_then_checks_its_certificate():
    asking = 0
    for pod in pods(overlay("production")):
        secrets = {item["name"]: item["secret"] for item in pod.spec.get("volumes", []) if "secret" in item}
        for container in pod.containers:
            env = {item["name"]: item for item in container.get("env", [])}
            named = {item.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for item in env.values()}
            if not named & {"prefect-database", "mlflow-database", "feast"}:
                continue
            asking += 1
            where = f"{pod.where}: {container['name']}"
            assert env["PGSSLMODE"]["value"] == "verify-full", where
            mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
            folder, _, file = env["PGSSLROOTCERT"]["value"].rpartition("/")
            assert (secrets[mounts[folder]]["secretName"], file) == ("database-authority", "ca.crt"), where
    assert asking == 13


def test_production_restores_by_the_scripts_that_its_backup_uses_and_only_when_asked():
    jobs = {item["metadata"]["name"]: item["spec"] for item in of_kind(overlay("production"), "CronJob")}
    assert jobs["restore-postgres"]["suspend"] is True and "suspend" not in jobs["backup-postgres"]
    found = {name: jobs[name]["jobTemplate"]["spec"]["template"]["spec"] for name in jobs}
    back, forth = found["restore-postgres"], found["backup-postgres"]
    fetch, restore = back["initContainers"][0], back["containers"][0]
    dump, store = forth["initContainers"][0], forth["containers"][0]
    assert fetch["command"] == ["python", "/scripts/store.py", "get", store["command"][-1], "latest", "/backup/dumps"]
    assert restore["command"] == ["bash", "/scripts/restore.sh", "/backup/dumps"]
    for one, other in ((fetch, store), (restore, dump)):
        assert (one["image"], one["env"]) == (other["image"], other["env"])


def test_production_when_something_is_wrong_then_each_serving_process_posts_it_where_the_site_says(monkeypatch):
    documents = overlay("production")
    addresses = set()
    for (component, name), (kind, _) in PROCESSES.items():
        if component == name and component in ("gateway", "decide", "parents"):
            pod = next(pod for pod in pods(documents) if pod.component == component)
            container = next(item for item in pod.containers if item["name"] == name)
            addresses.add(load(monkeypatch, kind, plain(documents, pod, container)).alert_url)
    assert addresses == {SITE["alerts-url"]}
