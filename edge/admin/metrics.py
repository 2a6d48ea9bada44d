"""`/metrics`: all processes in one page, summed over the slots' cells."""

import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from edge.counters import METRICS, MICROSECONDS, Counters, Metric, cell

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Summing these over processes would mean nothing.
_PER_PROCESS = {
    "edge_loop_lag_seconds",
    "edge_catalog_revision",
    "edge_process_starts_total",
    "edge_process_up",
    "edge_drained_through_seconds",
}
# Each drain measures the same disk and table; one process publishes.
_NODE_WIDE = {
    "edge_journal_undrained_bytes",
    "edge_conversions_waiting",
    "edge_state_published_seconds",
    "edge_rolled_up_through_seconds",
    "edge_retention_done_seconds",
}
_THROUGH = cell("edge_drained_through_seconds")


class Slot:
    """A process's cells, with the labels that name it."""

    def __init__(self, role: str, number: int, counters: Counters) -> None:
        self.labels = (role, str(number))
        self.cells = counters.cells


def drain_lag_s(slots: Sequence[Slot]) -> float:
    """How far the slowest drain is behind; it grows while Postgres is away."""
    through_ms = [slot.cells[_THROUGH] for slot in slots if slot.labels[0] == "drain" and slot.cells[_THROUGH]]
    return max(0.0, time.time() - min(through_ms) / 1000) if through_ms else 0.0


class SlotCollector(Collector):
    """Reads the cells at each scrape."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots

    def collect(self) -> Iterable[Family]:
        for metric in METRICS:
            if metric.kind == "histogram":
                yield self._histogram(metric)
            else:
                yield self._plain(metric)
        yield GaugeMetricFamily(
            "edge_drain_lag_seconds",
            "Age of the oldest journalled event not yet in Postgres.",
            drain_lag_s(self._slots),
        )

    def _plain(self, metric: Metric) -> Family:
        per_process = metric.name in _PER_PROCESS
        names = [*metric.labels, *(("role", "slot") if per_process else ())]
        family_type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = family_type(metric.name, metric.help, labels=names)
        for values in metric.combinations():
            index = cell(metric.name, *values)
            cells = [slot.cells[index] * metric.scale for slot in self._slots]
            if per_process:
                for slot, value in zip(self._slots, cells, strict=True):
                    family.add_metric([*values, *slot.labels], value)
            else:
                family.add_metric(list(values), max(cells) if metric.name in _NODE_WIDE else sum(cells))
        return family

    def _histogram(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
        for values in metric.combinations():
            first = cell(metric.name, *values)
            counts = [sum(slot.cells[first + i] for slot in self._slots) for i in range(len(metric.buckets_us) + 2)]
            buckets, total = [], 0
            for edge_us, count in zip((*metric.buckets_us, None), counts[:-1], strict=True):
                total += count
                buckets.append(("+Inf" if edge_us is None else f"{edge_us * MICROSECONDS:g}", float(total)))
            family.add_metric(list(values), buckets, counts[-1] * MICROSECONDS)
        return family


def render(slots: Sequence[Slot]) -> bytes:
    """The page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SlotCollector(slots))
    return generate_latest(registry)
