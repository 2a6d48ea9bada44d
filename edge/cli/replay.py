"""`clickedge replay`: what a period would have come to under changed rules. Nothing is written."""

import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge.cli.apply import read_catalog_text
from edge.cli.database import database_options, run_connected
from edge.drain.replay.figures import Compared, Figures
from edge.drain.replay.run import Asked, Replay, replay
from edge.errors import UserError
from storage.postgres.connection import resolve_url

MAX_DIFF_LINES = 40
_MONEY = ("amount", "payout", "revenue")
_SIDES = ("before", "after", "difference")


@click.command("replay")
@click.option("--from", "first", required=True, metavar="DATE", help="The first day, such as 2026-10-01.")
@click.option("--to", "last", required=True, metavar="DATE", help="The last day, included.")
@click.option("--catalog", "file", default="", metavar="FILE", help="What changes, as for apply; - for stdin.")
@click.option("--offer", "offers", type=int, multiple=True, help="Only this offer; may be repeated.")
@click.option("--partner", "partners", type=int, multiple=True, help="Only this partner; may be repeated.")
@click.option("--csv", "form", flag_value="csv", help="A line for each figure that there is.")
@click.option("--json", "form", flag_value="json", help="Everything, as JSON.")
@database_options
def replay_command(
    first: str,
    last: str,
    file: str,
    offers: Sequence[int],
    partners: Sequence[int],
    form: str | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Decide the conversions and clicks of a period again as if the rules of FILE had held, and show the difference.

    Days are those of EDGE_TIMEZONE. Without --catalog nothing changes: all differences must be none. Nothing is written.
    """
    text = read_catalog_text(file) if file else ""
    asked = Asked(_day(first, "--from"), _day(last, "--to"), offers, partners)
    url = resolve_url(database, data_dir)
    with _progress() as progress:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, count: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=count)

        replayed = run_connected(url, "replay", lambda conn: replay(conn, asked, text, file, show))
    match form:
        case "json":
            click.echo(orjson.dumps(as_data(replayed), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        case "csv":
            csv.writer(sys.stdout).writerows(as_rows(replayed))
        case _:
            _print(replayed)


def as_data(replayed: Replay) -> dict[str, Any]:
    """The replay as JSON has it; money as text, exactly as kept."""
    return {
        "from": replayed.starts_at,
        "to": replayed.ends_at,
        "changes": list(replayed.rules.diff),
        "places": [_compared(one) for one in replayed.compared],
        "totals": [_compared(one) for one in replayed.total],
    }


def as_rows(replayed: Replay) -> Iterator[Sequence[object]]:
    """The replay as CSV: a head, and one line for each figure of each offer, partner and currency."""
    yield ("offer", "partner", "currency", "figure", "status", "reason", *_SIDES)
    for one in replayed.compared:
        for figure, status, reason, *values in figures_of(one):
            yield (*one.place, figure, status, reason, *values)


def figures_of(one: Compared) -> Iterator[tuple[Any, ...]]:
    """Name, status and reason of each figure, then its value before, after, and the difference."""
    sides = one.before, one.after, one.difference
    for name in ("clicks", "conversions"):
        kinds = sorted(getattr(one.before, name).keys() | getattr(one.after, name).keys())
        for kind in kinds:
            counts = [getattr(side, name)[kind] for side in sides]
            if any(counts):
                yield (name, *kind, *counts)
    if one.before.erased:
        yield ("erased_conversions", "", "", *(side.erased for side in sides))
    for name in _MONEY:
        yield (name, "", "", *(f"{getattr(side, name):f}" for side in sides))


def _compared(one: Compared) -> dict[str, Any]:
    place = {name: value for name, value in one.place._asdict().items() if value}
    return {**place, **{side: _figures(getattr(one, side)) for side in _SIDES}}


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        **{
            name: [
                {"status": status, "reason": reason, "count": count}
                for (status, reason), count in sorted(getattr(figures, name).items())
                if count
            ]
            for name in ("clicks", "conversions")
        },
        "erased_conversions": figures.erased,
        **{name: f"{getattr(figures, name):f}" for name in _MONEY},
    }


def _print(replayed: Replay) -> None:
    console = Console(highlight=False)
    for line in replayed.rules.diff[:MAX_DIFF_LINES]:
        console.print(line, markup=False)
    if len(replayed.rules.diff) > MAX_DIFF_LINES:
        console.print(f"… and {len(replayed.rules.diff) - MAX_DIFF_LINES} more lines")
    changed = [one for one in replayed.compared if one.difference.has_any()]
    for one in changed:
        console.print(_table(f"offer {one.place.offer_id}, partner {one.place.aff_id}", one))
    for one in replayed.total:
        console.print(_table("all that was asked for", one))
    if erased := sum(one.before.erased for one in replayed.total):
        console.print(f"{erased} conversions of erased people are left as they were: too little is known to decide them")
    same = len(replayed.compared) - len(changed)
    console.print(f"{same} of {len(replayed.compared)} offers and partners are the same; nothing was written")


def _table(title: str, one: Compared) -> Table:
    table = Table(title=f"{title} {one.place.currency}".rstrip(), title_justify="left")
    table.add_column("")
    for side in _SIDES:
        table.add_column(side, justify="right")
    for name, status, reason, *values in figures_of(one):
        label = " ".join(filter(None, (name, status, reason)))
        table.add_row(label, *map(str, values))
    return table


def _progress() -> Progress:
    """On stderr, and only where somebody looks at it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{option}: {text[:40]!a} is no day: write it 2026-10-01") from error
