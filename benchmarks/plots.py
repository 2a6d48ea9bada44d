"""The figures: percentiles on a scale of nines, and plain lines in panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.histogram import Histogram

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

WIDTH_IN, DPI = 9.0, 100
"""900 pixels wide."""
_HEADROOM = 1.3
"""Above the highest line, for the legend."""
_NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_STYLES: dict[str, dict[str, Any]] = {
    "clickedge": {"color": "tab:blue", "linewidth": 2},
    "aiohttp": {"color": "tab:orange", "linewidth": 2},
    "client's own lag": {"color": "tab:gray", "linewidth": 1, "linestyle": "--"},
}


@dataclass(frozen=True)
class Panel:
    """One plot: lines by name, each its x and y values."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    is_log_x: bool = False
    is_log_y: bool = False
    """Otherwise y begins at 0, so that a flat line looks flat."""
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Places on the x axis, by what happened there."""
    marker: str = ""


def draw_panels(path: Path, title: str, panels: Sequence[Panel], *, is_stacked: bool = False) -> None:
    """The panels side by side or, stacked, below each other, as PNG."""
    count = len(panels)
    shape, size = ((count, 1), (WIDTH_IN, 3.2 * count)) if is_stacked else ((1, count), (WIDTH_IN, 3.6))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=True):
        _draw(axis, panel)
    _save(figure, path, title)


def draw_latency(path: Path, title: str, latencies: Mapping[str, Histogram], worst: Panel) -> None:
    """Percentiles of several histograms above, each second's worst below, as PNG."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(WIDTH_IN, 8), height_ratios=(3, 2))
    for name, histogram in latencies.items():
        xs, ys = _percentile_curve(histogram)
        upper.plot(xs, ys, label=name, drawstyle="steps-pre", **_STYLES.get(name, {}))
    upper.set(xscale="log", yscale="log", xlabel="percentile of clicks", ylabel="from due to answered, µs")
    upper.set_xlim(left=1)
    shown = [share for share in _NINES if 1 / (1 - share) <= upper.get_xlim()[1]]
    upper.set_xticks([1 / (1 - share) for share in shown], [f"{share * 100:g}%" for share in shown])
    upper.minorticks_off()
    _finish(upper)
    _draw(lower, worst)
    _save(figure, path, title)


def _percentile_curve(histogram: Histogram) -> tuple[list[float], list[int]]:
    """x: clicks per click that took longer, so that each nine is a decade; y: microseconds, at least 1."""
    pairs = histogram.pairs()
    count = histogram.total
    reached = accumulate(number for _, number in pairs)
    return [count / max(1, count - number) for number in reached], [max(1, us) for us, _ in pairs]


def _draw(axis: Any, panel: Panel) -> None:
    for name, (xs, ys) in panel.lines.items():
        axis.plot(xs, ys, label=name, marker=panel.marker, **_STYLES.get(name, {}))
    for name, places in panel.marks.items():
        for number, place in enumerate(places):
            axis.axvline(place, color="tab:red", linewidth=0.8, linestyle=":", label=name if number == 0 else None)
    axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.is_log_x:
        axis.set_xscale("log")
    if panel.is_log_y:
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, _HEADROOM * max(axis.get_ylim()[1], 1e-9))
    _finish(axis)


def _finish(axis: Any) -> None:
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize="small", loc="best")


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    print(f"drawn in {path}")
