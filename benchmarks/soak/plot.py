"""The whole soak in one picture: rate, latency, memory and backlog over time, the faults marked."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.soak.ledger import OK, REFUSED, UNANSWERED, WRONG
from benchmarks.soak.run import Soak
from benchmarks.soak.scene import OWN_MARKS
from benchmarks.soak.watch import Life

mpl.use("Agg")
from matplotlib import pyplot as plt

BIN_S = 5
"""Rates and percentiles are of so many seconds each."""
WIDTH_IN, HEIGHT_IN, DPI = 11.0, 11.0, 90
_COLOURS = {"worker": "tab:blue", "drain": "tab:orange", "sender": "tab:green", "admin": "tab:red", "supervisor": "tab:gray"}
Curve = tuple[Sequence[float], Sequence[float]]


def draw(found: Soak, path: Path) -> None:
    """As PNG; x is minutes since the load began."""
    figure, (rate, latency, memory, backlog) = plt.subplots(4, 1, figsize=(WIDTH_IN, HEIGHT_IN), sharex=True)
    _draw_rate(rate, found)
    _draw_latency(latency, found)
    _draw_memory(memory, found)
    if found.watch:
        minutes = _minutes(found, found.watch.seconds)
        backlog.plot(minutes, np.array(found.watch.backlog_bytes) / 2**20, color="tab:purple")
    backlog.set(ylabel="journalled,\nnot stored, MiB", xlabel="minutes", ylim=(0, None))
    backlog.set_xlim(0, (found.ended_s - found.began_s) / 60)
    for axis in (rate, latency, memory, backlog):
        axis.grid(visible=True, alpha=0.3)
        for one in found.struck:
            axis.axvspan(*_minutes(found, [one.began_s, one.well_s]), color="tab:red", alpha=0.12, linewidth=0)
            axis.axvline(_minutes(found, one.began_s), color="tab:red", alpha=0.3, linewidth=0.7)
    for one in found.struck:
        at_min = _minutes(found, [one.began_s])[0]
        rate.text(at_min, 1.02, one.fault.name, rotation=60, fontsize=7, transform=rate.get_xaxis_transform())
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw_rate(axis: Any, found: Soak) -> None:
    """Of the load; the flood that fills the journal is a fault's and left out."""
    colours = {OK: "tab:blue", REFUSED: "tab:orange", UNANSWERED: "tab:red", WRONG: "black"}
    names = {OK: "answered", REFUSED: "503, journal full", UNANSWERED: "not answered", WRONG: "answered wrongly"}
    seconds = defaultdict(list)
    for mark, entry in found.entries.items():
        if not mark.startswith(OWN_MARKS):
            seconds[entry.outcome].append(entry.sent_s)
    edges = _edges(found)
    for outcome, moments in seconds.items():
        counts, _ = np.histogram(moments, edges)
        axis.plot(_minutes(found, edges[:-1]), counts / BIN_S, color=colours[outcome], label=names[outcome])
    axis.axhline(found.rate_per_s, color="gray", linestyle=":", label="asked for")
    axis.set(ylabel="requests/s", ylim=(0, found.rate_per_s * 1.4))
    axis.legend(fontsize="small", loc="upper left", ncols=5)


def _draw_latency(axis: Any, found: Soak) -> None:
    answered = [
        (one.sent_s, one.took_ms)
        for mark, one in found.entries.items()
        if one.outcome in (OK, REFUSED) and not mark.startswith(OWN_MARKS)
    ]
    edges = _edges(found)
    bins: dict[int, list[float]] = defaultdict(list)
    for number, (_, took_ms) in zip(np.digitize([at for at, _ in answered], edges), answered, strict=True):
        bins[int(number)].append(took_ms)
    shown = [number for number in sorted(bins) if 0 < number < len(edges)]
    minutes = _minutes(found, [edges[number - 1] for number in shown])
    for share, colour in ((50, "tab:green"), (99, "tab:blue"), (100, "lightgray")):
        values = [np.percentile(bins[number], share) for number in shown]
        axis.plot(minutes, values, color=colour, label="worst" if share == 100 else f"p{share}")
    axis.set(ylabel="latency, ms", yscale="log")
    axis.legend(fontsize="small", loc="upper left", ncols=3)


def _draw_memory(axis: Any, found: Soak) -> None:
    """Of our own processes, a line for each life."""
    named = set()
    for life in found.watch.lives.values() if found.watch else ():
        role = life.name.partition(" ")[0]
        if role in _COLOURS:
            label = None if role in named else role
            axis.plot(_minutes(found, life.seconds), _mib(life), color=_COLOURS[role], label=label)
            named.add(role)
    axis.set(ylabel="own resident\nmemory, MiB", ylim=(0, 1.25 * axis.get_ylim()[1]))
    axis.legend(fontsize="small", loc="upper left", ncols=5)


def _edges(found: Soak) -> Any:
    return np.arange(found.began_s, found.ended_s, BIN_S)


def _minutes(found: Soak, seconds: Any) -> Any:
    return (np.array(seconds) - found.began_s) / 60


def _mib(life: Life) -> Any:
    return np.array(life.kib) / 1024
