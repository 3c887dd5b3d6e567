"""Counters and gauges of a server, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

PREFIX = "crystallm"


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self._registry)
        self.requests = self._counter("requests", "HTTP answers.", "status", "kind")
        self.jobs_submitted = self._counter("jobs_submitted", "Accepted jobs.", "kind")
        self.jobs_resumed = self._counter("jobs_resumed", "Interrupted jobs that were resumed.", "kind")
        self.jobs_finished = self._counter("jobs_finished", "Jobs that ended.", "state")
        self.crystals = self._counter("crystals", "Crystals generated, checked or relaxed.", "kind")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self._registry)

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed when the metrics are read."""
        Gauge(name, text, namespace=PREFIX, registry=self._registry).set_function(value)

    def text(self) -> str:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry).decode()
