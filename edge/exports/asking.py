"""What is to be exported: parameters of the API and of the command, read. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, get_args

from storage.postgres.exports.selecting import Selection, can_filter
from storage.postgres.exports.tables import Field, Table
from storage.postgres.reports.query import Fault, Parameters, QueryRefused, parse_query
from storage.postgres.reports.viewer import Viewer

Format = Literal["csv", "ndjson", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
MEDIA: dict[str, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
_TIMES = ("from", "to", "timezone", "by")
_REPORT_ONLY = ("dimensions", "metrics", "clicks", "touch", "compare", "sort", "limit", "cursor")


class Shape(NamedTuple):
    """How the file is to look. `for_spreadsheets`: cells that one would calculate are made text (CSV only)."""

    format: Format = "csv"
    for_spreadsheets: bool = False


def take_shape(parameters: Parameters) -> tuple[Shape, list[tuple[str, str]]]:
    """`format` and `for_spreadsheets`, and the other parameters; QueryRefused."""
    own = {"format": "csv", "for_spreadsheets": "false"}
    given = [(name, value) for name, value in parameters if name in own]
    faults = [Fault(name, "is given more than once") for name in own if [n for n, _ in given].count(name) > 1]
    own |= dict(given)
    if own["format"] not in FORMATS:
        faults.append(Fault("format", f"{own['format'][:40]!a} is none of {', '.join(FORMATS)}"))
    if own["for_spreadsheets"] not in ("true", "false", "1", "0"):
        faults.append(Fault("for_spreadsheets", "is neither true nor false"))
    if faults:
        raise QueryRefused(faults)
    shape = Shape(own["format"], own["for_spreadsheets"] in ("true", "1"))  # type: ignore[arg-type]
    return shape, [(name, value) for name, value in parameters if name not in own]


def parse_selection(
    table: Table, parameters: Parameters, viewer: Viewer, now: datetime, timezone: str
) -> Selection:
    """Rows of a table that these parameters mean, as the viewer may see them; QueryRefused names every fault; NotYours.

    `columns` comma-separated; `from`, `to`, `timezone`, `by` and filters as for reports.
    """
    faults: list[Fault] = [
        Fault(name, "is of reports only") for name in dict.fromkeys(n for n, _ in parameters if n in _REPORT_ONLY)
    ]
    names = [value for name, value in parameters if name == "columns"]
    rest = [one for one in parameters if one[0] != "columns" and one[0] not in _REPORT_ONLY]
    fields = _fields(table, names, viewer, faults)
    is_timed = any(name in ("from", "to") and value for name, value in parameters)
    if not is_timed and not table.is_timeless:
        faults.append(Fault("from", "is required"))
    try:
        query = parse_query(rest, viewer, now, timezone)
    except QueryRefused as refused:
        raise QueryRefused([*faults, *refused.faults]) from refused
    selection = Selection(
        table, fields, viewer, query.period if is_timed else None, query.filters, by_click=query.by == "click"
    )
    faults += [
        Fault(name, f"{table.name} cannot be filtered by it") for name in query.filters if not can_filter(selection, name)
    ]
    if faults:
        raise QueryRefused(faults)
    return selection


def _fields(table: Table, texts: Sequence[str], viewer: Viewer, faults: list[Fault]) -> list[Field]:
    visible = {field.name: field for field in table.visible(viewer.scope)}
    wanted = list(dict.fromkeys(_split(texts)))
    unknown = [name for name in wanted if name not in visible]
    if unknown:
        shown = ", ".join(ascii(name[:40]) for name in unknown[:10])
        faults.append(Fault("columns", f"{table.name} has no {shown}; it has {', '.join(visible)}"))
    return [visible[name] for name in wanted if name in visible] or list(visible.values())


def _split(texts: Iterable[str]) -> Iterable[str]:
    return (name.strip() for text in texts for name in text.split(",") if name.strip())
