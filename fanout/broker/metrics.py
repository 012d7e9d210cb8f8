"""What operators watch, for Prometheus.  Without names of tenants: whoever reaches the port may read it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from fanout.broker import leases
from fanout.broker.store import Store

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text, and nobody reads them
SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800)


class Metrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._leases = Gauge("fanout_broker_leases", "Leases that have machines.", ["state"], registry=registry)
        self._machines = Gauge("fanout_broker_machines", "Machines of these leases.", ["state"], registry=registry)
        self.requests = Counter(
            "fanout_broker_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.refused = Counter(
            "fanout_broker_quota_refusals", "Leases that a quota forbade.", ["quota"], registry=registry
        )
        self.granted = Counter("fanout_broker_leases_granted", "Leases granted.", ["offer"], registry=registry)
        self.ended = Counter(
            "fanout_broker_leases_ended", "Leases whose machines are gone.", ["cause"], registry=registry
        )
        self.making = Histogram(
            "fanout_broker_making_seconds", "What fleets take to make machines.", ["fleet"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.not_released = Counter(
            "fanout_broker_release_failures", "Releases that failed, and are tried again.", registry=registry
        )

    def text(self, store: Store) -> bytes:
        """All of it, the state of the store as of now."""
        with store.begin() as session:
            figures = leases.figures(session)
        for state, (count, machines) in figures.items():
            self._leases.labels(state).set(count)
            self._machines.labels(state).set(machines)
        return generate_latest(self._registry)
