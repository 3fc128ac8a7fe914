"""Alerts and dashboards ask for metrics that the code shows; monitors ask ports and paths that are there."""

import json
import re

import promql_parser
import pytest
from manifests import K8S, ROOT, build, of_kind, overlay
from policy_links import selects

SHOWN = {
    "serving/gateway/gateway_metrics.py": "shortfall_gateway_",
    "serving/parents/metrics.py": "shortfall_parents_",
    "serving/decide/metrics.py": "shortfall_decide_",
    "flows/exporter.py": "shortfall_",
}
OF_KUBELET = {"container_memory_working_set_bytes"}
BOARDS = sorted((K8S / "monitoring" / "dashboards").glob("*.json"))
ASKED_FOR = {
    "GatewayHalted", "GatewayJournalLag", "FeedStale", "FeedLate", "NightlyLate", "NightlyFailed", "DataDrift",
    "PolicyErrors",
}  # fmt: skip


def shown():
    """Names of the metrics in the code, as Prometheus has them: a counter ends in _total, a histogram in _bucket."""
    names = set()
    for path, prefix in SHOWN.items():
        text = (ROOT / path).read_text()
        for name in re.findall(r'"([a-z_0-9]+)"', text):
            whole = name if name.startswith("shortfall_") else prefix + name
            names |= {whole, f"{whole}_total", f"{whole}_bucket"}
    names |= {f"shortfall_gateway_alerts_{name}_total" for name in ("raised", "sent", "dropped", "failed")}
    return names | {f"shortfall_policy_is_bps{suffix}" for suffix in ("", "_low", "_high")}


def metrics_of(expression):
    """Metrics in a PromQL expression. Raises ValueError where Prometheus would refuse it."""
    found = set()

    class Walk:
        def visit(self, node):
            if isinstance(node, promql_parser.VectorSelector):
                found.add(node.name)
            for name in ("lhs", "rhs", "expr", "vector_selector"):
                child = getattr(node, name, None)
                if child is not None:
                    self.visit(child)
            for child in getattr(node, "args", []) or []:
                self.visit(child)

    Walk().visit(promql_parser.parse(expression))
    return found


@pytest.fixture(scope="module")
def production():
    return overlay("production")


def rules(documents):
    return [r for d in of_kind(documents, "PrometheusRule") for g in d["spec"]["groups"] for r in g["rules"]]


def test_alerts_parse_and_ask_for_metrics_that_the_code_shows(production):
    known = shown()
    for rule in rules(production):
        names = metrics_of(rule["expr"])
        assert names and names <= known, f"{rule['alert']}: {names - known}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_every_alert_that_is_asked_for_is_there(production):
    assert {rule["alert"] for rule in rules(production)} >= ASKED_FOR


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_dashboard_asks_for_metrics_that_the_code_shows(path):
    board = json.loads(path.read_text())
    known = shown() | OF_KUBELET
    assert board["uid"] == f"shortfall-{path.stem}"
    for panel in board["panels"]:
        for target in panel["targets"]:
            names = metrics_of(target["expr"])
            assert names and names <= known, f"{panel['title']}: {names - known}"
            assert target["datasource"]["uid"] == "${source}"


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_lie_on_the_grid_and_do_not_overlap(path):
    cells = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not own & cells, panel["title"]
        cells |= own


def test_misspelt_metric_is_seen():
    assert metrics_of("rate(shortfall_gateway_deny_total[5m]) > 0") - shown() == {"shortfall_gateway_deny_total"}
    with pytest.raises(ValueError):
        metrics_of("rate(shortfall_gateway_denied_total[5m)")


def test_monitors_take_a_service_with_the_port_that_they_ask(production):
    services = of_kind(production, "Service")
    for monitor in of_kind(production, "ServiceMonitor"):
        namespace, selector = monitor["metadata"]["namespace"], monitor["spec"]["selector"]
        taken = [
            item
            for item in services
            if item["metadata"]["namespace"] == namespace and selects(selector, item["metadata"].get("labels", {}))
        ]
        ports = {port["name"] for item in taken for port in item["spec"]["ports"]}
        assert {end["port"] for end in monitor["spec"]["endpoints"]} <= ports, monitor["metadata"]["name"]


def test_dashboards_are_handed_to_grafana_whole(production):
    settings = next(d for d in of_kind(production, "ConfigMap") if d["metadata"]["name"] == "shortfall-dashboards")
    assert settings["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(settings["data"]) == {path.name for path in BOARDS}
    assert len(json.dumps(settings)) < 1_000_000  # a ConfigMap holds one MiB


def test_component_stands_by_itself_beside_any_overlay(tmp_path):
    import shutil

    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("images"))
    path = tmp_path / "k8s" / "overlays" / "local" / "kustomization.yaml"
    path.write_text(path.read_text().replace("components: [", "components: [../../monitoring, "))
    assert of_kind(build(path.parent), "ServiceMonitor")
