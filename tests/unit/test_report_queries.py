"""What reports may be asked for: parameters read, periods, the table of metrics."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.metrics import METRICS, describe, header
from storage.postgres.reports.page import dimensions_table, metrics_table
from storage.postgres.reports.periods import Period, read_moment
from storage.postgres.reports.query import MAX_ROWS, NotYours, QueryRefused, ReportQuery, parse_query
from storage.postgres.reports.viewer import ADMIN, Viewer

NOW = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
PARTNER, ADVERTISER = Viewer("partner", aff_id=2), Viewer("advertiser", advertiser_id=1)


def parse(text: str, viewer: Viewer = ADMIN, timezone: str = "UTC") -> ReportQuery:
    """A query from `a=1&b=2`."""
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in text.split("&") if part)]
    return parse_query(pairs, viewer, NOW, timezone)


def faults(text: str, viewer: Viewer = ADMIN) -> dict[str, str]:
    """What is refused, by parameter."""
    with pytest.raises(QueryRefused) as refused:
        parse(text, viewer)
    return {fault.field: fault.text for fault in refused.value.faults}


def test_without_parameters_the_last_seven_days_of_everything_are_asked_for() -> None:
    """In the installation's time zone, today included, the network's figures."""
    query = parse("", timezone="Europe/Berlin")
    assert query.period == Period(
        datetime(2026, 11, 15, 23, tzinfo=UTC), datetime(2026, 11, 22, 23, tzinfo=UTC), "Europe/Berlin"
    )
    assert (query.dimensions, query.by, query.clicks, query.touch) == ((), "conversion", "valid", "last")
    assert "profit" in query.metrics


def test_all_faults_are_named_together_each_with_its_parameter() -> None:
    """One answer says everything that is wrong."""
    found = faults(
        "dimensions=offer,colour&metrics=clicks,epic&from=yesterday&to=2026-02-30&timezone=Mars&by=day&clicks=all&touch=third"
        "&compare=never&sort=-revenue&limit=0&cursor=abc&offer=x&ofer=1&date=2026-13-01"
    )
    assert set(found) == {
        "dimensions", "metrics", "from", "to", "timezone", "by", "clicks", "touch", "compare", "sort", "limit", "cursor",
        "offer", "ofer", "date",
    }  # fmt: skip
    assert "'colour'" in found["dimensions"]
    assert "'epic'" in found["metrics"]


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("from=2026-11-02&to=2026-11-01", "to", "before from"),
        ("from=2026-11-01T12:00:00&to=2026-11-03", "from", "time with offset"),
        ("from=1999-12-31", "from", "no date"),
        ("to=9999-12-31", "to", "no date"),
        ("from=2026-11-01&from=2026-11-02", "from", "more than once"),
        (f"limit={MAX_ROWS + 1}", "limit", f"1 to {MAX_ROWS}"),
        ("limit=-1", "limit", "within"),
        ("limit=10%20", "limit", "within"),
        ("offer=2147483648", "offer", "no id"),
        ("offer=17;DROP TABLE clicks", "offer", "no id"),
        ("extra.=1", "extra.", "no such"),
        ("month=2026-1", "month", "2026-10"),
        ("hour=2026-10-01", "hour", "time with offset"),
        ("timezone=../etc/passwd", "timezone", "no time zone"),
        ("source=a\0b", "source", "no text"),
        ("source=\udcff", "source", "no text"),
        ("dimensions=" + ",".join(DIMENSIONS), "dimensions", "too many"),
        ("&".join(f"offer={n}" for n in range(1001)), "offer", "too many"),
        ("metrics=clicks; DELETE FROM clicks", "metrics", "no metric"),
        ("sort=offer", "sort", "no dimension and no metric of this report"),
        ("cursor=////", "cursor", "none that this report gave"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_parameter(text: str, field: str, said: str) -> None:
    """Wrong dates, unknown names, SQL in place of values: an error, nothing looked up."""
    assert said in faults(text)[field]


def test_filters_are_read_as_their_dimension_says() -> None:
    """Several values, each once; an empty one is none; whatever stands in a text is text."""
    query = parse(
        "offer=17&offer=18&offer=17&partner=&source=&source=x' OR '1'='1&extra.colour=red&month=2026-10&date=2026-10-31"
        "&week=2026-10-31"
    )
    assert query.filters == {
        "offer": (17, 18),
        "partner": (0,),
        "source": ("", "x' OR '1'='1"),
        "extra.colour": ("red",),
        "month": (date(2026, 10, 1),),
        "date": (date(2026, 10, 31),),
        "week": (date(2026, 10, 26),),
    }


def test_dates_include_both_ends_and_times_only_the_first() -> None:
    """Days are the zone's; a `+` that nobody encoded is read, too."""
    days = parse("from=2026-10-25&to=2026-10-25&timezone=Europe/Berlin").period
    assert days.ends_at - days.starts_at == timedelta(hours=25)
    times = parse("from=2026-10-25T00:00:00 02:00&to=2026-10-25T12:00:00Z").period
    assert (times.starts_at.hour, times.ends_at.hour) == (22, 12)
    assert parse("from=2030-01-01").period.ends_at == datetime(2030, 1, 2, tzinfo=UTC)
    assert parse("to=2020-01-07").period.starts_at == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["revenue", "profit", "gross_profit", "margin", "cost", "roi", "roas", "rpm", "rpc", "rpa", "sends"]
)
@pytest.mark.parametrize(
    "parameter", ["metrics={}", "metrics=clicks&sort=-{}", "metrics=clicks,{}&compare=previous", "{}=1"]
)
def test_a_partner_gets_no_revenue_by_any_parameter(name: str, parameter: str) -> None:
    """Asked for, sorted by, compared, filtered: for a partner there is no such thing."""
    assert faults(parameter.format(name), PARTNER)


@pytest.mark.parametrize(
    "name", ["payout", "profit", "gross_profit", "margin", "cost", "roi", "roas", "cpm", "cpc", "cpa", "sends"]
)
def test_an_advertiser_gets_no_payout_by_any_parameter(name: str) -> None:
    """Nor what it could be worked out from."""
    assert faults(f"metrics={name}", ADVERTISER)
    assert faults(f"metrics=clicks&sort={name}", ADVERTISER)


def test_figures_hidden_from_somebody_cannot_be_worked_out_from_those_shown() -> None:
    """No metric of a partner is made of revenue or cost, none of an advertiser of payout or cost."""
    for viewer, hidden in ((PARTNER, {"revenue", "cost", "sends"}), (ADVERTISER, {"payout", "cost", "sends"})):
        for metric in METRICS.values():
            if viewer.scope in metric.scopes:
                parts = {
                    viewer.earnings if one == "earnings" else one for one in (*metric.plus, *metric.minus, *metric.over)
                }
                assert not parts & hidden, (viewer.scope, metric.name)
    assert "revenue" not in parse("", PARTNER).metrics
    assert "payout" not in parse("", ADVERTISER).metrics


def test_another_partners_rows_are_not_there() -> None:
    """A filter on somebody else is as one on nobody; on itself it is allowed."""
    for text, viewer in (("partner=3", PARTNER), ("advertiser=2", ADVERTISER)):
        with pytest.raises(NotYours):
            parse(text, viewer)
    assert parse("partner=2&partner=3", PARTNER).filters["partner"] == (2, 3), (
        "of both, only its own are let through later"
    )
    assert "advertiser" in faults("advertiser=1", PARTNER)
    assert "dimensions" in faults("dimensions=advertiser", PARTNER)


@pytest.mark.parametrize("touch", ["first", "linear", "time_decay", "position"])
def test_touches_that_may_be_others_are_only_for_the_network(touch: str) -> None:
    """A contact's first click may be another partner's."""
    assert "touch" in faults(f"touch={touch}", PARTNER)
    assert "touch" in faults(f"touch={touch}", ADVERTISER)


PREVIOUS: list[tuple[str, str, str, str, str]] = [
    ("2026-10-12", "2026-10-18", "UTC", "2026-10-05T00:00:00+00:00", "2026-10-12T00:00:00+00:00"),
    # Over the change of the clocks: seven days of the wall, one of them an hour longer.
    ("2026-10-24", "2026-10-30", "Europe/Berlin", "2026-10-16T22:00:00+00:00", "2026-10-23T22:00:00+00:00"),
    ("2026-10-26", "2026-11-01", "Europe/Berlin", "2026-10-18T22:00:00+00:00", "2026-10-25T23:00:00+00:00"),
    # Not over: as much of the one before, to the minute.
    ("2026-11-22", "2026-11-22", "UTC", "2026-11-21T00:00:00+00:00", "2026-11-21T13:30:00+00:00"),
    ("2026-11-16", "2026-11-22", "Asia/Kolkata", "2026-11-08T18:30:00+00:00", "2026-11-15T13:30:00+00:00"),
    # Not begun: nothing.
    ("2026-12-01", "2026-12-02", "UTC", "2026-11-29T00:00:00+00:00", "2026-11-29T00:00:00+00:00"),
]


@pytest.mark.parametrize(("from_", "to", "zone", "starts", "ends"), PREVIOUS)
def test_the_period_before_takes_the_same_elapsed_time(from_: str, to: str, zone: str, starts: str, ends: str) -> None:
    """By the days of the zone; of a period that is not over, no more than has passed."""
    found = parse(f"from={from_}&to={to}&timezone={zone}").period.previous(NOW)
    assert (found.starts_at.isoformat(), found.ends_at.isoformat()) == (starts, ends)


def test_only_zones_with_whole_hours_fit_rows_by_hour() -> None:
    """Half an hour off at any time of the period is enough."""
    for name, is_whole in (("Europe/Berlin", True), ("Asia/Kolkata", False), ("Australia/Lord_Howe", False)):
        zone = ZoneInfo(name)
        starts_at, ends_at = (read_moment(day, zone, is_end=False) for day in ("2026-03-01", "2026-05-01"))
        assert starts_at
        assert ends_at
        assert Period(starts_at, ends_at, name).has_whole_hour_offsets is is_whole


def test_all_click_ids_of_a_period_lie_in_its_range_of_ids() -> None:
    """From the lowest of its first millisecond to the highest of its last; not those of a second more."""
    low, high = parse("from=2026-10-15&to=2026-10-15").period.id_range
    first_ms = round(datetime(2026, 10, 15, tzinfo=UTC).timestamp() * 1000)
    last_ms = first_ms + 86_400_000 - 1
    assert low.int <= first_ms << 80
    assert (last_ms + 1 << 80) - 1 < high.int
    assert (first_ms - 1000 << 80) < low.int
    assert high.int < last_ms + 1000 << 80


def test_headers_name_the_denominator_and_whose_earnings() -> None:
    """What one looks at is said where one looks."""
    assert header(METRICS["cr"], "unique") == "CR (per unique click)"
    assert header(METRICS["clicks"], "valid") == "Clicks (valid)"
    assert describe(METRICS["epc"], PARTNER, "gross") == "payout / gross clicks"
    assert describe(METRICS["epc"], ADMIN, "valid") == "revenue / valid clicks"


def test_every_formula_is_the_text_of_what_is_computed() -> None:
    """The text names each sum that the figure is made of, in order."""
    for metric in METRICS.values():
        if metric.is_ratio:
            top = "profit" if metric.minus else metric.plus[0]
            bottom = " + ".join(metric.over)
            bottom = f"({bottom})" if len(metric.over) > 1 else bottom
            times = "" if metric.scale == 1 else f" x {metric.scale}"
            assert metric.formula == f"{top} / {bottom}{times}", metric.name


def test_the_page_about_reports_has_the_tables_of_the_code() -> None:
    """Each dimension, and each metric with its formula and who sees it."""
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text("utf-8")
    assert dimensions_table() in page
    assert metrics_table() in page
