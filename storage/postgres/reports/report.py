"""A report run: its rows, totals, comparison, freshness and names, all from one snapshot of the database."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec

from storage.errors import StorageError
from storage.postgres.connection import Connection
from storage.postgres.reports import statement
from storage.postgres.reports.comparison import Figures, bucket_of, changes_in_percent
from storage.postgres.reports.freshness import Freshness, read_freshness
from storage.postgres.reports.labels import Labels, find_labels
from storage.postgres.reports.metrics import METRICS, MONEY, describe, header
from storage.postgres.reports.periods import Period
from storage.postgres.reports.planner import SOURCES, Step
from storage.postgres.reports.query import Fault, QueryRefused, ReportQuery
from storage.postgres.reports.questions import ask
from storage.postgres.reports.sources import Source
from storage.postgres.reports.viewer import Viewer

TIMEOUT_S = 30
# Sums by 100,000 values fit into memory; a plan of 30 partitions takes longer to compile than to run.
_FOR_REPORTS = "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off"


class ReportTooSlow(StorageError):
    """The report takes too long; a shorter period or fewer dimensions would not."""

    def __init__(self) -> None:
        super().__init__(f"the report took more than {TIMEOUT_S} s: ask for a shorter period or fewer dimensions")


class Column(msgspec.Struct, frozen=True):
    """`kind`: a dimension's (id, text, date, …) or a metric's unit (count, money, percent, ratio). `formula` "": none."""

    name: str
    label: str
    kind: str
    formula: str = ""


class Row(msgspec.Struct):
    """`dimensions`: by name, as ids, texts, dates, times. None in `metrics`: there is none, as of a division by nothing."""

    dimensions: dict[str, Any]
    metrics: Figures
    previous: Figures | None = None
    change: Figures | None = None
    """In percent of what it was; None where that was nothing."""


class Report(msgspec.Struct, kw_only=True):
    """`totals`: of all rows, not only of this page; money of several currencies is None there, and in `totals_by_currency`."""

    query: ReportQuery
    dimensions: list[Column]
    metrics: list[Column]
    rows: list[Row]
    row_count: int
    totals: Row
    totals_by_currency: list[Row]
    currencies: list[str]
    labels: Labels
    previous_period: Period | None
    freshness: Freshness
    notes: list[str]
    next_cursor: str | None
    plan: list[str]


class _Answer(msgspec.Struct):
    """What one statement gave. `currencies`: those that have money."""

    rows: list[Row]
    row_count: int
    totals: Row
    by_currency: list[Row]
    currencies: list[str]
    is_split: bool


async def run_report(
    conn: Connection, query: ReportQuery, viewer: Viewer, now: datetime, sources: Sequence[Source] = SOURCES
) -> Report:
    """The report as `viewer` may see it. ReportTooSlow: it was given up. QueryRefused: PostgreSQL does not know the zone."""
    try:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(f"SET LOCAL statement_timeout = {TIMEOUT_S * 1000}; {_FOR_REPORTS}")
            return await _run(conn, query, viewer, now, sources)
    except asyncpg.QueryCanceledError as error:
        raise ReportTooSlow from error
    except asyncpg.InvalidParameterValueError as error:  # PostgreSQL knows fewer zones than Python
        raise QueryRefused([Fault("timezone", str(error))]) from error


async def explain_report(
    conn: Connection, query: ReportQuery, viewer: Viewer, sources: Sequence[Source] = SOURCES
) -> list[str]:
    """PostgreSQL's plan of the report, executed: lines of EXPLAIN ANALYZE."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await conn.execute(f"SET LOCAL statement_timeout = {TIMEOUT_S * 1000}; {_FOR_REPORTS}")
        question, _ = await ask(conn, query, viewer, query.period, sources)
        arguments = statement.Arguments()
        sql = statement.write(question, arguments)
        return [row[0] for row in await conn.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", *arguments.values)]


async def _run(
    conn: Connection, query: ReportQuery, viewer: Viewer, now: datetime, sources: Sequence[Source]
) -> Report:
    question, notes = await ask(conn, query, viewer, query.period, sources)
    answer = await _fetch(conn, question)
    previous_period = None
    if query.compare:
        previous_period = query.period.previous(now)
        answer, before = await _compare(conn, answer, question, previous_period, sources)
        notes.extend(f"of the time before: {note}" for note in before if note not in notes)
    if answer.is_split:
        notes.append("money of several currencies is never added: totals stand by currency")
    has_more = len(answer.rows) > query.limit
    rows = answer.rows[: query.limit]
    return Report(
        query=query,
        dimensions=_dimension_columns(query, is_split=answer.is_split),
        metrics=_metric_columns(query, viewer),
        rows=rows,
        row_count=answer.row_count,
        totals=answer.totals,
        totals_by_currency=answer.by_currency,
        currencies=answer.currencies,
        labels=await find_labels(conn, [row.dimensions for row in rows], query.dimensions, viewer),
        previous_period=previous_period,
        freshness=await read_freshness(conn, now),
        notes=notes,
        next_cursor=query.cursor_at(query.offset + query.limit) if has_more else None,
        plan=[_describe(step) for step in (*question.steps, *question.totals_only)],
    )


async def _fetch(
    conn: Connection, question: statement.Question, keys: Sequence[statement.Key] | None = None
) -> _Answer:
    arguments = statement.Arguments()
    records = await conn.fetch(statement.write(question, arguments, keys), *arguments.values)
    total = next(record for record in records if record["level"] == "total")
    currencies: list[str] = sorted(total["currencies"])
    is_split = question.is_split or len(currencies) > 1
    levels: dict[str, list[Row]] = {"row": [], "currency": [], "total": []}
    for record in records:
        levels[record["level"]].append(_row(record, question, is_split=is_split))
    by_currency = sorted(levels["currency"], key=lambda row: row.dimensions[statement.CURRENCY]) if is_split else []
    totals = levels["total"][0]
    if is_split:
        totals.metrics.update({name: None for name in question.query.metrics if _has_money(name)})
    return _Answer(levels["row"], total["row_count"], totals, by_currency, currencies, is_split)


def _row(record: Any, question: statement.Question, *, is_split: bool) -> Row:
    zone = question.period.zone
    level, dimensions = record["level"], {}
    if level == "row":
        for place, name in enumerate(question.query.dimensions):
            value = record[f"d{place}"]
            dimensions[name] = value.astimezone(zone) if isinstance(value, datetime) else value
    if is_split and level != "total":
        dimensions.setdefault(statement.CURRENCY, record["key"])
    metrics = {name: _figure(record[f"m{place}"], name) for place, name in enumerate(question.query.metrics)}
    return Row(dimensions, metrics)


def _figure(value: Decimal | int | None, name: str) -> Decimal | int | None:
    """Counts as whole numbers, which they are but where conversions are spread over touches: those to 6 places."""
    if value is None or isinstance(value, int):
        return value
    if METRICS[name].unit == "count" and value == value.to_integral_value():
        return int(value)
    return round(value, 6)


def _has_money(name: str) -> bool:
    metric = METRICS[name]
    return bool({*metric.plus, *metric.minus, *metric.over} & {*MONEY, "earnings"})


async def _compare(
    conn: Connection, answer: _Answer, question: statement.Question, period: Period, sources: Sequence[Source]
) -> tuple[_Answer, list[str]]:
    """The answer with what each figure was in that period beside it, and notes on those."""
    query = question.query
    keys = [tuple(row.dimensions[name] for name in query.dimensions) for row in answer.rows]
    everything = msgspec.structs.replace(query, offset=0, limit=statement.ALL_ROWS)
    asked, notes = await ask(conn, everything, question.viewer, period, sources, is_comparison=True)
    before = await _fetch(conn, asked._replace(is_split=answer.is_split), keys)
    if not answer.is_split and len({*answer.currencies, *before.currencies}) > 1:
        # One currency now and another then: neither may be measured by the other.
        answer = await _fetch(conn, question._replace(is_split=True))
        before = await _fetch(conn, asked._replace(is_split=True), keys)
    nothing = _nothing(query)
    known = {bucket_of(row.dimensions, period): row.metrics for row in before.rows}
    for row in answer.rows:
        _set_previous(row, known.get(bucket_of(row.dimensions, query.period), nothing))
    _set_previous(answer.totals, before.totals.metrics)
    by_currency = {row.dimensions[statement.CURRENCY]: row.metrics for row in before.by_currency}
    for row in answer.by_currency:
        _set_previous(row, by_currency.get(row.dimensions[statement.CURRENCY], nothing))
    return answer, notes


def _nothing(query: ReportQuery) -> Figures:
    """The figures where nothing happened."""
    return {name: None if METRICS[name].is_ratio else 0 for name in query.metrics}


def _set_previous(row: Row, before: Figures) -> None:
    row.previous, row.change = before, changes_in_percent(row.metrics, before)


def _dimension_columns(query: ReportQuery, *, is_split: bool) -> list[Column]:
    names = list(query.dimensions)
    if is_split and statement.CURRENCY not in names:
        names.append(statement.CURRENCY)
    found = [statement.dimension_of(name) for name in names]
    return [Column(one.name, one.label, one.kind) for one in found]


def _metric_columns(query: ReportQuery, viewer: Viewer) -> list[Column]:
    found = [METRICS[name] for name in query.metrics]
    return [Column(one.name, header(one, query.clicks), one.unit, describe(one, viewer, query.clicks)) for one in found]


def _describe(step: Step) -> str:
    return f"{', '.join(step.components)} from {step.source.name}"
