"""The comparison in figures: medians and ratios, the table of the README, the plot."""

import argparse
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from benchmarks import report
from benchmarks.peers.loads import LOADS, Sample

_COLUMNS = (
    "server", "does", "requests", "req/s (lowest-highest)", "÷ nginx + log", "÷ aiohttp", "÷ our click",
    "CPU µs a request: user + system", "wrk's p50, p99 ms", "wrk's core", "failures",
)  # fmt: skip
LOGGING, BARE, OURS = "nginx + log", "aiohttp", "ClickEdge"


class Row(Protocol):
    """What was measured."""

    @property
    def server(self) -> str: ...
    @property
    def load(self) -> str: ...
    @property
    def does(self) -> str: ...


class Figures(NamedTuple):
    """A row's medians over the rounds; ratios are medians of the rounds' ratios, None where there is no such row.

    Ratios to nginx and aiohttp are to their rows of the same load, for impressions and postbacks to those of clicks.
    """

    server: str
    load: str
    does: str
    rate_per_s: int
    lowest_per_s: int
    highest_per_s: int
    to_nginx_log: float | None
    to_aiohttp: float | None
    to_our_click: float | None
    user_us: float
    system_us: float
    p50_us: int
    p99_us: int
    failures: int
    client_cores: float
    """What wrk used of its core."""


def summarise(samples: Mapping[str, Sequence[Sample]], rows: Mapping[str, Row]) -> dict[str, Figures]:
    """Figures by the row's name, of the rows that have samples."""
    return {name: _figures(row, samples[name], samples) for name, row in rows.items() if name in samples}


def _figures(row: Row, taken: Sequence[Sample], samples: Mapping[str, Sequence[Sample]]) -> Figures:
    alike = row.load if row.load.endswith("clicks") else "clicks"
    rates = [sample.rate_per_s for sample in taken]
    return Figures(
        row.server,
        row.load,
        row.does,
        round(statistics.median(rates)),
        round(min(rates)),
        round(max(rates)),
        _ratio(taken, samples.get(f"{LOGGING}: {alike}", ())),
        _ratio(taken, samples.get(f"{BARE}: {alike}", ())),
        _ratio(taken, samples.get(f"{OURS}: clicks", ())) if row.server.startswith(OURS) else None,
        round(statistics.median(sample.user_us for sample in taken), 2),
        round(statistics.median(sample.system_us for sample in taken), 2),
        round(statistics.median(sample.p50_us for sample in taken)),
        round(statistics.median(sample.p99_us for sample in taken)),
        sum(sample.failures for sample in taken),
        round(statistics.median(sample.client_cores for sample in taken), 2),
    )


def _ratio(taken: Sequence[Sample], others: Sequence[Sample]) -> float | None:
    ratios = [one.rate_per_s / other.rate_per_s for one, other in zip(taken, others, strict=False)]
    return round(statistics.median(ratios), 3) if ratios else None


def markdown(
    rows: Mapping[str, Figures], absent: Mapping[str, str], facts: Mapping[str, Any], arguments: argparse.Namespace
) -> str:
    """The table, what it was measured on above it, and who is missing below it."""
    measured_on = (
        f"{facts['measured_at'][:10]}, commit {facts['commit']}, {facts['cpu']}, Python {facts['python']};"
        f" medians of {arguments.rounds} rounds of {arguments.seconds} s, {arguments.connections} connections."
    )
    lines = [
        measured_on,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(_line(figures) for figures in sorted(rows.values(), key=_place)),
        *(f"| {server} | not measured: {reason} {'|' * (len(_COLUMNS) - 1)}" for server, reason in absent.items()),
    ]
    return "\n".join(lines)


def _place(figures: Figures) -> tuple[int, int]:
    """By what is asked, the fastest first."""
    return list(LOADS).index(figures.load), -figures.rate_per_s


def _line(figures: Figures) -> str:
    ratios = (figures.to_nginx_log, figures.to_aiohttp, figures.to_our_click)
    cells = [
        f"**{figures.server}**" if figures.server.startswith(OURS) else figures.server,
        figures.does,
        figures.load,
        f"{figures.rate_per_s:,} ({figures.lowest_per_s:,}-{figures.highest_per_s:,})",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        f"{figures.user_us:.1f} + {figures.system_us:.1f}",
        f"{figures.p50_us / 1000:.2f}, {figures.p99_us / 1000:.2f}",
        f"{figures.client_cores:.0%}",
        str(figures.failures),
    ]
    return f"| {' | '.join(cells)} |"


def rewrite_readme(table: str) -> None:
    """Put the table between its markers in the README beside the results; without such a page, nothing."""
    page = report.RESULTS.parent / "README.md"
    if page.exists():
        text = page.read_text(encoding="utf-8")
        found = re.sub(
            r"(?<=<!-- peers -->\n).*?(?=<!-- /peers -->)", lambda _: f"\n{table}\n\n", text, flags=re.DOTALL
        )
        page.write_text(found, encoding="utf-8")


def draw(rows: Mapping[str, Figures]) -> None:
    """Requests per second as bars, ours in another colour, whiskers from the lowest to the highest round."""
    import matplotlib as mpl  # noqa: PLC0415 - only here, and slow

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = sorted(rows.values(), key=lambda figures: figures.rate_per_s)
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(shown) + 1.2), dpi=100)
    bars = axes.barh(
        [f"{figures.server}: {figures.load}" for figures in shown],
        [figures.rate_per_s for figures in shown],
        xerr=[
            [figures.rate_per_s - figures.lowest_per_s for figures in shown],
            [figures.highest_per_s - figures.rate_per_s for figures in shown],
        ],
        color=["#c0392b" if figures.server.startswith(OURS) else "#9aa5b1" for figures in shown],
        error_kw={"ecolor": "#444444", "elinewidth": 1},
    )
    axes.bar_label(bars, [f"{figures.rate_per_s / 1000:.1f}k" for figures in shown], padding=12, fontsize=8)
    axes.set_xlabel("requests per second, one core (median of the rounds; whiskers: lowest and highest)")
    axes.margins(x=0.12, y=0.01)
    axes.tick_params(axis="y", labelsize=8)
    figure.tight_layout()
    report.RESULTS.mkdir(exist_ok=True, parents=True)
    figure.savefig(report.RESULTS / "peers.png")
    plt.close(figure)
