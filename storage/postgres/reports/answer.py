"""A report as the API answers it, and everybody who wants plain values."""

from typing import Any

from storage.postgres.reports.periods import Period
from storage.postgres.reports.report import Column, Report, Row


def to_answer(report: Report) -> dict[str, Any]:
    """Plain values: dates, times, Decimals and what is made of them."""
    query = report.query
    return {
        "data": [_row(row) for row in report.rows],
        "next_cursor": report.next_cursor,
        "row_count": report.row_count,
        "totals": _row(report.totals),
        "totals_by_currency": [_row(row) for row in report.totals_by_currency],
        "currencies": report.currencies,
        "columns": {
            "dimensions": [_column(one) for one in report.dimensions],
            "metrics": [_column(one) for one in report.metrics],
        },
        "labels": {name: {str(key): label for key, label in names.items()} for name, names in report.labels.items()},
        "period": _period(query.period),
        "previous_period": _period(report.previous_period) if report.previous_period else None,
        "by": query.by,
        "clicks": query.clicks,
        "touch": query.touch,
        "as_of": report.freshness.as_of,
        "lag_s": report.freshness.lag_s,
        "notes": report.notes,
        "sources": report.plan,
    }


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"dimensions": row.dimensions, "metrics": row.metrics}
    if row.previous is not None:
        found |= {"previous": row.previous, "change": row.change}
    return found


def _column(column: Column) -> dict[str, str]:
    return {"name": column.name, "label": column.label, "kind": column.kind, "formula": column.formula}


def _period(period: Period) -> dict[str, Any]:
    zone = period.zone
    return {
        "from": period.starts_at.astimezone(zone),
        "to": period.ends_at.astimezone(zone),
        "timezone": period.timezone,
    }
