"""Months in the network's time zone: where they begin, and which an instant lies in."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)


class MonthSpan(NamedTuple):
    """A month as instants, the end not included."""

    month: date
    starts_at: datetime
    ends_at: datetime


def parse_month(text: str) -> date | None:
    """The first day of `2026-10`; None if it is no month from the year 2000 on."""
    found = _MONTH.fullmatch(text)
    return date(int(found[1]), int(found[2]), 1) if found and 2000 <= int(found[1]) < 9999 else None


def month_of(when: datetime, zone: ZoneInfo) -> date:
    """The first day of the month that `when` lies in."""
    return when.astimezone(zone).date().replace(day=1)


def span_of(month: date, zone: ZoneInfo) -> MonthSpan:
    """When the month of that first day begins and ends, in UTC."""
    following = (month + timedelta(days=31)).replace(day=1)
    return MonthSpan(month, _midnight(month, zone), _midnight(following, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
