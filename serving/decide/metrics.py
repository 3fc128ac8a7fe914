"""Metrics of the decide service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.decide.catalogue import Catalogue, Refusal

PATHS = ("/v1/decide", "/v1/forecast", "/v1/policies")
BUCKETS_S = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 1.5e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.25)


class Metrics:
    """Counters and gauges in a registry of prometheus-client."""

    def __init__(self, registry: CollectorRegistry, catalogue: Catalogue) -> None:
        """Register; gauges read `catalogue` when they are asked."""
        self._requests = Counter(
            "shortfall_decide_requests_total", "Requests answered", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "shortfall_decide_seconds", "From the request's headers to its answer", ["path"], registry=registry,
            buckets=BUCKETS_S,
        )  # fmt: skip
        self._refusals = Counter("shortfall_decide_refusals_total", "Bundles and journals refused", registry=registry)
        for name, text, value in (
            ("champion_version", "Version of the champion; 0 without one", lambda: _version(catalogue.champion)),
            ("challenger_version", "Version of the challenger; 0 without one", lambda: _version(catalogue.challenger)),
            ("policies_loaded", "Policies that may be asked", lambda: len(catalogue.policies().loaded)),
            ("refused_now", "Refusals in force", lambda: len(catalogue.refusals)),
        ):
            Gauge(f"shortfall_decide_{name}", text, registry=registry).set_function(value)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; a path that is not served counts as `other`, so that nobody can make up labels."""
        label = path if path in PATHS else "other"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self._refusals.inc()


def _version(policy: object) -> float:
    return float(getattr(policy, "version", 0))
