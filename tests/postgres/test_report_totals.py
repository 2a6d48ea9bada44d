"""A report over a month equals SQL written otherwise over the raw rows, for every metric, whatever is asked."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from storage.postgres.connection import Connection
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Report, run_report
from storage.postgres.reports.viewer import ADMIN, Viewer
from tests.postgres.report_month import ZONES
from tests.postgres.report_recount import (
    COUNTED,
    IDS,
    MONEY,
    TEXTS,
    TIMES,
    Asked,
    Sums,
    are_equal,
    figures,
    recount,
    without_money,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DIMENSIONS = (*TIMES, *IDS, *TEXTS)


class Asker:
    """Asks at random."""

    def __init__(self, chance: random.Random, values: dict[str, list[str]]) -> None:
        self.chance = chance
        self.values = values

    def ask(self) -> Asked:
        chance = self.chance
        zone = chance.choice(ZONES)
        dimensions = tuple(chance.sample(DIMENSIONS, chance.choice((0, 1, 1, 2, 3))))
        few = ("offer", "partner", "currency", "country", "list", "advertiser", "creative")
        if chance.random() < 0.3:
            dimensions = tuple(chance.sample((*TIMES[:3], *few), 2))
        names = chance.sample((*few, *TEXTS, *IDS), chance.choice((0, 0, 1, 1, 2)))
        filters = {
            name: tuple(sorted(chance.sample(self.values[name], min(len(self.values[name]), chance.choice((1, 2, 3))))))
            for name in dict.fromkeys(names)
        }
        starts_at, ends_at = self._period(zone)
        by, clicks = chance.choice(("conversion", "click")), chance.choice(("valid", "gross", "unique"))
        return Asked(dimensions, filters, starts_at, ends_at, zone, by, clicks)

    def _period(self, zone: str) -> tuple[datetime, datetime]:
        chance = self.chance
        first = date(2026, 10, 1) + timedelta(days=chance.randrange(0, 25))
        days = chance.choice((1, 7, 31)) if first.day < 3 else chance.choice((1, 3, 7))
        if chance.random() < 0.15:
            starts_at = datetime(
                first.year, first.month, first.day, chance.randrange(24), chance.choice((0, 30, 17)), tzinfo=UTC
            )
            return starts_at, starts_at + timedelta(hours=chance.choice((1, 30, 100)))
        local = (
            datetime(one.year, one.month, one.day, tzinfo=ZoneInfo(zone))
            for one in (first, first + timedelta(days=days))
        )
        starts_at, ends_at = (one.astimezone(UTC) for one in local)
        return starts_at, ends_at


def parameters(asked: Asked, metrics: list[str]) -> list[tuple[str, str]]:
    """The report as somebody would ask for it."""
    return [
        ("dimensions", ",".join(asked.dimensions)),
        ("metrics", ",".join(metrics)),
        ("from", asked.starts_at.isoformat()),
        ("to", asked.ends_at.isoformat()),
        ("timezone", asked.zone),
        ("by", asked.by),
        ("clicks", asked.clicks),
        ("limit", "100000"),
        *((name, "" if value in ("", "0") else value) for name, values in asked.filters.items() for value in values),
    ]


def key_of(asked: Asked, dimensions: dict[str, Any]) -> tuple[str, ...]:
    """A row's dimensions as the recount writes them."""

    def text(value: Any) -> str:
        if isinstance(value, datetime):
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")
        return value.isoformat() if isinstance(value, date) else str(value)

    return tuple(text(dimensions[name]) for name in asked.dimensions)


async def faults(conn: Connection, asked: Asked, viewer: Viewer = ADMIN) -> list[str]:
    """What a report says otherwise than the recount."""
    metrics = [name for name, metric in METRICS.items() if viewer.scope in metric.scopes]
    report = await run_report(conn, parse_query(parameters(asked, metrics), viewer, NOW), viewer, NOW)
    owned = {name: (str(value),) for name, value in viewer.own_rows.items()}
    counted = await recount(conn, asked._replace(filters={**asked.filters, **owned}))
    seen = [name for name in MONEY if name in metrics]
    every = [*counted.whole, *({"currency": key[-1], **sums} for key, sums in counted.rows.items())]
    currencies = {sums["currency"] for sums in every if any(sums[name] for name in seen)}
    is_split = len(currencies) > 1
    rows = merge(counted.rows, metrics, is_split=is_split)
    found = compare_rows(asked, report, rows, metrics, viewer, is_split=is_split)
    sums = merge({(key[-1],): value for key, value in counted.totals.items()}, metrics, is_split=False)
    total = figures(sums.get(("",), counted.nothing), metrics, asked.clicks, viewer.earnings)
    if is_split:
        total = without_money(total)
    found += differing("total", report.totals.metrics, total)
    for row in report.totals_by_currency:
        one = counted.totals[(row.dimensions["currency"],)]
        found += differing("currency", row.metrics, figures(one, metrics, asked.clicks, viewer.earnings))
    return found


def merge(counted: Sums, metrics: list[str], *, is_split: bool) -> Sums:
    """The sums over currencies, which stay apart where there are several; without rows of which nothing is left."""
    merged: Sums = {}
    for key, sums in counted.items():
        place = key if is_split else (*key[:-1], "")
        old = merged.get(place, dict.fromkeys(COUNTED, 0))
        merged[place] = {name: None if sums[name] is None else old[name] + sums[name] for name in COUNTED}
    seen = [name for name in COUNTED if name in metrics]
    return {key: sums for key, sums in merged.items() if any(sums[name] for name in seen)}


def compare_rows(
    asked: Asked, report: Report, rows: dict[Any, Any], metrics: list[str], viewer: Viewer, *, is_split: bool
) -> list[str]:
    shown = {
        (*key_of(asked, row.dimensions), str(row.dimensions["currency"]) if is_split else ""): row
        for row in report.rows
    }
    if len(shown) != len(report.rows) or report.row_count != len(report.rows):
        return [f"{len(report.rows)} rows, {len(shown)} different ones, row_count {report.row_count}"]
    if shown.keys() != rows.keys():
        return [f"rows {sorted(shown.keys() ^ rows.keys())[:5]} are on one side only"]
    return [
        fault
        for key, row in shown.items()
        for fault in differing(key, row.metrics, figures(rows[key], metrics, asked.clicks, viewer.earnings))
    ]


def differing(where: Any, shown: dict[str, Any], counted: dict[str, Any]) -> list[str]:
    return [
        f"{where}: {name} is {shown[name]} instead of {value}"
        for name, value in counted.items()
        if not are_equal(shown[name], value)
    ]


async def known_values(conn: Connection) -> dict[str, list[str]]:
    """The values of each dimension, and one that never occurs."""
    values: dict[str, list[str]] = defaultdict(list)
    for name in (*IDS, *TEXTS):
        found = await conn.fetch(f'SELECT DISTINCT "{name}"::text FROM flat WHERE "{name}" IS NOT NULL ORDER BY 1')
        values[name] = [*(row[0] for row in found), "77" if name in IDS else "x' OR '1'='1"]
    return values


async def test_two_hundred_random_reports_equal_a_recount(month: Connection) -> None:
    """Every metric, any dimensions, filters, zones (with half hours, over a change of the clocks), either date, any clicks."""
    asker = Asker(random.Random(20263), await known_values(month))
    for number in range(200):
        asked = asker.ask()
        found = await faults(month, asked)
        assert found[:5] == [], (number, asked)


async def test_a_partner_and_an_advertiser_get_the_recount_of_their_own_rows(month: Connection) -> None:
    """Their filters, zones and dimensions at random: only their rows, and only figures that they may see."""
    asker = Asker(random.Random(7), await known_values(month))
    for viewer in (Viewer("partner", aff_id=2), Viewer("advertiser", advertiser_id=2)):
        # The click's extras are the partner's alone, the conversion's the advertiser's: no recount of both.
        hidden = {"partner", "advertiser", "list", *(name for name in DIMENSIONS if name.startswith("extra."))}
        for _ in range(15):
            asked = asker.ask()
            dimensions = tuple(name for name in asked.dimensions if name not in hidden)
            filters = {name: values for name, values in asked.filters.items() if name not in hidden}
            asked = asked._replace(dimensions=dimensions, filters=filters)
            assert (await faults(month, asked, viewer))[:5] == [], (viewer, asked)


async def test_a_report_of_todays_drained_rows_equals_the_recount(month: Connection) -> None:
    """What the real drain stored and people changed, in the hours of today."""
    now = datetime.now(UTC)
    today = Asked(
        ("offer", "aff_sub1"), {}, now - timedelta(days=1), now + timedelta(days=1), "UTC", "conversion", "valid"
    )
    for by in ("conversion", "click"):
        for dimensions in (("offer",), ("partner", "status"), ("aff_sub1", "goal"), ("extra.colour", "hour"), ()):
            assert await faults(month, today._replace(by=by, dimensions=dimensions)) == []


async def test_days_that_begin_between_hours_are_counted_from_the_rows(month: Connection) -> None:
    """Also where the period itself is of whole hours, so that rows by hour would seem to fit."""
    week = Asked(
        ("date", "offer"),
        {},
        datetime(2026, 10, 5, tzinfo=UTC),
        datetime(2026, 10, 12, tzinfo=UTC),
        "Asia/Kolkata",
        "conversion",
        "gross",
    )
    for dimensions in (("date", "offer"), ("hour",), ("week",)):
        assert await faults(month, week._replace(dimensions=dimensions)) == []
