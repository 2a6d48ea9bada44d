"""The tables of docs/scaling.md, in Markdown."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.capacity.figures import Book

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
_SECTION = re.compile(r"(?<=<!-- capacity -->\n).*(?=<!-- /capacity -->)", re.DOTALL)


def publish(tables: str) -> None:
    """Write them between the page's marks."""
    PAGE.write_text(_SECTION.sub(lambda _: f"\n{tables}\n", PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(book: Book, found: Mapping[str, Any]) -> str:
    """All of them."""
    parts = [_headline(book), _machines(found["plans"]), _money(found["plans"]), _limits(found["limits"]), _unique(found["plans"]),
             _agreement(found["agreement"]), _runs(found["runs"] + found["outages"]), _figures(book)]  # fmt: skip
    return "\n".join(parts)


def _headline(book: Book) -> str:
    guessed = sum(one.kind == "estimate" for one in book.sources.values())
    measured = sum(one.kind == "measured" for one in book.sources.values())
    return (
        f"By `python -m benchmarks capacity --publish` from {measured} measured figures and **{guessed} estimates**; "
        "which is which stands below. A rate is the peak's.\n"
    )


def _machines(plans: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"{one['rate_per_s']:,}", one["edges"], f"{one['nats_servers']} ({one['streams']})", f"{one['drains']:,} on {one['drain_machines']}",
         one["postgres"], _big(one["postgres_tb"]), f"{one['inner_gbit_per_s']:.1f}", f"{one['first']}: {one['first_used']:.2g} of it")
        for one in plans
    ]  # fmt: skip
    head = ("clicks/s", "edge machines", "NATS servers (streams)", "drains on machines", "PostgreSQL", "TB kept", "Gbit/s between", "saturates first")
    return "**Machines, with `EDGE_UNIQUE_HOURS=0`**\n\n" + table(head, rows)


def _money(plans: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"{one['rate_per_s']:,}", f"{one['cores']:,.0f}", *(f"{one[f'dollars_{name}']:,.0f}" for name in ("machines", "storage", "network")), f"{one['dollars']:,.0f}")
        for one in plans
    ]  # fmt: skip
    head = ("clicks/s", "cores", "machines", "storage", "network", "all")
    return "**Dollars for a billion clicks, at the assumed prices**\n\n" + table(head, rows)


def _limits(limits: Iterable[Mapping[str, Any]]) -> str:
    rows = [(one["part"], _rate(one["saturates_per_s"]), one["lever"]) for one in limits]
    return "**Of what there is one only: the rate that fills it**\n\n" + table(("part", "clicks/s", "what to do"), rows)


def _unique(plans: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"{one['rate_per_s']:,}", f"{one['unique_first']}: {one['unique_first_used']:,.1f} of it", f"{_big(one['unique_gb'])} GB", f"{_big(one['unique_load_hours'])} h")
        for one in plans
    ]  # fmt: skip
    head = ("clicks/s", "saturates first", "memory of each drain", "a drain that starts reads for")
    return "**With unique clicks of the whole window remembered**\n\n" + table(head, rows)


def _agreement(found: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (one["name"], f"{one['part']}, {one['capacity_per_s']:,}", _used(one["utilisations"]), f"{one['grew_below'] * 100:.1f} %", f"{one['grew_above']:.2f}",
         "yes" if one["agrees"] else "**no**")
        for one in found
    ]  # fmt: skip
    head = ("layout", "the model: saturates, at clicks/s", "used at 0.8 of it: model/simulation", "backlog grows at 0.9, of the rate",
            "at 1.2, of what is too much", "agree")  # fmt: skip
    return "**Model and simulation**\n\n" + table(head, rows)


def _used(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {ours:.2f}/{seen:.2f}" for name, (ours, seen) in found.items())


def _runs(found: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (one["layout"], one["what"], f"{one['rate_per_s']:,} ({one['share']:.1f})", one["lag_p50_s"], one["lag_p99_s"], f"{one['backlog_most']:,}", _caught_up(one["caught_up_s"]))
        for one in found
    ]  # fmt: skip
    head = ("layout", "run", "clicks/s (of capacity)", "lag p50 s", "lag p99 s", "backlog at most", "caught up after s")
    return "**Simulated: from a click's arrival to its commit**\n\n" + table(head, rows)


def _caught_up(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "not in this run" if seconds < 0 else f"{seconds:g}"


def _figures(book: Book) -> str:
    rows = [(f"`{name}`", f"{one.value:,g}", one.kind, one.source) for name, one in book.sources.items()]
    return "**What it is reckoned from** (`benchmarks/results/capacity.json`)\n\n" + table(("figure", "value", "is", "from"), rows)


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(map(str, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _rate(per_s: float) -> str:
    """Two digits are all that such a figure has."""
    return f"{float(f'{per_s:.2g}'):,.0f}"


def _big(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
