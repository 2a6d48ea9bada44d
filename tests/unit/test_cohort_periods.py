"""Which contacts cohorts are of where nobody says."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from storage.postgres.contact_query import DEFAULT_COHORT_DAYS, parse_cohorts


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
@pytest.mark.parametrize("month", range(1, 13))
def test_the_first_day_is_a_whole_one_though_clocks_changed_since(zone: str, month: int) -> None:
    """180 days of the zone until the end of today: no cohort lacks those who came in its first hour."""
    query = parse_cohorts([], datetime(2026, month, 22, 13, 30, tzinfo=UTC), zone)
    assert query.who.joined_since
    assert query.who.joined_until
    since, until = (at.astimezone(ZoneInfo(zone)) for at in (query.who.joined_since, query.who.joined_until))
    assert (f"{since:%H:%M}", f"{until:%H:%M}") == ("00:00", "00:00")
    assert until.date() - since.date() == timedelta(days=DEFAULT_COHORT_DAYS)
