"""First touches and conversions spread over their touches, against the same rules applied to the raw rows by hand."""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from storage.postgres.connection import Connection
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.viewer import ADMIN

FROM, TO = datetime(2026, 10, 3, tzinfo=UTC), datetime(2026, 10, 29, tzinfo=UTC)
METRICS = ("gross_clicks", "conversions", "amount", "payout", "revenue")
NEARLY = Decimal("0.00001")
Sums = dict[tuple[Any, ...], dict[str, Decimal]]
Row = dict[str, Any]


class Past:
    """All rows, by hand."""

    def __init__(self, clicks: list[Row], views: list[Row], conversions: list[Row], changes: list[Row]) -> None:
        self.clicks = sorted(clicks, key=lambda row: row["click_id"])
        self.by_id = {row["click_id"]: row for row in (*clicks, *views)}
        self.click_ids = {row["click_id"] for row in clicks}
        self.views, self.conversions = views, {row["conversion_id"]: row for row in conversions}
        self.changes = changes

    @classmethod
    async def read(cls, conn: Connection) -> "Past":
        tables = ("clicks", "impressions", "conversions", "conversion_changes")
        return cls(*[[dict(row) for row in await conn.fetch(f"SELECT * FROM {table}")] for table in tables])

    def first(self, contact_id: str, touch: Row | None) -> Row | None:
        """T1."""
        if contact_id:
            for click in self.clicks:
                if click["contact_id"] == contact_id:
                    return click
        first_id = touch["first_click_id"] if touch else None
        return self.by_id[first_id] if first_id in self.click_ids else touch

    def family(self, conversion: Row) -> list[Row]:
        """T2, in order of time."""
        credited, at = self.by_id.get(conversion["click_id"]), conversion["converted_at"]
        cookie = credited["first_click_id"] if credited and not conversion["contact_id"] else None

        def belongs(click: Row) -> bool:
            if click["offer_id"] != conversion["offer_id"] or {"bot", "prefetch", "datacentre"} & set(click["flags"]):
                return False
            if not at - timedelta(days=30) <= click["clicked_at"] <= at:
                return False
            if conversion["contact_id"]:
                return bool(click["contact_id"] == conversion["contact_id"])
            return cookie is not None and cookie in (click["first_click_id"], click["click_id"])

        found = {click["click_id"]: click for click in self.clicks if belongs(click)}
        if credited:
            found[credited["click_id"]] = credited
        return [found[click_id] for click_id in sorted(found)]

    def booked(self, by: str) -> list[tuple[Row, dict[str, Any]]]:
        """Conversions with what each adds to the figures of the period."""
        if by == "conversion":
            return [
                (self.conversions[row["conversion_id"]], {name: row[f"{name}_delta"] for name in METRICS[1:]})
                for row in self.changes
                if FROM <= row["booked_hour"] < TO
            ]
        return [
            (row, {"conversions": 1, **{name: row[name] for name in METRICS[2:]}})
            for row in self.conversions.values()
            if FROM <= (row["touched_at"] or row["received_at"]) < TO and row["status"] == "approved"
        ]


def linear(touches: list[Row], at: datetime) -> list[float]:
    return [1 / len(touches)] * len(touches)


def time_decay(touches: list[Row], at: datetime) -> list[float]:
    shares = [0.5 ** ((at - row["clicked_at"]) / timedelta(days=7)) for row in touches]
    return [share / sum(shares) for share in shares]


def position(touches: list[Row], at: datetime) -> list[float]:
    if len(touches) < 3:
        return [1 / len(touches)] * len(touches)
    return [0.4, *[0.2 / (len(touches) - 2)] * (len(touches) - 2), 0.4]


async def ask(conn: Connection, dimensions: str, by: str, touch: str, *filters: tuple[str, str]) -> Report:
    parameters = [
        ("dimensions", f"{dimensions},currency"),
        ("metrics", ",".join(METRICS)),
        ("from", FROM.isoformat()),
        ("to", TO.isoformat()),
        ("by", by),
        ("touch", touch),
        *filters,
    ]
    return await run_report(conn, parse_query(parameters, ADMIN, TO), ADMIN, TO)


def differences(report: Report, counted: Sums) -> list[str]:
    """Where they differ by more than rounding."""
    shown = {tuple(row.dimensions.values()): row.metrics for row in report.rows}
    nothing: dict[str, Any] = dict.fromkeys(METRICS, Decimal(0))
    return [
        f"{key}: {name} is {left} instead of {right}"
        for key in sorted(shown.keys() | counted.keys())
        for name in METRICS
        if abs((left := shown.get(key, nothing)[name] or Decimal(0)) - (right := counted.get(key, nothing)[name]))
        > NEARLY
    ]


@pytest.mark.parametrize("by", ["conversion", "click"])
async def test_the_first_touch_is_the_contacts_else_the_cookies_else_the_click(month: Connection, by: str) -> None:
    """For clicks and conversions alike, wherever in time that touch is."""
    past = await Past.read(month)
    counted: Sums = defaultdict(lambda: dict.fromkeys(METRICS, Decimal(0)))
    for touch in (*past.clicks, *past.views):
        if FROM <= touch["clicked_at"] < TO:
            first = past.first(touch["contact_id"], touch) or touch
            sums = counted[first["utm_source"], first["aff_sub2"], touch["currency"]]
            sums["gross_clicks"] += touch["click_id"] in past.click_ids
            sums["payout"] += touch["payout"]
            sums["revenue"] += touch["revenue"]
    for conversion, added in past.booked(by):
        touched = past.first(conversion["contact_id"], past.by_id.get(conversion["click_id"]))
        sub = (touched["utm_source"], touched["aff_sub2"]) if touched else ("", "")
        for name, value in added.items():
            counted[*sub, conversion["currency"]][name] += value
    assert differences(await ask(month, "utm_source,aff_sub2", by, "first"), counted) == []


@pytest.mark.parametrize(
    ("model", "by"), [(linear, "conversion"), (time_decay, "click"), (position, "conversion"), (position, "click")]
)
async def test_a_conversion_is_spread_over_all_touches_by_weights_that_sum_to_one(
    month: Connection, by: str, model: Callable[[list[Row], datetime], list[float]]
) -> None:
    """Count and money alike; the totals are those of the last touch, to the last place."""
    past = await Past.read(month)
    counted: Sums = defaultdict(lambda: dict.fromkeys(METRICS, Decimal(0)))
    for touch in (*past.clicks, *past.views):
        if FROM <= touch["clicked_at"] < TO:
            sums = counted[touch["utm_campaign"], touch["aff_id"], touch["currency"]]
            sums["gross_clicks"] += touch["click_id"] in past.click_ids
            sums["payout"] += touch["payout"]
            sums["revenue"] += touch["revenue"]
    several = 0
    for conversion, added in past.booked(by):
        touches = past.family(conversion)
        several += len(touches) > 2
        weights = model(touches, conversion["converted_at"]) if touches else [1.0]
        places = [(row["utm_campaign"], row["aff_id"]) for row in touches] or [("", conversion["aff_id"])]
        for place, weight in zip(places, weights, strict=True):
            for name, value in added.items():
                counted[*place, conversion["currency"]][name] += value * Decimal(weight)
    assert several > 20
    report = await ask(month, "utm_campaign,partner", by, model.__name__)
    assert differences(report, counted) == []
    last = await ask(month, "utm_campaign,partner", by, "last")
    assert report.totals.metrics == last.totals.metrics
    assert isinstance(report.totals.metrics["conversions"], int), (
        "a weight too much or too little would leave a fraction"
    )
    assert [row.metrics for row in report.totals_by_currency] == [row.metrics for row in last.totals_by_currency]


async def test_a_filter_on_a_touch_takes_the_share_of_that_touch(month: Connection) -> None:
    """The figures of one campaign are those of its row."""
    whole = await ask(month, "utm_campaign", "conversion", "position")
    rows = [row for row in whole.rows if row.dimensions["utm_campaign"] == "utm_campaign-a"]
    filtered = await ask(month, "utm_campaign", "conversion", "position", ("utm_campaign", "utm_campaign-a"))
    assert [(row.dimensions, row.metrics) for row in filtered.rows] == [(row.dimensions, row.metrics) for row in rows]
