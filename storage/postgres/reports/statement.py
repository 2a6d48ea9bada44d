"""The SQL of a report. Column lists come from the tables of sources and metrics, every value is a parameter.

Each source gives its sums by dimension and currency (`facts`); their sums are the rows, and again over all the total.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from storage.postgres.reports.dimensions import EXTRA, SQL_TYPES, Dimension, find_dimension
from storage.postgres.reports.metrics import METRICS, MONEY, components_of, expression
from storage.postgres.reports.periods import Period
from storage.postgres.reports.planner import Step
from storage.postgres.reports.query import ReportQuery
from storage.postgres.reports.sources import Column, Source, extra_of
from storage.postgres.reports.viewer import Viewer

CURRENCY = "currency"
ALL_ROWS = 1_000_000
SHARED = frozenset(("linear", "time_decay", "position"))
"""Touches that give parts of a conversion: their counts are no whole numbers."""
Key = tuple[Any, ...]


class Arguments:
    """The values of a statement; the same value of the same type is sent once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[tuple[str, str], str] = {}

    def add(self, value: Any, kind: str) -> str:
        """Its placeholder, cast to that type."""
        known = (repr(value), kind)
        if known not in self._places:
            self.values.append(value)
            self._places[known] = f"${len(self.values)}::{kind}"
        return self._places[known]


class Question(NamedTuple):
    """What is asked of the sources. `filters`: the viewer's own rows among them. `unsplit`: components that the sources
    know in total, but not by these dimensions.
    """

    query: ReportQuery
    viewer: Viewer
    period: Period
    dimensions: tuple[Dimension, ...]
    filters: Mapping[str, tuple[Any, ...]]
    steps: Sequence[Step]
    totals_only: Sequence[Step] = ()
    unknown: frozenset[str] = frozenset()
    """Components that no source knows: empty everywhere."""
    is_split: bool = False
    """By currency, although there may be only one."""

    @property
    def components(self) -> list[str]:
        return components_of((METRICS[name] for name in self.query.metrics), self.viewer, self.query.clicks)

    @property
    def has_money(self) -> bool:
        return bool(MONEY & set(self.components))

    @property
    def unsplit(self) -> frozenset[str]:
        """Components that the rows do not have."""
        return frozenset(name for step in self.totals_only for name in step.components) | self.unknown


def dimension_of(name: str) -> Dimension:
    """A dimension that `parse_query` let through."""
    found = find_dimension(name)
    if found is None:
        raise ValueError(f"there is no dimension {name!a}")
    return found


def write(question: Question, arguments: Arguments, keys: Sequence[Key] | None = None) -> str:
    """The whole statement: rows of `level` row, currency and total. `keys`: only the rows of these dimensions."""
    names = [f"d{place}" for place in range(len(question.dimensions))]
    sums = [_sum(question, name) for name in question.components]
    known = [name for name in question.components if name not in question.unknown]
    nonzero = " OR ".join(f"{name} <> 0" for name in known) or "false"
    money = " OR ".join(f"{name} <> 0" for name in known if name in MONEY) or "false"
    shown = [f"coalesce(sum({name}), 0) <> 0" for name in question.components if name not in question.unsplit]
    groups = ", ".join([*names, "key"])
    several = "true" if question.is_split else "(SELECT cardinality(currencies) > 1 FROM money)"
    of_key = ", ".join(["key", *question.components])
    split = "" if not question.totals_only else " WHERE NOT is_unsplit"
    # The rows are added up, not the facts once more: there may be a hundred thousand.
    unsplit = "" if not question.totals_only else f" UNION ALL SELECT {of_key} FROM keyed WHERE is_unsplit"
    return (
        f"WITH facts AS MATERIALIZED ({_facts(question, arguments)}),"
        f" money AS MATERIALIZED (SELECT coalesce(array_agg(currency), '{{}}') AS currencies"
        f" FROM (SELECT currency FROM facts WHERE {money} GROUP BY currency) AS paid),"
        f" keyed AS NOT MATERIALIZED (SELECT facts.*, CASE WHEN {several} THEN currency END AS key FROM facts),"
        f" grouped AS MATERIALIZED (SELECT {groups}, {', '.join(sums)} FROM keyed{split} GROUP BY {groups}"
        f" HAVING {' OR '.join(shown) or 'false'}),"
        f" summed AS NOT MATERIALIZED (SELECT {of_key} FROM grouped{unsplit}),"
        f" by_currency AS MATERIALIZED (SELECT key, {', '.join(sums)} FROM summed WHERE {nonzero} GROUP BY key),"
        f" total AS (SELECT {', '.join(sums)} FROM by_currency)"
        f" SELECT 'row' AS level, (SELECT count(*) FROM grouped) AS row_count, (SELECT currencies FROM money) AS currencies,"
        f" {_select(question, names, 'page', question.unsplit)} FROM ({_page(question, arguments, keys)}) AS page"
        f" UNION ALL SELECT 'currency', NULL, NULL,"
        f" {_select(question, _nothing(question), 'by_currency', question.unknown)} FROM by_currency"
        f" UNION ALL SELECT 'total', (SELECT count(*) FROM grouped), (SELECT currencies FROM money),"
        f" {_select(question, [*_nothing(question), 'NULL::text'], 'total', question.unknown)} FROM total"
    )


def _sum(question: Question, name: str) -> str:
    # Most groups have nothing of most components: each sum that is not begun saves its memory.
    return f"(sum({name}) FILTER (WHERE {name} <> 0))::{_type(question, name)} AS {name}"


def _type(question: Question, name: str) -> str:
    """Of a component: `numeric` costs several times what `bigint` does."""
    return "numeric" if name in MONEY or question.query.touch in SHARED else "bigint"


def _page(question: Question, arguments: Arguments, keys: Sequence[Key] | None) -> str:
    """The rows that are shown, in their order; only their metrics are computed."""
    return (
        f"SELECT * FROM grouped{_of_keys(question, arguments, keys)} ORDER BY {_order(question)}"
        f" LIMIT {arguments.add(question.query.limit + 1, 'bigint')}"
        f" OFFSET {arguments.add(question.query.offset, 'bigint')}"
    )


def _nothing(question: Question) -> list[str]:
    return [f"NULL::{SQL_TYPES[one.kind]}" for one in question.dimensions]


def _select(question: Question, names: Sequence[str], table: str, empty: Iterable[str]) -> str:
    """Dimensions, currency key and metrics of one of the three levels."""
    has_key = len(names) > len(question.dimensions)
    keys = [f"{sql} AS d{place}" for place, sql in enumerate(names[: len(question.dimensions)])]
    keys.append(f"{names[-1] if has_key else 'key'} AS key")
    metrics = [
        f"{_metric(question, name, table, empty)} AS m{place}" for place, name in enumerate(question.query.metrics)
    ]
    return ", ".join([*keys, *metrics])


def _metric(question: Question, metric: str, table: str, empty: Iterable[str]) -> str:
    missing = set(empty)
    columns = {
        name: "NULL::numeric" if name in missing else f"coalesce({table}.{name}, 0)" for name in question.components
    }
    return expression(METRICS[metric], question.viewer, question.query.clicks, columns)


def _order(question: Question) -> str:
    query = question.query
    if query.sort in query.dimensions:
        chosen = f"d{query.dimensions.index(query.sort)}"
    else:
        chosen = _metric(question, query.sort, "grouped", question.unsplit)
    others = [*(f"d{place}" for place in range(len(question.dimensions))), "key"]
    direction = "DESC NULLS LAST" if query.descending else "ASC NULLS LAST"
    return ", ".join([f"{chosen} {direction}", *(f"{name} NULLS FIRST" for name in others)])


def _of_keys(question: Question, arguments: Arguments, keys: Sequence[Key] | None) -> str:
    """Only the rows that have these values in their dimensions other than time."""
    if keys is None:
        return ""
    places = [place for place, one in enumerate(question.dimensions) if not one.is_time]
    if not places:
        return ""
    arrays = [
        arguments.add([key[place] for key in keys], f"{SQL_TYPES[question.dimensions[place].kind]}[]")
        for place in places
    ]
    columns = ", ".join(f"d{place}" for place in places)
    return f" WHERE ({columns}) IN (SELECT * FROM unnest({', '.join(arrays)}))"


def _facts(question: Question, arguments: Arguments) -> str:
    parts = [
        _fact(question, step, arguments, is_unsplit=is_unsplit)
        for steps, is_unsplit in ((question.steps, False), (question.totals_only, True))
        for step in steps
    ]
    return " UNION ALL ".join(parts) or _no_facts(question)


def _no_facts(question: Question) -> str:
    columns = [f"{sql} AS d{place}" for place, sql in enumerate(_nothing(question))]
    sums = [f"NULL::{_type(question, name)} AS {name}" for name in question.components]
    currency = "''::text AS currency"
    return f"SELECT {', '.join([*columns, currency, *sums])} WHERE false"


def _fact(question: Question, step: Step, arguments: Arguments, *, is_unsplit: bool) -> str:
    """One source's sums by the dimensions, and by currency where there is money."""
    source = step.source
    used: list[str] = []
    columns = []
    for place, dimension in enumerate(question.dimensions):
        kind = SQL_TYPES[dimension.kind]
        sql = f"NULL::{kind}" if is_unsplit else f"{_use(source, dimension, question, arguments, used)}::{kind}"
        columns.append(f"{sql} AS d{place}")
    currency = "''" if not question.has_money else _use(source, dimension_of(CURRENCY), question, arguments, used)
    columns.append(f"{currency}::text AS currency")
    conditions = ["true" if source.is_cut else within(source, question.period, arguments)]
    for name, values in question.filters.items():
        dimension = dimension_of(name)
        sql = _use(source, dimension, question, arguments, used)
        conditions.append(f"{sql} = ANY({arguments.add(list(values), SQL_TYPES[dimension.kind] + '[]')})")
    sums = [
        f"({source.components[name].sql if name in step.components else 'NULL'})::{_type(question, name)} AS {name}"
        for name in question.components
    ]
    grouped = ", ".join(str(place) for place in range(1, len(columns) + 1))
    flag = [f"{is_unsplit} AS is_unsplit"] if question.totals_only else []
    joins = "".join(sql for name, sql in source.joins.items() if name in used)
    table = source.table
    for name, bound in source.bounds.items():
        table = table.replace(f"{{{name}}}", arguments.add(bound, "timestamptz"))
    return (
        f"SELECT {', '.join([*columns, *sums, *flag])} FROM {table}{joins}"
        f" WHERE {' AND '.join(conditions)} GROUP BY {grouped}"
    )


def _use(source: Source, dimension: Dimension, question: Question, arguments: Arguments, used: list[str]) -> str:
    """The dimension's expression; the joins that it needs are added to `used`."""
    column: Column = source.column(dimension)
    used.extend(column.joins)
    sql = column.sql
    if dimension.is_time:
        return sql.replace("{zone}", arguments.add(question.period.timezone, "text"))
    if dimension.name.startswith(EXTRA):
        return extra_of(column, arguments.add(dimension.name.removeprefix(EXTRA), "text"), question.viewer.scope)
    return sql


def within(source: Source, period: Period, arguments: Arguments) -> str:
    """The period as a condition: on ids too where time orders them, so that partitions prune."""
    low: date | datetime = period.starts_at
    high: date | datetime = period.ends_at
    kind = "timestamptz"
    if source.grain == "day":
        low, high, kind = _first_midnight(period), period.days_after, "date"
    conditions = [
        f"{source.moment} >= {arguments.add(low, kind)} AND {source.moment} < {arguments.add(high, kind)}",
    ]
    if source.ids:
        lowest, highest = period.id_range
        conditions.append(
            f"{source.ids} >= {arguments.add(lowest, 'uuid')} AND {source.ids} < {arguments.add(highest, 'uuid')}"
        )
    return " AND ".join(conditions)


def _first_midnight(period: Period) -> date:
    """The first day that begins within the period or later."""
    return Period(period.starts_at - timedelta(days=1), period.starts_at, period.timezone).days_after
