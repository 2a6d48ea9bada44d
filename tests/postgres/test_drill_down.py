"""From a report's figure to the rows behind it: paging through them adds up to the figure, whatever is asked."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from storage.postgres.connection import Connection, connect
from storage.postgres.listing.conversions import list_conversions
from storage.postgres.listing.drill import LISTABLE, Kind, parse_drill
from storage.postgres.listing.touches import list_touches
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.query import NotYours, QueryRefused, parse_query
from storage.postgres.reports.report import run_report
from storage.postgres.reports.viewer import ADMIN, Viewer
from tests.postgres.people import Row, Tables

Parameters = list[tuple[str, str]]
DIMENSIONS = (
    "date", "hour", "week", "month", "advertiser", "offer", "partner", "utm_source", "utm_campaign", "contact", "list",
    "aff_sub1", "status", "currency", "device", "country", "extra.list", "goal", "browser",
)  # fmt: skip
@pytest.fixture
async def conn(town: tuple[str, Tables]) -> AsyncIterator[Connection]:
    """A connection to it."""
    conn = await connect(town[0])
    yield conn
    await conn.close()


async def walk(conn: Connection, kind: Kind, parameters: Parameters, viewer: Viewer, limit: int) -> list[Row]:
    """All pages of the rows that the parameters ask for."""
    rows: list[Row] = []
    cursor = ""
    while True:
        asked = [*parameters, ("limit", str(limit)), ("cursor", cursor)]
        drill = parse_drill(asked, viewer, datetime.now(UTC), "UTC", kind)
        page = await (list_conversions(conn, drill) if kind == "conversions" else list_touches(conn, kind, drill))
        rows += page.rows
        assert len(page.rows) <= limit
        if page.next_cursor is None:
            return rows
        cursor = page.next_cursor


def random_report(random: Random, viewer: Viewer) -> Parameters:
    """A report of one to three dimensions and perhaps a filter."""
    hidden = {"list", "extra.list", "advertiser" if viewer.scope == "partner" else ""} if viewer != ADMIN else set()
    allowed = [name for name in DIMENSIONS if name not in hidden]
    names = random.sample(allowed, random.randrange(1, 4))
    since = (datetime.now(UTC) - timedelta(days=random.randrange(5, 60))).date()
    parameters = [
        ("dimensions", ",".join(names)),
        ("from", str(since)),
        ("to", str(since + timedelta(days=random.randrange(1, 60)))),
        ("timezone", random.choice(("UTC", "Europe/Berlin", "Asia/Kolkata"))),
        ("by", random.choice(("conversion", "click"))),
        ("clicks", random.choice(("valid", "gross", "unique"))),
        ("limit", "1000"),
    ]
    if viewer == ADMIN:
        parameters.append(("touch", random.choice(("last", "last", "first", "linear", "position"))))
    if random.random() < 0.5:
        parameters += random.choice(([("offer", "17"), ("offer", "19")], [("utm_source", "")], [("partner", "2")]))
    return parameters


def as_filters(dimensions: dict[str, Any]) -> Parameters:
    """A report's row as the filters that mean it."""
    return [
        (name, value.isoformat() if isinstance(value, datetime) else str(value)) for name, value in dimensions.items()
    ]


def behind(parameters: Parameters, dimensions: dict[str, Any], metric: str) -> Parameters:
    """The parameters of the rows behind a figure of a report's row: the row's own values instead of wider filters."""
    kept = [(name, value) for name, value in parameters if name != "limit" and name not in dimensions]
    return [*kept, *as_filters(dimensions), ("metric", metric)]


@pytest.mark.parametrize(
    ("viewer", "rounds"),
    [(ADMIN, 16), (Viewer("partner", aff_id=2), 6), (Viewer("advertiser", advertiser_id=1), 6)],
    ids=["network", "partner", "advertiser"],
)
async def test_the_rows_behind_a_figure_add_up_to_it(conn: Connection, viewer: Viewer, rounds: int) -> None:
    """Any count of any report: as many rows as it says, or, of conversions, rows whose parts in it add up to it (reports round to 6 places)."""
    random = Random(31 + len(viewer.scope))
    counts = [
        (kind, name)
        for kind, names in LISTABLE.items()
        for name in names
        if METRICS[name].unit == "count" and viewer.scope in METRICS[name].scopes
    ]
    checked, nonzero = 0, 0
    for _ in range(rounds):
        parameters = random_report(random, viewer)
        asked = [*parameters, ("metrics", ",".join(name for _, name in counts))]
        report = await run_report(conn, parse_query(asked, viewer, datetime.now(UTC)), viewer, datetime.now(UTC))
        for row in random.sample(report.rows, min(2, len(report.rows))):
            for kind, metric in counts:
                figure = row.metrics[metric]
                found = await walk(conn, kind, behind(parameters, row.dimensions, metric), viewer, random.choice((5, 500)))
                sums = sum(one["adds"][metric] for one in found) if kind == "conversions" else len(found)
                assert round(sums, 6) == figure, f"{parameters} {row.dimensions} {metric}"
                checked, nonzero = checked + 1, nonzero + bool(figure)
    assert checked > 10 * rounds
    assert nonzero > 2 * rounds


async def test_money_is_reached_through_the_rows_that_earned_it(conn: Connection) -> None:
    """What conversions add, and what clicks and views earned, together are the report's figure."""
    for by in ("conversion", "click"):
        parameters = [("from", str((datetime.now(UTC) - timedelta(days=70)).date())), ("by", by), ("dimensions", "currency")]
        asked = [*parameters, ("metrics", "amount,payout,revenue")]
        report = await run_report(conn, parse_query(asked, ADMIN, datetime.now(UTC)), ADMIN, datetime.now(UTC))
        assert len(report.rows) == 2
        for row in report.rows:
            for metric in ("amount", "payout", "revenue"):
                total = 0
                for kind in ("conversions", "clicks", "impressions"):
                    if metric in LISTABLE[kind]:
                        found = await walk(conn, kind, behind(parameters, row.dimensions, metric), ADMIN, 200)
                        assert found or kind != "conversions"
                        total += sum(one["adds"][metric] if kind == "conversions" else one[metric] for one in found)
                assert total == row.metrics[metric]


async def test_rows_come_newest_first_and_each_once(conn: Connection, town: tuple[str, Tables]) -> None:
    """In pages of any size; without a metric all that the period and the filters let through."""
    everything = [("from", str((datetime.now(UTC) - timedelta(days=90)).date()))]
    tables = town[1]
    for limit in (7, 1000):
        for kind, rows, key in (
            ("clicks", tables.clicks, "click_id"),
            ("impressions", tables.impressions, "click_id"),
            ("conversions", tables.conversions, "conversion_id"),
        ):
            found = await walk(conn, kind, everything, ADMIN, limit)  # type: ignore[arg-type]
            at = "received_at" if kind == "conversions" else "clicked_at"
            expected = sorted(rows, key=lambda row: (row[at], row[key]), reverse=True)
            assert [row[key] for row in found] == [row[key] for row in expected]


async def test_a_deleted_contacts_rows_are_listed_without_its_name(conn: Connection, town: tuple[str, Tables]) -> None:
    """They count as before; who it was is not said."""
    tables = town[1]
    deleted = {row["contact_id"] for row in tables.contacts if row["deleted_at"]}
    parameters = [("from", str((datetime.now(UTC) - timedelta(days=90)).date()))]
    kinds: tuple[Kind, ...] = ("clicks", "conversions")
    for kind in kinds:
        found = await walk(conn, kind, parameters, ADMIN, 1000)
        assert len(found) == len(tables.clicks if kind == "clicks" else tables.conversions)
        assert deleted & {row["contact_id"] for row in (*tables.clicks, *tables.conversions)}
        assert not deleted & {row["contact_id"] for row in found}
        assert "" in {row["contact_id"] for row in found}


async def test_each_sees_its_own_rows_and_no_others_money(conn: Connection, town: tuple[str, Tables]) -> None:
    """A partner neither revenue nor address nor another's rows, an advertiser no payout; asking for them changes nothing."""
    tables = town[1]
    ever = ("from", str((datetime.now(UTC) - timedelta(days=90)).date()))
    partner, advertiser = Viewer("partner", aff_id=2), Viewer("advertiser", advertiser_id=1)
    kinds: tuple[Kind, ...] = ("clicks", "conversions")
    for kind in kinds:
        mine = await walk(conn, kind, [ever], partner, 1000)
        stored = tables.clicks if kind == "clicks" else tables.conversions
        assert len(mine) == sum(row["aff_id"] == 2 for row in stored) > 0
        assert {"revenue", "cost", "ip", "visitor", "advertiser_id"}.isdisjoint(mine[0])
        assert "payout" in mine[0]
        with pytest.raises(NotYours):
            await walk(conn, kind, [ever, ("partner", "3")], partner, 1000)
        theirs = await walk(conn, kind, [ever], advertiser, 1000)
        assert {row["offer_id"] for row in theirs} == ({17, 18} if kind == "clicks" else {17})
        assert {"payout", "cost", "ip"}.isdisjoint(theirs[0])
        assert "revenue" in theirs[0]
    found = await walk(conn, "conversions", [ever, ("metric", "conversions")], partner, 1000)
    assert {frozenset(row["adds"]) for row in found} == {
        frozenset(("conversions", "pending", "rejected", "reversed", "amount", "payout"))
    }


@pytest.mark.parametrize(
    ("viewer", "kind", "parameters", "fields"),
    [
        (ADMIN, "clicks", [("metric", "cr"), ("limit", "0"), ("offer", "x"), ("colour", "red")],
         {"metric", "limit", "offer", "colour"}),
        (ADMIN, "clicks", [("metric", "conversions")], {"metric"}),
        (ADMIN, "conversions", [("metric", "clicks"), ("limit", "1001")], {"metric", "limit"}),
        (ADMIN, "conversions", [("limit", "1"), ("limit", "2")], {"limit"}),
        (ADMIN, "conversions", [("limit", "x" * 9999)], {"limit"}),
        (Viewer("partner", aff_id=2), "conversions", [("metric", "revenue")], {"metric"}),
        (Viewer("partner", aff_id=2), "clicks", [("metric", "cost"), ("advertiser", "1")], {"metric", "advertiser"}),
        (Viewer("advertiser", advertiser_id=1), "clicks", [("metric", "payout")], {"metric"}),
    ],
)  # fmt: skip
def test_every_fault_is_named(viewer: Viewer, kind: Kind, parameters: Parameters, fields: set[str]) -> None:
    """The report's parameters and the list's own, all together."""
    with pytest.raises(QueryRefused) as refused:
        parse_drill(parameters, viewer, datetime.now(UTC), "UTC", kind)
    assert {fault.field for fault in refused.value.faults} == fields


@pytest.mark.parametrize("cursor", ["nonsense", "W10", "WyJhIl0"])
@pytest.mark.parametrize("kind", ["clicks", "conversions"])
async def test_a_cursor_of_no_list_is_refused(conn: Connection, kind: Kind, cursor: str) -> None:
    """As a fault of the parameter."""
    with pytest.raises(QueryRefused) as refused:
        await walk(conn, kind, [("cursor", cursor)], ADMIN, 5)
    assert [fault.field for fault in refused.value.faults] == ["cursor"]
