"""`/metrics`: all processes in one page, summed over the slots' cells."""

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from edge.counters import Counters, cell
from edge.metric_families import METRICS, MICROSECONDS, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_THROUGH = cell("edge_drained_through_seconds")
_BUILD = GaugeMetricFamily("edge_build_info", "What runs here; always 1.", labels=["version", "python"])
_BUILD.add_metric([version("clickedge"), platform.python_version()], 1)


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
        yield _BUILD

    def _plain(self, metric: Metric) -> Family:
        own_labels = {"process": ["role", "slot"], "role": ["role"]}.get(metric.across, [])
        family_type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = family_type(metric.name, metric.help, labels=[*metric.labels, *own_labels])
        for values in metric.combinations():
            for own_values, number in self._lines(metric, cell(metric.name, *values)):
                family.add_metric([*values, *own_values], number * metric.scale)
        return family

    def _lines(self, metric: Metric, index: int) -> Iterator[tuple[tuple[str, ...], int]]:
        """The values of the labels that name processes, and the number."""
        slots = self._slots
        if metric.across == "process":
            for slot in slots:
                if slot.labels[0] in metric.roles:
                    yield slot.labels, slot.cells[index]
        elif metric.across == "role":
            for role in metric.roles:
                yield (role,), sum(slot.cells[index] for slot in slots if slot.labels[0] == role)
        else:
            yield (), _combine(metric, [slot.cells[index] for slot in slots])

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


def _combine(metric: Metric, numbers: list[int]) -> int:
    if metric.across == "max":
        return max(numbers, default=0)
    if metric.across == "oldest":
        return min(filter(None, numbers), default=0)
    return sum(numbers)


def render(slots: Sequence[Slot]) -> bytes:
    """The page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SlotCollector(slots))
    return generate_latest(registry)
