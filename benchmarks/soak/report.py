"""The report: figures as JSON, a page with tables, a picture of the whole soak."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.soak.plot import draw
from benchmarks.soak.run import Soak

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "soak.md"
PICTURE = ROOT / "docs" / "images" / "soak.png"
FIGURES = ROOT / "benchmarks" / "results" / "soak.json"
_SECTION = re.compile(r"(?<=<!-- soak -->\n).*(?=<!-- /soak -->)", re.DOTALL)
_PHASES = {"quiet": "no fault", "under_fault": "under a fault"}


def write_report(figures: Mapping[str, Any], found: Soak, directory: Path, *, is_published: bool) -> None:
    """Into `directory`, made if missing; published, into the documentation as well."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=2) + "\n"
    (directory / "soak.json").write_text(text, encoding="utf-8")
    (directory / "samples.json").write_text(json.dumps(_samples(found)), encoding="utf-8")
    tables = render(figures)
    (directory / "soak.md").write_text(tables, encoding="utf-8")
    draw(found, directory / "soak.png")
    print(f"\n{tables}\nthe report is in {directory}")
    if is_published:
        FIGURES.write_text(text, encoding="utf-8")
        PICTURE.write_bytes((directory / "soak.png").read_bytes())
        PAGE.write_text(_SECTION.sub(lambda _: f"\n{tables}\n", PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def _samples(found: Soak) -> dict[str, Any]:
    """Every second's, for who wants to look closer."""
    watch = found.watch
    if watch is None:
        return {}
    return {
        "began_s": found.began_s,
        "seconds": watch.seconds,
        "backlog_bytes": watch.backlog_bytes,
        "lives": [asdict(life) for life in watch.lives.values()],
    }


def render(figures: Mapping[str, Any]) -> str:
    """The page's tables, in Markdown."""
    return "\n".join([_headline(figures), _phases(figures), _faults(figures), _counts(figures), _memory(figures)])


def _headline(figures: Mapping[str, Any]) -> str:
    left_out = f" Left out: {', '.join(figures['left_out'])}." if figures["left_out"] else ""
    verdict = "Nothing lost, nothing doubled, memory flat." if not figures["faults"] else "; ".join(figures["faults"])
    return (
        f"{figures['measured_at'][:10]}, commit {figures['commit']}, {figures['cores']} cores (load average before: {figures['load_before']}), Python {figures['python']};"
        f" {figures['seconds'] / 60:.1f} minutes, {figures['requests']:,} requests, {len(figures['faults_struck'])} faults,"
        f" seed {figures['seed']}.{left_out}\n\n**{verdict}**\n"
    )


def _phases(figures: Mapping[str, Any]) -> str:
    rows = [(name, *_load_cells(figures[key])) for key, name in _PHASES.items()]
    return _table(("phase", "requests", "of the rate", "errors", "p50 ms", "p99 ms", "p99.9 ms", "worst ms"), rows)


def _load_cells(phase: Mapping[str, Any]) -> tuple[Any, ...]:
    errors = f"{phase['error_rate'] * 100:.3g} %"
    times = (phase[name] for name in ("p50_ms", "p99_ms", "p99_9_ms", "max_ms"))
    return f"{phase['requests']:,}", f"{phase['achieved_share'] * 100:.0f} %", errors, *times


def _faults(figures: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{one['at_s'] / 60:.1f}", one["name"], one["saw"], f"{one['well_after_s']:.0f} s", one["unanswered"], one["refused"],
            one["p50_ms"], one["p99_ms"],
        )
        for one in figures["faults_struck"]
    ]  # fmt: skip
    return _table(("minute", "fault", "seen", "well after", "not answered", "503", "p50 ms", "p99 ms"), rows)


def _counts(figures: Mapping[str, Any]) -> str:
    names = ("sent", "answered", "refused", "stored", "dropped", "lost", "doubled")
    rows = [(kind, *(f"{one[name]:,}" for name in names)) for kind, one in figures["counts"].items()]
    return (
        _table(("row", *names), rows)
        + f"\nDropped while the journal was full: {figures['dropped_counted']:,} by the node's own count. Partners were told of"
        f" {figures['partners_told']:,} conversions, {figures['partners_told_again']:,} times again. Everything was stored"
        f" {figures['all_stored_after_s']} s after the last request.\n"
    )


def _memory(figures: Mapping[str, Any]) -> str:
    rows = [
        (one["process"], one["lived_s"], one["max_mib"], one["slope_kib_per_min"], one["growth_kib"], one["leap_kib"])
        for one in figures["memory"]
    ]
    return _table(("process", "lived s", "at most MiB", "slope KiB/min", "growth KiB", "by faults KiB"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(map(str, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
