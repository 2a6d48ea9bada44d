"""A report as the API and `--json` give it."""

from datetime import datetime
from typing import Any

import msgspec

from storage.postgres.reports.periods import Period
from storage.postgres.reports.report import Column, Report, Row

Numbers = dict[str, float | None]
"""By metric. In fact they are Decimal and int, which JSON has no other word for than number."""


class AnswerRow(msgspec.Struct, omit_defaults=True):
    """`change`: in percent of `previous`. A metric is null where it would be a division by nothing, or nobody knows it."""

    dimensions: dict[str, Any]
    metrics: Numbers
    previous: Numbers | None = None
    change: Numbers | None = None


class AnswerPeriod(msgspec.Struct):
    """From the first instant to before the second."""

    from_: datetime = msgspec.field(name="from")
    to: datetime
    timezone: str


class AnswerColumns(msgspec.Struct):
    """What the rows have, in order, each with its label, its kind or unit, and a metric's formula."""

    dimensions: list[Column]
    metrics: list[Column]


class Answer(msgspec.Struct):
    """A page of a report. `totals` and `row_count` are of all pages; `as_of`: everything until then is in it."""

    data: list[AnswerRow]
    next_cursor: str | None
    row_count: int
    totals: AnswerRow
    totals_by_currency: list[AnswerRow]
    currencies: list[str]
    columns: AnswerColumns
    labels: dict[str, dict[str, str]]
    period: AnswerPeriod
    previous_period: AnswerPeriod | None
    by: str
    clicks: str
    touch: str
    as_of: datetime | None
    lag_s: float | None
    notes: list[str]
    sources: list[str]


def to_answer(report: Report) -> Answer:
    """The report in the words of the API."""
    query = report.query
    return Answer(
        data=[_row(row) for row in report.rows],
        next_cursor=report.next_cursor,
        row_count=report.row_count,
        totals=_row(report.totals),
        totals_by_currency=[_row(row) for row in report.totals_by_currency],
        currencies=report.currencies,
        columns=AnswerColumns(report.dimensions, report.metrics),
        labels=report.labels,
        period=_period(query.period),
        previous_period=_period(report.previous_period) if report.previous_period else None,
        by=query.by,
        clicks=query.clicks,
        touch=query.touch,
        as_of=report.freshness.as_of,
        lag_s=report.freshness.lag_s,
        notes=report.notes,
        sources=report.plan,
    )


def encode_answer(answer: Answer) -> bytes:
    """JSON, money as numbers."""
    return _encoder.encode(answer)


_encoder = msgspec.json.Encoder(decimal_format="number")


def _row(row: Row) -> AnswerRow:
    numbers: Any = (row.metrics, row.previous, row.change)
    return AnswerRow(row.dimensions, *numbers)


def _period(period: Period) -> AnswerPeriod:
    zone = period.zone
    return AnswerPeriod(period.starts_at.astimezone(zone), period.ends_at.astimezone(zone), period.timezone)
