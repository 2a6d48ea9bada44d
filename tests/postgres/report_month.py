"""A month of everything, for reports: rows that the real drain stored, and many more put beside them with their roll-ups."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from storage.postgres.connection import Connection
from storage.postgres.converted_clicks import copy_converted_clicks
from storage.postgres.partitions import Partitions
from storage.postgres.rollups import begin_rollups, forget_rollups, pass_hours, sum_days
from tests.postgres.drains import CHROME, GOOGLEBOT, Bench, now_ms, open_bench
from tests.recount import differences

MONTH = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 31
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
_OFFER = """
[[offers]]
id = %d
advertiser_id = %d
name = "%s"
url = "https://shop.example.com/?clickid={transaction_id}"
payout = "2.00"
revenue = "3.25"
currency = "%s"
[[offers.goals]]
id = 1
name = "lead"
[[offers.landing_pages]]
id = 1
name = "Page A"
url = "https://shop.example.com/a"
[[offers.creatives]]
id = 5
name = "Banner"
"""
_PEOPLE = """
[[advertisers]]
id = 1
name = "Outletforce"
[[advertisers]]
id = 2
name = "Elsewhere"
[[partners]]
id = 2
name = "Deal Blog"
[[partners]]
id = 3
name = "Coupon Corner"
"""
FIRST_CATALOG = _PEOPLE + _OFFER % (17, 1, "Flat", "USD") + _OFFER % (18, 1, "Moved", "EUR")
# The offer changes hands: what it earned before stays its first advertiser's.
SECOND_CATALOG = _OFFER % (18, 2, "Moved", "EUR") + _OFFER % (19, 2, "Third", "USD")
OWNER = {(1, 17): 1, (1, 18): 1, (2, 17): 1, (2, 18): 2, (2, 19): 2}
CURRENCY = {17: "USD", 18: "EUR", 19: "USD", 0: ""}
_TOUCH_FIELDS = (
    "click_id", "clicked_at", "node_id", "offer_id", "aff_id", "landing_page_id", "creative_id", "alias", "source",
    "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5", "utm_source", "utm_medium", "utm_campaign", "utm_content",
    "utm_term", "contact_id", "country", "region", "city", "device_type", "os", "browser", "language", "referrer", "cost",
    "payout", "revenue", "currency", "outcome", "flags", "extras", "catalog_revision", "first_click_id",
)  # fmt: skip
_STATS = """
    INSERT INTO stats_hourly AS stats (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id,
        country, device_type, currency, impressions, gross_clicks, unique_clicks, invalid_clicks, refused_clicks,
        conversions, pending, rejected, reversed, amount, payout, revenue, cost)
    SELECT hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country, device_type,
        currency, sum(v), sum(g), sum(u), sum(i), sum(f), sum(c), sum(p), sum(r), sum(x), sum(amount), sum(payout), sum(revenue),
        sum(cost)
    FROM made GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ON CONFLICT (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,
                 device_type, currency) DO UPDATE SET
        impressions = stats.impressions + excluded.impressions, gross_clicks = stats.gross_clicks + excluded.gross_clicks,
        unique_clicks = stats.unique_clicks + excluded.unique_clicks,
        invalid_clicks = stats.invalid_clicks + excluded.invalid_clicks,
        refused_clicks = stats.refused_clicks + excluded.refused_clicks,
        conversions = stats.conversions + excluded.conversions, pending = stats.pending + excluded.pending,
        rejected = stats.rejected + excluded.rejected,
        reversed = stats.reversed + excluded.reversed, amount = stats.amount + excluded.amount,
        payout = stats.payout + excluded.payout, revenue = stats.revenue + excluded.revenue, cost = stats.cost + excluded.cost
"""
_MADE_COLUMNS = (
    "hour timestamptz, node_id int, advertiser_id int, offer_id int, aff_id int, goal_id int, landing_page_id int,"
    " creative_id int, country text, device_type text, currency text, v int, g int, u int, i int, f int, c int, p int,"
    " r int, x int, amount numeric, payout numeric, revenue numeric, cost numeric"
)


def id_at(ms: int, number: int, node: int = 0) -> UUID:
    """An id of that millisecond; no edge verifies it here."""
    return UUID(int=ms << 80 | 7 << 76 | (number >> 8 & 0xFFF) << 64 | 2 << 62 | node << 46 | number & 0xFFFFFF)


async def make_month(data_dir: Path, url: str, *, clicks: int = 1200, seed: int = 13) -> None:
    """Fill the database: October 2026 and some days around it, and today what the drain stored."""
    async with open_bench(data_dir, url, FIRST_CATALOG) as bench:
        await bench.apply(SECOND_CATALOG)
        await _drain_some(bench)
        await Partitions().ensure(bench.conn, [(MONTH + timedelta(days=n)).date() for n in range(-8, DAYS + 4)])
        await _Maker(bench.conn, random.Random(seed)).make(clicks)
        await _roll_up(bench.conn)
        assert await differences(bench.conn) == []
        await bench.conn.execute("ANALYZE")


async def _roll_up(conn: Connection) -> None:
    """The most of the month as coarser sums; its last days are still to come."""
    until = MONTH + timedelta(days=DAYS - 5, hours=7)
    await forget_rollups(conn)
    await begin_rollups(conn, "Europe/Berlin", until)
    while await pass_hours(conn, until) != until:
        pass
    await sum_days(conn, 12)  # and the values of some days
    await copy_converted_clicks(conn, MONTH + timedelta(days=10))
    await conn.execute("UPDATE click_value_days SET state = 'too many' WHERE extract(day FROM day) = 20")


async def _drain_some(bench: Bench) -> None:
    """Clicks, views and conversions of today as a worker writes them and the drain stores them, and changes of those."""
    scribe = bench.scribe(revision=2)
    sent = []
    for number in range(60):
        fields: dict[str, Any] = {
            "offer_id": (17, 18, 19)[number % 3],
            "aff_id": 2 + number % 2,
            "contact_id": f"c{number % 7}",
        }
        params = {
            "aff_sub1": f"s{number % 4}",
            "utm_source": ("mail", "ads")[number % 2],
            "colour": "red",
            "cost": "0.03",
        }
        agent = GOOGLEBOT if number % 9 == 8 else CHROME
        click_id = scribe.click(ms=now_ms(), params=params, user_agent=agent, visitor=bytes(15) + b"v", **fields)
        if number % 4 == 0:
            scribe.impression(params=params, **fields)
        if number % 3 != 1:
            sent.append(scribe.convert(click_id, amount=f"{number}.50", promo_code=("", "XMAS")[number % 2]))
    scribe.close()
    await bench.drain()
    history = CatalogHistory()
    wishes = (
        Wanted("reversed", "returned"),
        Wanted("", "wrong_amount", amount=Decimal("7.77")),
        Wanted("rejected", "fraud"),
    )
    for number, conversion_id in enumerate(sent[:15]):
        if (await bench.verdict(conversion_id))[0] == "approved":
            wanted = wishes[number % 3]
            await change_conversion(bench.conn, history, UUID(bytes=conversion_id), wanted, actor="somebody")


class _Maker:
    """Makes rows by chance; what each adds to the roll-ups goes to `made`."""

    def __init__(self, conn: Connection, chance: random.Random) -> None:
        self.conn = conn
        self.chance = chance
        self.made: list[tuple[Any, ...]] = []
        self.cookies: list[UUID] = []

    async def make(self, clicks: int) -> None:
        touches = [self._touch(number) for number in range(clicks)]
        views = [self._touch(clicks + number) for number in range(clicks // 5)]
        for rows, table in ((touches, "clicks"), (views, "impressions")):
            for row in rows:
                self._book_touch(row, is_click=table == "clicks")
            records = [tuple(row[name] for name in _TOUCH_FIELDS) for row in rows]
            await self.conn.copy_records_to_table(table, records=records, columns=_TOUCH_FIELDS)
        await self._convert([*self.chance.sample(touches, clicks // 4), *self.chance.sample(views, clicks // 40)])
        await self._spend()
        await self._book()

    def _touch(self, number: int) -> dict[str, Any]:
        chance = self.chance
        ms = int(MONTH.timestamp() * 1000) + chance.randrange(-3 * 86_400_000, (DAYS + 2) * 86_400_000)
        offer_id = chance.choice((17, 17, 18, 19, 0))
        revision = 2 if offer_id == 19 else chance.choice((1, 2))
        node = chance.choice((0, 0, 5))
        click_id = id_at(ms, number, node)
        first = chance.choice([None, None, click_id, *self.cookies[-3:]])
        if first == click_id:
            self.cookies.append(click_id)
        texts = {name: chance.choice(("", f"{name}-a", f"{name}-b")) for name in _TOUCH_FIELDS[7:19]}
        return {
            **texts,
            "click_id": click_id,
            "clicked_at": datetime.fromtimestamp(ms / 1000, UTC),
            "node_id": node,
            "offer_id": offer_id,
            "aff_id": chance.choice((2, 2, 3, 0)),
            "landing_page_id": chance.choice((0, 1)),
            "creative_id": chance.choice((0, 0, 5)),
            "contact_id": chance.choice(("", "", *(f"c{n}" for n in range(12)))),
            "country": chance.choice(("DE", "US", "")),
            "region": chance.choice(("BE", "")),
            "city": chance.choice(("Köln", "O'Fallon", "")),
            "device_type": chance.choice(("mobile", "desktop")),
            "os": chance.choice(("Android", "Windows")),
            "browser": chance.choice(("Chrome", "")),
            "language": chance.choice(("de", "en")),
            "referrer": chance.choice(("", "https://User@News.Example:8443/x?y", "http://blog.example/#a", "nonsense")),
            "cost": chance.choice((Decimal(0), Decimal("0.1"), Decimal("0.012345"))) if offer_id else Decimal(0),
            "payout": Decimal("0.05") if offer_id == 19 else Decimal(0),
            "revenue": Decimal("0.07") if offer_id == 19 else Decimal(0),
            "currency": CURRENCY[offer_id],
            "outcome": "redirected" if offer_id else "fallback",
            "flags": chance.choice(
                ([], [], [], ["duplicate"], ["bot"], ["datacentre", "prefetch"], ["deep_link_refused"])
            ),
            "extras": chance.choice(({}, {"colour": "red"}, {"list": "news"}, {"colour": "blue", "list": "vip"})),
            "catalog_revision": revision,
            "first_click_id": first,
        }

    def _book_touch(self, row: dict[str, Any], *, is_click: bool) -> None:
        is_valid = not {"bot", "prefetch", "datacentre"} & set(row["flags"])
        is_unique = is_valid and "duplicate" not in row["flags"]
        if not is_click:
            row["outcome"] = "recorded"
        counts = [0, 1, int(is_unique), int(not is_valid), int(is_valid and row["outcome"] == "fallback")]
        owner = OWNER.get((row["catalog_revision"], row["offer_id"]), 0)
        hour = row["clicked_at"].replace(minute=0, second=0, microsecond=0)
        key = (hour, row["node_id"], owner, row["offer_id"], row["aff_id"], 0, row["landing_page_id"], row["creative_id"],
               row["country"], row["device_type"], row["currency"])  # fmt: skip
        money = (Decimal(0), row["payout"], row["revenue"], row["cost"])
        self.made.append((*key, *(counts if is_click else [1, 0, 0, 0, 0]), 0, 0, 0, 0, *money))

    async def _convert(self, touches: list[dict[str, Any]]) -> None:
        rows, changes = [], []
        for number, touch in enumerate(touches):
            conversion, booked = self._conversion(number, touch)
            rows.append(conversion)
            changes += booked
        names = tuple(rows[0])
        await self.conn.copy_records_to_table(
            "conversions", records=[tuple(row[name] for name in names) for row in rows], columns=names
        )
        columns = ("conversion_id", "booked_hour", "kind", "status_before", "status_after", "conversions_delta",
                   "pending_delta", "rejected_delta", "amount_delta", "payout_delta", "revenue_delta")  # fmt: skip
        await self.conn.copy_records_to_table("conversion_changes", records=changes, columns=columns)

    def _conversion(self, number: int, touch: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
        """A conversion some time after its touch, late ones days after, and the changes that made it what it is."""
        chance = self.chance
        delay = timedelta(seconds=chance.choice((30, 4000, 90_000, 400_000)) * chance.random())
        received = min(touch["clicked_at"] + delay, MONTH + timedelta(days=DAYS + 3))
        has_touch = chance.random() < 0.93
        row = {
            "conversion_id": id_at(int(received.timestamp() * 1000), 900_000 + number),
            "click_id": touch["click_id"] if has_touch else None,
            "node_id": touch["node_id"],
            "advertiser_id": OWNER.get((touch["catalog_revision"], touch["offer_id"]), 0),
            "offer_id": touch["offer_id"],
            "aff_id": touch["aff_id"],
            "goal_id": chance.choice((0, 0, 1)),
            "landing_page_id": touch["landing_page_id"],
            "creative_id": touch["creative_id"],
            "touched_at": touch["clicked_at"] if has_touch else None,
            "converted_at": received,
            "received_at": received,
            "amount": Decimal(chance.randrange(100, 9999)) / 100,
            "currency": touch["currency"],
            "revenue": Decimal(chance.randrange(1, 900)) / 100,
            "payout": Decimal(chance.randrange(1, 500)) / 1000,
            "promo_code": chance.choice(("", "", "XMAS")),
            "via": "postback",
            "country": touch["country"],
            "device_type": touch["device_type"],
            "extras": chance.choice(({}, {"colour": "green"})),
            "catalog_revision": touch["catalog_revision"],
            "contact_id": touch["contact_id"] or chance.choice(("", "c3")),
        }
        return row, self._history(row)

    def _history(self, row: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Changes one after the other, in hours of their own; the row is left as the last says."""
        chance, before = self.chance, ""
        money = (Decimal(0), Decimal(0), Decimal(0))
        paths = (["approved"], ["approved"], ["pending"], ["rejected"], ["pending", "approved"], ["approved", "reversed"],
                 ["approved", "approved"], ["approved", "reversed", "approved"], ["approved", "rejected"])  # fmt: skip
        booked, at = [], row["received_at"]
        for place, status in enumerate(chance.choice(paths)):
            hour = at.replace(minute=0, second=0, microsecond=0)
            if place:
                row["revenue"] += Decimal("0.5")
            after = (row["amount"], row["payout"], row["revenue"]) if status == "approved" else (Decimal(0),) * 3
            counts = tuple((status == one) - (before == one) for one in ("approved", "pending", "rejected"))
            deltas = tuple(new - old for new, old in zip(after, money, strict=True))
            kind = "decided" if not place else "adjusted" if status == before else status
            booked.append((row["conversion_id"], hour, kind, before, status, *counts, *deltas))
            key = tuple(row[name] for name in ("node_id", "advertiser_id", "offer_id", "aff_id", "goal_id",
                        "landing_page_id", "creative_id", "country", "device_type", "currency"))  # fmt: skip
            taken_back = (status == "reversed") - (before == "reversed")
            self.made.append((hour, *key, 0, 0, 0, 0, 0, *counts, taken_back, *deltas, Decimal(0)))
            before, money = status, after
            at += timedelta(hours=chance.randrange(0, 50))
        row["status"] = before
        return booked

    async def _spend(self) -> None:
        chance = self.chance
        rows = {
            (
                date(2026, 10, 1) + timedelta(days=chance.randrange(-1, DAYS + 1)),
                chance.choice((17, 18)),
                chance.choice((0, 2, 3)),
                chance.choice((0, 5)),
                chance.choice(("", "news", "vip")),
            ): (Decimal(chance.randrange(1, 3000)) / 100, chance.randrange(0, 500))
            for _ in range(80)
        }
        await self.conn.copy_records_to_table(
            "costs",
            records=[(*key, CURRENCY[key[1]], *spent) for key, spent in rows.items()],
            columns=("day", "offer_id", "aff_id", "creative_id", "list", "currency", "amount", "sends"),
        )
        await self.conn.execute(
            "INSERT INTO contacts (contact_id, list) SELECT 'c' || n, 'vip' FROM generate_series(0, 5) AS n"
            " ON CONFLICT (contact_id) DO UPDATE SET list = 'vip'"
        )

    async def _book(self) -> None:
        await self.conn.execute(f"CREATE TEMP TABLE made ({_MADE_COLUMNS})")
        await self.conn.copy_records_to_table("made", records=self.made)
        await self.conn.execute(_STATS)
        await self.conn.execute("DROP TABLE made")
