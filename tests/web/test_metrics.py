"""Counters and gauges in the format of Prometheus."""

from __future__ import annotations

from crystallm.web.metrics import Metrics


def test_a_server_counts_crystals_and_requests(served, rutile):
    text = served.get("/metrics").body.decode()
    counts = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            counts[name] = float(value)
    assert counts['crystallm_crystals_total{kind="generate"}'] >= 3
    assert counts["crystallm_sequences_sampled"] >= 3
    assert counts["crystallm_process_resident_memory_bytes"] > 1e7
    assert text.count("# TYPE crystallm_requests_total counter") == 1


def test_labels_are_escaped_and_counts_add_up():
    metrics = Metrics()
    metrics.crystals.labels('a"b\\c\nd').inc()
    metrics.crystals.labels('a"b\\c\nd').inc(2)
    values = iter([3, 4])
    metrics.add_gauge("open", "Now.", lambda: next(values))
    text = metrics.text()
    assert 'crystallm_crystals_total{kind="a\\"b\\\\c\\nd"} 3.0\n' in text
    assert "# TYPE crystallm_open gauge\ncrystallm_open 3.0\n" in text
    assert "crystallm_open 4.0\n" in metrics.text()


def test_servers_count_apart():
    one, other = Metrics(), Metrics()
    one.jobs_submitted.labels("search").inc()
    assert "crystallm_jobs_submitted_total{" in one.text()
    assert "crystallm_jobs_submitted_total{" not in other.text()
