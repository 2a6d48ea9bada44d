"""Two months of contacts: imported and first seen, of two lists and currencies, through the real drain; what their rows
say is worked out here in plain Python, from whole tables.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from storage.postgres.connection import Connection
from storage.postgres.contacts import ContactRow, delete_contacts, upsert_contacts
from storage.postgres.rollups import forget_rollups
from tests.postgres.api import add_key
from tests.postgres.drains import CHROME, GOOGLEBOT, Bench, Scribe, now_ms, open_bench
from tests.recount import contact_differences, differences

DAY_MS = 86_400_000
PEOPLE = 50
ODD = "a/b ü+c@example.com?x=1&y"
OFFERS = """
[[advertisers]]
id = 3
name = "By hand"
[[offers]]
id = 18
advertiser_id = 1
name = "By the click"
url = "https://shop.example.com/?clickid={transaction_id}"
payout_type = "cpc"
payout = "0.10"
revenue_type = "cpc"
revenue = "0.25"
currency = "EUR"
[[offers]]
id = 19
advertiser_id = 3
name = "In euros, by hand"
url = "https://shop.example.com/?clickid={transaction_id}"
payout_type = "cpa_percentage"
payout_percent = "10"
revenue_type = "cpa_percentage"
revenue_percent = "20"
currency = "EUR"
click_window = "90d"
approval = "manual"
[[offers]]
id = 17
advertiser_id = 1
name = "Flat"
url = "https://shop.example.com/?clickid={transaction_id}"
payout = "5.00"
revenue = "7.50"
click_window = "90d"
"""
KEYS: dict[str, dict[str, int]] = {"admin": {}, "reports": {}, "partner": {"aff_id": 2}, "advertiser": {"advertiser_id": 1}}
# The drain books its decisions in the hour of the test: spread over the days before, so that periods differ.
_SPREAD = """
    CREATE TEMP TABLE moved AS SELECT change_id, booked_hour AS was, booked_hour
        - (('x' || substr(md5(change_id::text), 1, 4))::bit(16)::int % 700) * interval '1 hour' AS will FROM conversion_changes;
    INSERT INTO stats_hourly AS stats (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id,
        country, device_type, currency, conversions, pending, rejected, reversed, amount, payout, revenue)
    SELECT hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type,
        currency, sum(sign * conversions_delta), sum(sign * pending_delta), sum(sign * rejected_delta),
        sum(sign * ((status_after = 'reversed')::int - (status_before = 'reversed')::int)),
        sum(sign * amount_delta), sum(sign * payout_delta), sum(sign * revenue_delta)
    FROM conversion_changes JOIN conversions USING (conversion_id) JOIN moved USING (change_id)
    CROSS JOIN LATERAL (VALUES (was, -1), (will, 1)) AS sides (hour, sign)
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ON CONFLICT (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,
                 device_type, currency) DO UPDATE SET
        conversions = stats.conversions + excluded.conversions, pending = stats.pending + excluded.pending,
        rejected = stats.rejected + excluded.rejected, reversed = stats.reversed + excluded.reversed, amount = stats.amount + excluded.amount,
        payout = stats.payout + excluded.payout, revenue = stats.revenue + excluded.revenue;
    UPDATE conversion_changes SET booked_hour = will FROM moved WHERE moved.change_id = conversion_changes.change_id;
"""
Row = dict[str, Any]
_SOURCES = ("mail", "search", "social", "")


class Tables(NamedTuple):
    """All there is."""

    contacts: list[Row]
    clicks: list[Row]
    impressions: list[Row]
    conversions: list[Row]


async def fill(bench: Bench) -> None:
    """Fifty contacts of the last sixty days. A tenth of them are deleted in the end; some never did anything."""
    random = Random(11)
    revision = await bench.apply(OFFERS)
    scribes = [bench.scribe(worker=worker, revision=revision) for worker in range(3)]
    start_ms = now_ms() - 60 * DAY_MS
    await upsert_contacts(bench.conn, list(_imported(random, start_ms)))
    days = sorted(random.randrange(1, 59) for _ in range(14))
    times = sorted(start_ms + random.choice(days) * DAY_MS + random.randrange(DAY_MS) for _ in range(420))
    touched = [_touch(random, random.choice(scribes[:2]), ms) for ms in times]
    await bench.drain()  # none is called unknown first: what such a one was booked under, `_SPREAD` does not move
    converted = [(min(ms + random.randrange(20 * DAY_MS), now_ms()), click) for ms, click in touched if click]
    for ms, click in sorted(converted):
        scribes[2].convert(click, ms=ms, amount=f"{random.randrange(1, 100)}.50")
    await bench.drain()
    await _change_some(bench)
    await delete_contacts(bench.conn, [f"p{n}" for n in range(0, PEOPLE, 10)], datetime.now(UTC))


def _imported(random: Random, start_ms: int) -> Iterator[ContactRow]:
    for n in range(0, PEOPLE + 6, 2):
        at = datetime.fromtimestamp((start_ms + random.randrange(50 * DAY_MS)) // 1000, UTC)
        extras = {"sends": n} if n % 3 == 0 else {}
        yield ContactRow(f"p{n}", random.choice(("news", "vip", "")), at if n % 7 else None, extras=extras)


def _touch(random: Random, scribe: Scribe, ms: int) -> tuple[int, bytes]:
    """A click or a view of somebody, at that time; its id if something is to come of it."""
    params = {"utm_source": random.choice(_SOURCES), "utm_campaign": random.choice(("spring", "")), "aff_sub1": "a"}
    if random.random() < 0.3:
        params["list"] = random.choice(("news", "cold"))
    touch = scribe.impression if random.random() < 0.2 else scribe.click
    offer_id = random.choice((17, 17, 18, 19))
    made = touch(
        ms=ms,
        offer_id=offer_id,
        aff_id=random.choice((2, 3)),
        contact_id=f"p{min(random.randrange(PEOPLE), random.randrange(PEOPLE))}" if random.random() < 0.9 else "",
        params={name: value for name, value in params.items() if value},
        user_agent=GOOGLEBOT if random.random() < 0.1 else CHROME,
        ip=f"203.0.113.{random.randrange(1, 200)}",
    )
    return ms, made if touch == scribe.click and offer_id != 18 and random.random() < 0.5 else b""


async def _change_some(bench: Bench) -> None:
    """Approve most of what is pending, take back some of the rest."""
    history = CatalogHistory()
    query = "SELECT conversion_id::text, status FROM conversions WHERE status IN ('approved', 'pending') ORDER BY 1"
    for place, (conversion_id, status) in enumerate(await bench.rows(query)):
        wanted = Wanted("approved") if status == "pending" else Wanted("reversed", "fraud")
        if place % 3 == 0 or (status == "pending" and place % 3 == 1):
            await change_conversion(bench.conn, history, UUID(conversion_id), wanted, actor="test")


async def make_town(data_dir: Path, url: str) -> Tables:
    """All of it, with conversions booked over the days before, and an API key named as each scope; its rows."""
    async with open_bench(data_dir, url) as bench:
        await fill(bench)
        await forget_rollups(bench.conn)
        await bench.conn.execute(_SPREAD)
        await upsert_contacts(bench.conn, [ContactRow(ODD, "odd", datetime.now(UTC), extras={"sends": "12"})])
        assert (await differences(bench.conn), await contact_differences(bench.conn)) == ([], [])
        for scope, ids in KEYS.items():
            await add_key(url, scope, scope, **ids)
        return await read_tables(bench.conn)


async def read_tables(conn: Connection) -> Tables:
    """Every row, as it is."""
    return Tables(*[[dict(row) for row in await conn.fetch(f"SELECT * FROM {name}")] for name in Tables._fields])


def joined_at(contact: Row) -> datetime | None:
    """When it came."""
    found: datetime | None = contact["signed_up_at"] or contact["first_seen_at"]
    return found


def first_click(tables: Tables, contact_id: str) -> Row | None:
    """The contact's earliest click."""
    mine = [row for row in tables.clicks if row["contact_id"] == contact_id]
    return min(mine, key=lambda row: (row["clicked_at"], row["click_id"]), default=None)


def list_of(tables: Tables, contact: Row) -> str:
    """The contact's list, else the one that its first click named."""
    first = first_click(tables, contact["contact_id"])
    return str(contact["list"] or (first["extras"].get("list", "") if first else ""))


def earnings(tables: Tables) -> Iterator[tuple[str, datetime, str, Any, int]]:
    """Contact, time, currency, revenue, conversions of each row that earned something or converted."""
    for row in tables.conversions:
        if row["status"] == "approved":
            yield row["contact_id"], row["converted_at"], row["currency"], row["revenue"], 1
    for row in (*tables.clicks, *tables.impressions):
        if row["revenue"]:
            yield row["contact_id"], row["clicked_at"], row["currency"], row["revenue"], 0

