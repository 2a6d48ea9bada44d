"""A report's URL: what a form sends becomes the API's parameters, and nothing else."""

from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from edge.admin.console.reports.chart import steps_of
from edge.admin.console.reports.form import dimension_groups, metric_groups
from edge.admin.console.reports.urls import PRESETS, canonical, days_of, preset_of, to_url, with_filters
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.periods import Period
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.viewer import ADMIN, Viewer

TODAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("sent", "url"),
    [
        ("dimensions=offer&dimensions=&dimensions=offer,date", "/reports?dimensions=offer,date"),
        ("by=conversion&clicks=valid&touch=last&compare=none&timezone=&sort=", "/reports"),
        ("period=last_month&from=2020-01-01&to=2020-02-02", "/reports?from=2026-02-01&to=2026-02-28"),
        ("period=nonsense&from=2026-01-01", "/reports?from=2026-01-01"),
        ("filter_by=source&filter_value=&offer=17", "/reports?offer=17&source="),
        ("filter_by=&filter_value=17", "/reports"),
        ("offer=17&by=click&offer=18&offer=17", "/reports?by=click&offer=17&offer=18"),
        ("filter_by=source&filter_value=a%26b%3D%C3%BC", "/reports?source=a%26b%3D%C3%BC"),
    ],
)
def test_a_forms_fields_become_the_apis_parameters(sent: str, url: str) -> None:
    """Presets become dates, lists one parameter; what is meant anyway is left out; empty filters mean none and stay."""
    pairs = canonical(parse_qsl(sent, keep_blank_values=True), TODAY)
    assert to_url(pairs) == url
    assert canonical(pairs, TODAY) == pairs


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_dates_are_known_again_and_may_be_asked_for(preset: str) -> None:
    """On the first of a month too, where some of them are the same."""
    pairs = canonical([("period", preset)], date(2026, 3, 31))
    assert preset_of(pairs, date(2026, 3, 31)) == preset
    first, last = days_of(preset, TODAY)
    query = parse_query([("from", str(first)), ("to", str(last))], ADMIN, datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert query.period.first_day == first


def test_a_rows_value_takes_the_place_of_the_filter_it_came_through() -> None:
    """From several offers to the one that was clicked; the page of the list before is forgotten."""
    pairs = [("offer", "17"), ("offer", "18"), ("cursor", "x"), ("partner", "2")]
    assert with_filters(pairs, [("offer", "18")]) == [("partner", "2"), ("offer", "18")]


def test_everything_that_a_report_knows_can_be_picked() -> None:
    """No dimension and no metric is missing in the form; a partner is offered none that it may not see."""
    assert {one.value for group in dimension_groups(ADMIN) for one in group.choices} == set(DIMENSIONS)
    assert {one.value for group in metric_groups(ADMIN, "valid") for one in group.choices} == set(METRICS)
    partner = Viewer("partner", aff_id=2)
    offered = {one.value for group in metric_groups(partner, "valid") for one in group.choices}
    assert offered == {name for name, one in METRICS.items() if "partner" in one.scopes}
    assert "advertiser" not in {one.value for group in dimension_groups(partner) for one in group.choices}


def test_a_chart_has_each_hour_once_where_clocks_change() -> None:
    """25 hours on the day that repeats one, weeks from their Monday, months from their first; none that has not begun."""
    autumn = Period(datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC), "Europe/Berlin")
    later = datetime(2027, 1, 1, tzinfo=UTC)
    assert len(list(steps_of("hour", autumn, later))) == 25
    assert list(steps_of("date", autumn, later)) == [date(2026, 10, 25)]
    assert list(steps_of("week", autumn, later)) == [date(2026, 10, 19)]
    quarter = Period(datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert list(steps_of("month", quarter, later)) == [date(2026, month, 1) for month in (1, 2, 3)]
    assert list(steps_of("date", quarter, datetime(2026, 1, 16, 5, tzinfo=UTC))) == [date(2026, 1, 15), date(2026, 1, 16)]


def test_a_charts_hours_are_those_of_its_zone() -> None:
    """Half past in UTC where the zone is half an hour off: the report's rows stand there, and 24 of them are a day."""
    day = Period(datetime(2026, 11, 20, 18, 30, tzinfo=UTC), datetime(2026, 11, 21, 18, 30, tzinfo=UTC), "Asia/Kolkata")
    hours = list(steps_of("hour", day, datetime(2027, 1, 1, tzinfo=UTC)))
    assert [f"{hour:%H:%M}" for hour in hours] == [f"{hour:02}:00" for hour in range(24)]
    # Clocks there change by half an hour; an hour begins where PostgreSQL's date_trunc puts each moment of it.
    night = Period(datetime(2026, 4, 4, 13, tzinfo=UTC), datetime(2026, 4, 4, 18, tzinfo=UTC), "Australia/Lord_Howe")
    moments = [(night.starts_at + timedelta(minutes=minutes)).astimezone(night.zone) for minutes in range(0, 300, 30)]
    begins = {(moment.astimezone(UTC) - timedelta(minutes=moment.minute)) for moment in moments}
    steps = steps_of("hour", night, datetime(2027, 1, 1, tzinfo=UTC))
    assert [step.astimezone(UTC) for step in steps if isinstance(step, datetime)] == sorted(begins)
