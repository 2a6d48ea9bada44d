"""The console on a database of its own: the admin process's application, without the process."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from edge.admin.backend import Backend
from edge.admin.catalog_apply import apply_text
from edge.admin.console import PAGES, Console
from edge.admin.metrics import Slot
from edge.counters import Counters, cell
from edge.settings import Settings
from edge.tracking.click_id import ClickIds
from storage.postgres.connection import connect
from storage.postgres.partitions import Partitions
from tests.postgres.api import add_key
from tests.postgres.drains import SECRET, Unleased, now_ms

_UP = cell("edge_process_up")
Client = TestClient[web.Request, web.Application]
KEYS = {
    "admin": ("ce_admin-key", 0, 0),
    "reports": ("ce_reports-key", 0, 0),
    "partner": ("ce_partner-key", 0, 2),
    "advertiser": ("ce_advertiser-key", 1, 0),
}
CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"
security_token = "s3cret-of-outletforce"
[[advertisers]]
id = 2
name = "Kaffeehaus"
[[partners]]
id = 2
name = "Deal Blog"
postback_url = "https://partner.example/pb?cid={aff_click_id}"
[[partners]]
id = 3
name = "Coupon <b>Corner</b>"
status = "blocked"
[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
url = "https://shop.example.com/?clickid={transaction_id}"
payout = "5.00"
revenue = "7.50"
goals = [{ id = 1, name = "lead", payout = "1.00" }]
overrides = [{ aff_id = 3, payout = "6.66" }]
[[offers]]
id = 18
advertiser_id = 2
name = "Espresso machines"
url = "https://coffee.example.com/"
payout = "3.00"
revenue = "4.44"
currency = "EUR"
status = "paused"
"""


class Filled:
    """What was put into a database: clicks and conversions by partner."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ids: dict[int, UUID] = {}
        self.conversions: dict[int, UUID] = {}


def fill(url: str) -> Filled:
    """The catalog, a key of each scope, a click and a conversion of each partner, and yesterday's and today's sums."""
    filled = Filled(url)
    asyncio.run(_fill(filled))
    return filled


async def _fill(filled: Filled) -> None:
    for scope, (token, advertiser_id, aff_id) in KEYS.items():
        await add_key(filled.url, token, scope, advertiser_id, aff_id)
    conn = await connect(filled.url)
    await apply_text(conn, CATALOG, "catalog.toml")
    await Partitions().ensure(conn, [datetime.now(UTC).date()])
    minting = ClickIds([SECRET], 0, 0, Unleased())
    for aff_id, offer_id, advertiser_id in ((2, 17, 1), (3, 18, 2)):
        click_id = filled.ids[aff_id] = UUID(bytes=minting.mint(now_ms()))
        at = datetime.fromtimestamp((click_id.int >> 80) / 1000, UTC)
        await conn.execute(
            "INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, outcome, revenue, ip, aff_sub1, currency, catalog_revision)"
            " VALUES ($1, $2, 0, $3, $4, 'redirected', 0, '203.0.113.77', 'sub of the click', 'USD', 1)",
            click_id, at, offer_id, aff_id,
        )  # fmt: skip
        conversion_id = filled.conversions[aff_id] = UUID(bytes=minting.mint(now_ms()))
        await conn.execute(
            "INSERT INTO conversions (conversion_id, click_id, transaction_id, advertiser_id, offer_id, aff_id, touched_at,"
            " converted_at, received_at, amount, currency, revenue, payout, status, via)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7, 40, 'USD', 7.77, 5.55, 'approved', 'postback')",
            conversion_id, click_id, click_id.hex, advertiser_id, offer_id, aff_id, at,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO conversion_changes (conversion_id, booked_hour, actor, kind, status_after, amount_delta,"
            " payout_delta, revenue_delta, conversions_delta, note) VALUES ($1, date_trunc('hour', now()), 'drain',"
            " 'decided', 'approved', 40, 5.55, 7.77, 1, 'after the click')",
            conversion_id,
        )
        await conn.execute(
            "INSERT INTO postback_outbox (conversion_id, event, status, target, aff_id, offer_id, url, host, state, payout)"
            " VALUES ($1, 'decided', 'approved', 0, $2, $3, 'https://partner.example/pb?cid={aff_click_id}',"
            " 'partner.example', 'dead', 5.55)",
            conversion_id, aff_id, offer_id,
        )  # fmt: skip
    await conn.close()


async def add_hour(url: str, hour: datetime, **values: Any) -> None:
    """A row of the roll-ups."""
    row: dict[str, Any] = {"hour": hour, "node_id": 0, "advertiser_id": 1, "offer_id": 17, "aff_id": 2, "currency": "USD"}
    row |= values
    conn = await connect(url)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await conn.execute(f"INSERT INTO stats_hourly ({', '.join(row)}) VALUES ({places})", *row.values())
    await conn.close()


async def value_of(url: str, query: str) -> Any:
    """One value; its connection is closed whatever the test does next."""
    conn = await connect(url)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


@asynccontextmanager
async def open_console(database: str, data_dir: Path, *, is_up: bool = True) -> AsyncIterator[Client]:
    """A client of the console; `log_in` makes it somebody's. `is_up`: whether the processes say that they run."""
    data_dir.mkdir(parents=True, exist_ok=True)
    slots = [Slot(role, 0, Counters.private()) for role in ("worker", "drain")]
    for slot in slots:
        slot.cells[_UP] = int(is_up)
    backend = Backend(Settings(data_dir=str(data_dir), secrets=(SECRET,), port=8080), lambda: database, slots)
    app = web.Application()
    app.add_routes(Console(backend, PAGES).routes())
    try:
        async with TestClient(TestServer(app)) as client:
            yield client
    finally:
        await backend.close()


async def log_in(client: Client, scope: str) -> None:
    """A session of the key of that scope."""
    client.session.cookie_jar.clear()
    answer = await client.post("/login", data={"key": KEYS[scope][0]}, allow_redirects=False)
    assert answer.status == 303, await answer.text()


async def read(client: Client, path: str, status: int = 200) -> str:
    """The page; it must be answered with that status."""
    answer = await client.get(path, allow_redirects=False)
    text = await answer.text()
    assert answer.status == status, (path, answer.status, text[:500])
    return text


async def token_of(client: Client) -> str:
    """What the forms of this session carry."""
    found = re.search('name="csrf-token" content="([0-9a-f]{64})"', await read(client, "/offers"))
    assert found
    return found[1]


async def send(client: Client, path: str, fields: dict[str, str], status: int = 200) -> str:
    """Post a form with its token; what comes back, or where it leads."""
    answer = await client.post(path, data={"csrf": await token_of(client), **fields}, allow_redirects=False)
    text = await answer.text()
    assert answer.status == status, (path, answer.status, text[:1500])
    return answer.headers.get("Location", text)


def cookie_of(client: Client) -> str:
    """The session's cookie."""
    return client.session.cookie_jar.filter_cookies(URL(str(client.make_url("/"))))["clickedge_session"].value
