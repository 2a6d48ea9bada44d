"""A node's `/metrics` page, read once or every second as a Prometheus server would, and what it says."""

import threading
import time
import urllib.request
from typing import NamedTuple, Self

from benchmarks.serving import Node

INTERVAL_S = 1.0
DRAINED_POLL_S = 0.2
Page = dict[str, float]
"""Each sample, its labels included, and its value."""


class Scrape(NamedTuple):
    """A page and when it was asked for."""

    at_s: float
    page: Page


def read_page(node: Node) -> Page:
    """The page now; OSError when it is not answered within 10 s."""
    with urllib.request.urlopen(f"{node.admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def total(page: Page, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for sample, value in page.items()
        if sample.partition("{")[0] == name and all(pair in sample for pair in wanted)
    )


def backlog_clicks(page: Page) -> int:
    """Clicks answered that are not stored yet; a click that waits for the journal or is on its way counts too."""
    return round(
        total(page, "edge_requests_total", kind="click") - total(page, "edge_drain_rows_total", table="clicks")
    )


def handling_summary(before: Page, after: Page, kind: str = "click") -> dict[str, float]:
    """What the worker's histogram says of the requests between two pages: mean and upper bounds of percentiles, in µs."""
    name = "edge_handling_seconds"
    count = total(after, f"{name}_count", kind=kind) - total(before, f"{name}_count", kind=kind)
    spent_s = total(after, f"{name}_sum", kind=kind) - total(before, f"{name}_sum", kind=kind)
    found: dict[str, float] = {"requests": round(count), "mean_us": round(spent_s / max(1, count) * 1e6, 1)}
    for share in (0.5, 0.99, 0.999, 1.0):
        found[f"p{share * 100:g}_at_most_us"] = _bound_us(before, after, f"{name}_bucket", kind, share * count)
    return found


def _bound_us(before: Page, after: Page, name: str, kind: str, wanted: float) -> float:
    for sample, value in after.items():  # a histogram's buckets are cumulative and ascend on the page
        if sample.startswith(name) and f'kind="{kind}"' in sample and value - before.get(sample, 0.0) >= wanted:
            return round(float(sample.partition('le="')[2].partition('"')[0]) * 1e6, 1)
    return float("inf")


def wait_until_drained(node: Node, timeout_s: float) -> float:
    """Until the drain has stored all that was answered; seconds that took. RuntimeError when it takes longer."""
    began_s = time.monotonic()
    while (left := backlog_clicks(read_page(node))) > 0:
        if time.monotonic() - began_s > timeout_s:
            raise RuntimeError(f"{left} clicks are not stored after {timeout_s:.0f} s")
        time.sleep(DRAINED_POLL_S)
    return time.monotonic() - began_s


class Scraper:
    """Reads the page every second, in a thread, within a `with`."""

    def __init__(self, node: Node) -> None:
        self.scrapes: list[Scrape] = []
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        while True:
            at_s = time.monotonic() - began_s
            self.scrapes.append(Scrape(at_s, read_page(self._node)))
            if self._stop.wait(max(0.0, began_s + len(self.scrapes) * INTERVAL_S - time.monotonic())):
                return
