"""Figures beside those of the time before: which rows belong together, and by how much they changed. Pure."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.periods import Period

Figures = dict[str, Decimal | int | None]
_HUNDRED, _PLACES = Decimal(100), Decimal("0.01")


def bucket_of(dimensions: Mapping[str, Any], period: Period) -> tuple[Any, ...]:
    """What a row has in common with that of the other period: its values, and in place of a time which one it is."""
    return tuple(
        _ordinal(DIMENSIONS[name].kind, value, period) if name in DIMENSIONS and DIMENSIONS[name].is_time else value
        for name, value in dimensions.items()
    )


def changes_in_percent(after: Figures, before: Figures) -> Figures:
    """By how much each figure changed, to 2 places; None where it was nothing, or there is none."""
    return {name: _change(value, before.get(name)) for name, value in after.items()}


def _change(after: Decimal | int | None, before: Decimal | int | None) -> Decimal | None:
    if after is None or not before:
        return None
    return ((Decimal(after) - before) * _HUNDRED / abs(Decimal(before))).quantize(_PLACES)


def _ordinal(kind: str, value: date | datetime, period: Period) -> int:
    """Which hour, day, week or month of its period it is, by the clocks on the wall."""
    first = period.starts_at.astimezone(period.zone)
    if isinstance(value, datetime):
        begins = first.replace(tzinfo=None, minute=0, second=0, microsecond=0)
        return (value.astimezone(period.zone).replace(tzinfo=None) - begins) // timedelta(hours=1)
    day = first.date()
    if kind == "month":
        return (value.year - day.year) * 12 + value.month - day.month
    if kind == "week":
        return (value - (day - timedelta(days=day.weekday()))).days // 7
    return (value - day).days
