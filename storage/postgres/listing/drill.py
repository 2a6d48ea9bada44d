"""What rows are asked for: those behind a figure, by the very parameters of the report that shows it. Pure.

D1  The report's parameters mean here what they mean there; `metric` names the figure, and none asks for all rows.
D2  Rows come newest first, in pages: the cursor is the last row's own key, so that rows which come meanwhile move nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from storage.postgres.listing.cursors import BadCursor, decode_cursor
from storage.postgres.reports.dimensions import EXTRA, SQL_TYPES, Dimension
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.planner import SOURCES, effective_touch, make_plan
from storage.postgres.reports.query import Fault, Parameters, QueryRefused, ReportQuery, parse_query
from storage.postgres.reports.sources import Fact, Need, Source, extra_of
from storage.postgres.reports.statement import Arguments, dimension_of, within
from storage.postgres.reports.viewer import Viewer

Kind = Literal["clicks", "impressions", "conversions"]
MAX_PAGE = 1000
DEFAULT_PAGE = 50
LISTABLE: Mapping[Kind, tuple[str, ...]] = {
    "clicks": (
        "clicks", "gross_clicks", "unique_clicks", "invalid_clicks", "duplicate_clicks", "refused_clicks",
        "payout", "revenue", "cost",
    ),
    "impressions": ("impressions", "payout", "revenue", "cost"),
    "conversions": ("conversions", "pending", "rejected", "reversed", "amount", "payout", "revenue"),
}  # fmt: skip
"""The metrics that rows of each kind add up to. A ratio is of several kinds of rows: each is asked for by itself."""


class Drill(NamedTuple):
    """Rows of the report's period that its filters let through. `metric`: only those that count in it; "": all."""

    query: ReportQuery
    viewer: Viewer
    metric: str = ""
    cursor: str = ""
    limit: int = DEFAULT_PAGE


class Where(NamedTuple):
    """A source's rows: from where, under what condition."""

    source: Source
    tables: str
    condition: str


def parse_drill(parameters: Parameters, viewer: Viewer, now: datetime, timezone: str, kind: Kind) -> Drill:
    """What the parameters ask for: the report's own, and `metric`, `limit`, `cursor`. QueryRefused with all their faults."""
    own: dict[str, list[str]] = {"metric": [], "limit": [], "cursor": []}
    shared = []
    for name, value in parameters:
        if name in own:
            own[name].append(value)
        else:
            shared.append((name, value))
    faults = [Fault(name, "is given more than once") for name, values in own.items() if len(values) > 1]
    given = {name: values[0] if values else "" for name, values in own.items()}
    faults += _metric_faults(given["metric"], viewer, kind)
    limit = DEFAULT_PAGE
    try:
        limit = read_limit(given["limit"])
    except QueryRefused as refused:
        faults += refused.faults
    try:
        query = parse_query(shared, viewer, now, timezone)
    except QueryRefused as refused:
        raise QueryRefused([*refused.faults, *faults]) from refused
    if faults:
        raise QueryRefused(faults)
    return Drill(query, viewer, given["metric"], given["cursor"], limit)


def _metric_faults(metric: str, viewer: Viewer, kind: Kind) -> list[Fault]:
    if not metric or (metric in LISTABLE[kind] and viewer.scope in METRICS[metric].scopes):
        return []
    allowed = [name for name in LISTABLE[kind] if viewer.scope in METRICS[name].scopes]
    return [Fault("metric", f"{metric[:60]!a} is none that {kind} add up to: {', '.join(allowed)}")]


def read_limit(text: str) -> int:
    """How many rows a page has; QueryRefused."""
    if not text:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE):
        said = f"{text[:60]!a} is not within 1 to {MAX_PAGE}; ask for the rest with cursor"
        raise QueryRefused([Fault("limit", said)])
    return int(text)


def read_cursor(drill: Drill, *kinds: type[Any]) -> list[Any] | None:
    """The key of the last row shown; None for the first page. QueryRefused."""
    try:
        return decode_cursor(drill.cursor, *kinds)
    except BadCursor as error:
        raise QueryRefused([Fault("cursor", str(error))]) from error


def find_source(drill: Drill, table: str, component: str, facts: Iterable[Fact]) -> Source:
    """The source whose rows are that table's, and which knows all the filters."""
    dimensions = tuple(dict.fromkeys(dimension_of(name) for name, _ in _filters(drill)))
    touch = effective_touch(drill.query.touch, dimensions)
    need = Need(dimensions, {component: frozenset(facts)}, drill.query.period, touch)
    steps, _ = make_plan(need, [source for source in SOURCES if source.table.startswith(f"{table} AS ")])
    return steps[0].source


def where(drill: Drill, source: Source, arguments: Arguments) -> Where:
    """The period, the report's filters and the viewer's own rows, of that source."""
    used: list[str] = []
    conditions = [within(source, drill.query.period, arguments)]
    for name, values in _filters(drill):
        dimension = dimension_of(name)
        sql = _column(source, dimension, drill, arguments, used)
        conditions.append(f"{sql} = ANY({arguments.add(list(values), SQL_TYPES[dimension.kind] + '[]')})")
    joins = "".join(sql for name, sql in source.joins.items() if name in used)
    return Where(source, source.table + joins, " AND ".join(conditions))


def _filters(drill: Drill) -> list[tuple[str, Sequence[Any]]]:
    own = [(name, (value,)) for name, value in drill.viewer.own_rows.items()]
    return [*drill.query.filters.items(), *own]


def _column(source: Source, dimension: Dimension, drill: Drill, arguments: Arguments, used: list[str]) -> str:
    """The dimension's expression; the joins that it needs are added to `used`."""
    column = source.column(dimension)
    used.extend(column.joins)
    if dimension.is_time:
        return column.sql.replace("{zone}", arguments.add(drill.query.period.timezone, "text"))
    if dimension.name.startswith(EXTRA):
        return extra_of(column, arguments.add(dimension.name.removeprefix(EXTRA), "text"), drill.viewer.scope)
    return column.sql
