"""Roll-ups: equal to a recount of the rows, whatever the batch; and what is stored of an address."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from storage.postgres.rollups import forget_rollups
from tests.postgres.drains import CATALOG, CHROME, GOOGLEBOT, Bench, Scribe, Station
from tests.recount import MEASURES, differences

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
OFFERS = """
[[offers]]
id = 40
advertiser_id = 1
name = "per click"
url = "https://x.example/"
payout_type = "cpc"
payout = "0.10"
revenue_type = "cpc"
revenue = "0.25"
[[offers]]
id = 41
advertiser_id = 2
name = "per thousand"
url = "https://x.example/"
payout_type = "cpm"
payout = "2.50"
revenue_type = "cpm"
revenue = "4"
currency = "EUR"
[[offers]]
id = 42
advertiser_id = 1
name = "by hand"
url = "https://x.example/"
approval = "manual"
payout = "5"
"""


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


touch_fields = st.fixed_dictionaries(
    {
        "offer_id": st.sampled_from([17, 40, 41, 42, 999]),
        "aff_id": st.sampled_from([2, 3, 99]),
        "landing_page_id": st.sampled_from([0, 1]),
        "user_agent": st.sampled_from([CHROME, IPHONE, GOOGLEBOT, ""]),
        "flags": st.sampled_from([[], ["prefetch"], ["duplicate"], ["datacentre", "duplicate"]]),
        "params": st.sampled_from([{}, {"cost": "0.07"}, {"cost": "nonsense"}]),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["click", "impression", "late click"]), touch_fields),
        st.tuples(st.just("convert"), st.tuples(st.integers(0, 5), st.sampled_from([0, 1]))),
        st.tuples(st.just("drain"), st.sampled_from([1, 3, 1000])),
    ),
    min_size=1,
    max_size=25,
)


async def play(
    bench: Bench, scribes: list[Scribe], script: list[tuple[str, Any]], station: Callable[[int], Station]
) -> None:
    """Events into two workers' journals in turn; conversions of recent clicks, some of which come only at the end."""
    clicks: list[bytes] = []
    late = []
    for number, (deed, detail) in enumerate(script):
        scribe = scribes[number % 2]
        if deed == "drain":
            await bench.drain(station(detail))
        elif deed == "convert":
            back, goal_id = detail
            if clicks:
                scribe.convert(clicks[-1 - back % len(clicks)], goal_id=goal_id, amount="3.5")
        elif deed == "impression":
            scribe.impression(**detail)
        else:
            fields = {name: value for name, value in detail.items() if name not in ("flags", "params")}
            session = scribe.session(**fields)
            clicks.append(session.click_id)
            if deed == "click":
                scribe.click(session, flags=detail["flags"], params=detail["params"])
            else:
                late.append((scribe, session))
    for scribe in scribes:
        scribe.beat(scribe.ids.floor(0) + 1)
    await bench.drain(station(1000))
    for scribe, session in late:
        scribe.click(session)
    await bench.drain(station(1000))


@given(script=steps)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_the_roll_ups_equal_a_recount_of_any_batch(embedded_bench: Bench, script: list[tuple[str, Any]]) -> None:
    """Bots, prefetch, duplicates, CPC, CPM, manual approval, clicks after their conversions: every key, every measure."""
    bench = embedded_bench
    if await bench.value("SELECT max(revision) FROM catalog_revisions") == 1:
        await bench.apply(CATALOG + OFFERS)
        bench.stations = {rows: bench.station(batch_rows=rows) for rows in (1, 3, 1000)}
    scribes = [bench.scribe(worker=worker, revision=2) for worker in (0, 1)]
    await play(bench, scribes, script, lambda rows: _fresh(bench.stations[rows]))
    for scribe in scribes:
        scribe.close()
    await bench.drain(_fresh(bench.stations[1000]))
    assert await bench.value("SELECT count(*) FROM conversions_waiting") == 0
    assert await differences(bench.conn) == []


def _fresh(station: Station) -> Station:
    """As if it had only just started; making one takes 0.3 s."""
    station.drain._feeds.forget_all()
    return station


@pytest.mark.parametrize("measure", MEASURES)
async def test_the_recount_finds_any_measure_that_is_wrong(embedded_bench: Bench, measure: str) -> None:
    """The check itself: one too many in one row is told, with measure and key."""
    bench = embedded_bench
    scribe = bench.scribe()
    scribe.convert(scribe.click())
    scribe.impression()
    await bench.drain()
    assert await differences(bench.conn) == []
    await forget_rollups(bench.conn)
    await bench.conn.execute(f"UPDATE stats_hourly SET {measure} = {measure} + 1 WHERE gross_clicks > 0")
    found = await differences(bench.conn)
    assert found
    assert all(measure in line and "offer_id 17" in line for line in found)


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("DELETE FROM clicks", "gross_clicks is 1"),
        ("DELETE FROM conversion_changes", "has no change"),
        ("DELETE FROM conversions", "not there"),
        ("UPDATE conversions SET payout = 1", "add up to payout 5"),
        ("UPDATE conversions SET status = 'pending'", "is pending"),
        ("UPDATE stats_hourly SET hour = hour - interval '1 hour'", "hour"),
    ],
)
async def test_the_recount_finds_rows_that_are_wrong(embedded_bench: Bench, deed: str, told: str) -> None:
    """The check itself: a row missing, changed, or booked in another hour."""
    bench = embedded_bench
    scribe = bench.scribe()
    scribe.convert(scribe.click())
    await bench.drain()
    await bench.conn.execute(deed)
    assert any(told in line for line in await differences(bench.conn))


async def test_clicks_earn_when_they_are_unique_and_impressions_by_the_thousand(bench: Bench) -> None:
    """CPC on unique clicks only, CPM on every valid impression; bots, prefetch, unknown and blocked partners earn nothing."""
    await bench.apply(CATALOG + OFFERS)
    scribe = bench.scribe(revision=2)
    scribe.click(offer_id=40)
    scribe.click(offer_id=40)
    scribe.click(offer_id=40, flags=["prefetch"])
    scribe.click(offer_id=40, user_agent=GOOGLEBOT)
    scribe.click(offer_id=40, ip="203.0.113.78", reason="unknown_partner", params={"cost": "0.03"})
    scribe.impression(offer_id=41)
    scribe.impression(offer_id=41, user_agent=GOOGLEBOT)
    scribe.impression(offer_id=40)
    await bench.drain()
    columns = "sum(impressions), sum(gross_clicks), sum(unique_clicks), sum(invalid_clicks)"
    assert await bench.rows(f"SELECT {columns} FROM stats_hourly") == [(3, 5, 2, 2)]
    money = await bench.rows(
        "SELECT currency, sum(payout), sum(revenue), sum(cost) FROM stats_hourly GROUP BY 1 ORDER BY 1"
    )
    assert money == [
        ("EUR", Decimal("0.0025"), Decimal("0.004"), 0),
        ("USD", Decimal("0.10"), Decimal("0.25"), Decimal("0.03")),
    ]
    assert await bench.value("SELECT count(*) FROM clicks WHERE payout > 0") == 1
    assert await differences(bench.conn) == []


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("full", ["203.0.113.77", "2001:db8:1:2::3"]),
        ("truncated", ["203.0.113.0", "2001:db8:1::"]),
        ("none", [None, None]),
    ],
)
async def test_addresses_are_stored_as_asked(bench: Bench, kept: str, expected: list[str | None]) -> None:
    """EDGE_IP_STORAGE, for clicks, impressions and conversions alike."""
    scribe = bench.scribe()
    for ip in ("203.0.113.77", "2001:db8:1:2::3"):
        scribe.convert(scribe.click(ip=ip), ip=ip)
        scribe.impression(ip=ip)
    await bench.drain(ip_storage=kept)
    for table, order in (("clicks", "click_id"), ("impressions", "click_id"), ("conversions", "conversion_id")):
        rows = await bench.rows(f"SELECT host(ip) FROM {table} ORDER BY {order}")
        assert [row[0] for row in rows] == expected, table


@pytest.mark.parametrize("kept", ["full", "none"])
async def test_places_are_found_whatever_is_stored_of_the_address(bench: Bench, tmp_path: Path, kept: str) -> None:
    """Country in row and roll-up, of the conversion too; an address that the database does not know: unknown."""
    database = tmp_path / "geo.mmdb"
    writer = MMDBWriter(4)
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"country": {"iso_code": "US"}})
    writer.to_db_file(str(database))
    scribe = bench.scribe()
    for ip in ("203.0.113.77", "198.51.100.1"):
        scribe.convert(scribe.click(ip=ip))
    await bench.drain(ip_storage=kept, geoip_db=str(database))
    assert await bench.rows("SELECT country FROM clicks ORDER BY click_id") == [("US",), ("",)]
    assert await bench.rows("SELECT country FROM conversions ORDER BY conversion_id") == [("US",), ("",)]
    assert await bench.rows(
        "SELECT country, sum(gross_clicks), sum(conversions) FROM stats_hourly GROUP BY 1 ORDER BY 1"
    ) == [
        ("", 1, 1),
        ("US", 1, 1),
    ]
    assert await differences(bench.conn) == []
