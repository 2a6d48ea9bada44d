"""The dashboard's panels as one PNG: what Grafana would draw of the same answers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.prometheus import Series
from deploy.grafana.panels import ROWS, Panel, Query

mpl.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

COLUMNS, WIDTH_IN, PANEL_HEIGHT_IN, DPI = 3, 17.0, 2.7, 70
_SMALL = 7
Answers = Mapping[tuple[str, str], Sequence[Series]]
"""By a panel's title and a query's legend: its lines, at seconds since the run began."""
_SCALES = {"bytes": (2.0**-30, " GiB"), "percentunit": (100.0, " %"), "s": (1.0, " s"), "reqps": (1.0, " /s"), "cps": (1.0, " /s")}


def draw(path: Path, title: str, answers: Answers, marks: Mapping[str, float]) -> None:
    """All panels under their rows' questions; `marks`: what was done, at which second."""
    lines = [row.panels[start : start + COLUMNS] for row in ROWS for start in range(0, len(row.panels), COLUMNS)]
    figure, axes = plt.subplots(
        len(lines), COLUMNS, figsize=(WIDTH_IN, PANEL_HEIGHT_IN * len(lines)), squeeze=False, layout="constrained"
    )
    for axis_line, line in zip(axes, lines, strict=True):
        for axis in axis_line[len(line) :]:
            axis.set_axis_off()
        for axis, panel in zip(axis_line, line, strict=False):
            _draw(axis, panel, answers, marks)
    for row in ROWS:
        at = next(index for index, line in enumerate(lines) if line[0] is row.panels[0])
        axes[at][0].annotate(row.title, (0, 1.2), xycoords="axes fraction", fontsize=13, fontweight="bold")
    figure.suptitle(title, fontsize=14)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    print(f"drawn in {path}")


def _draw(axis: Any, panel: Panel, answers: Answers, marks: Mapping[str, float]) -> None:
    axis.set_title(panel.title, fontsize=10)
    axis.tick_params(labelsize=_SMALL)
    if panel.kind == "number":
        _write_numbers(axis, panel, answers)
        return
    if panel.kind == "heatmap":
        _draw_heatmap(axis, answers[panel.title, panel.queries[0].legend])
    elif panel.kind == "stacked":
        _draw_stack(axis, panel, answers)
    else:
        _draw_lines(axis, panel, answers)
    for name, at_s in marks.items():
        axis.axvline(at_s, color="tab:red", linewidth=0.8, linestyle=":")
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "va": "center", "ha": "right"}
        axis.annotate(name, (at_s, 0.45), fontsize=6, color="tab:red", **place)
    axis.set_xlim(0, None)


def _write_numbers(axis: Any, panel: Panel, answers: Answers) -> None:
    axis.set_axis_off()
    for number, query in enumerate(panel.queries):
        points = [point for series in answers[panel.title, query.legend] for point in series.points]
        value = f"{points[-1][1] * 100:.1f} %" if points and math.isfinite(points[-1][1]) else "no traffic yet"
        is_well = bool(points) and points[-1][1] > 0
        place = ((number + 0.5) / len(panel.queries), 0.5)
        axis.text(*place, f"{value}\n{query.legend}", ha="center", va="center", fontsize=15, color="green" if is_well else "red")


def _draw_lines(axis: Any, panel: Panel, answers: Answers) -> None:
    right: Any = None
    for query in panel.queries:
        if query.right_unit and right is None:
            right = axis.twinx()
            right.tick_params(labelsize=_SMALL)
            _format(right, query.right_unit)
        for series in answers[panel.title, query.legend]:
            xs, ys = zip(*series.points, strict=True) if series.points else ((), ())
            place, style = (right, "--") if query.right_unit else (axis, "-")
            color = f"C{len(axis.lines) + len(right.lines if right else [])}"
            place.plot(xs, ys, style, label=_name(query, series), linewidth=1, color=color)
    _format(axis, panel.unit)
    if panel.is_log:
        axis.set_yscale("log")
    for one in (axis, right) if right else (axis,):
        if not panel.is_log:
            one.set_ylim(0, max(one.get_ylim()[1] * 1.15, 1e-6))
    _legend(axis, right)


def _draw_stack(axis: Any, panel: Panel, answers: Answers) -> None:
    found = [(query, series) for query in panel.queries for series in answers[panel.title, query.legend]]
    times = sorted({at for _, series in found for at, _ in series.points})
    rows = [[dict(series.points).get(at, 0.0) for at in times] for _, series in found]
    if rows:
        axis.stackplot(times, rows, labels=[_name(query, series) for query, series in found], alpha=0.7)
    _format(axis, panel.unit)
    _legend(axis, None)


def _draw_heatmap(axis: Any, found: Sequence[Series]) -> None:
    """Cumulative buckets, each less the one below it; the colour is of a square root."""
    buckets = sorted(found, key=lambda series: float(series.labels["le"]))
    times = [at for at, _ in buckets[0].points]
    cumulated = np.array([[dict(series.points).get(at, 0.0) for at in times] for series in buckets])
    counts = np.diff(cumulated, axis=0, prepend=0).clip(min=0)
    axis.pcolormesh(times, range(len(buckets)), np.sqrt(np.nan_to_num(counts)), shading="nearest", cmap="magma_r")
    edges = [float(series.labels["le"]) for series in buckets]
    axis.set_yticks(range(len(edges)), [f"≤ {edge * 1000:g} ms" if math.isfinite(edge) else "more" for edge in edges])


def _name(query: Query, series: Series) -> str:
    """The legend with its labels filled in."""
    name = query.legend
    for label, value in series.labels.items():
        name = name.replace("{{" + label + "}}", "node" if label == "instance" else value)
    return name


def _format(axis: Any, unit: str) -> None:
    scale, suffix = _SCALES.get(unit, (1.0, ""))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * scale:,.4g}{suffix}"))


def _legend(axis: Any, right: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if right:
        more, names = right.get_legend_handles_labels()
        handles, labels = [*handles, *more], [*labels, *names]
    if handles:
        axis.legend(handles, labels, fontsize=6, loc="upper left", ncols=2, framealpha=0.5)
