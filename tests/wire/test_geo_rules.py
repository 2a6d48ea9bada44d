"""Rules on a real node: a worker with a geo database chooses by country, region and device, and `explain` says which rule."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import asyncpg

from tests.node import COMMAND, Node, eventually
from tests.unit.test_enrich import CHROME, IPHONE, OTTAWA, PARIS, write_database

WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36"
STORED_S = 20.0
CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"

[[partners]]
id = 2
name = "Deal Blog"

[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
url = "https://shop.example.com/?c={transaction_id}&at={country_code}-{region_code}-{city}&on={device_type},{device_os},{device_os_version},{device_brand},{device_model},{browser}"
redirect_offer_id = 18
landing_pages = [{ id = 1, url = "https://pages.example.com/?c={transaction_id}" }]
rules = [
  { when = { country = ["CA"], device = ["mobile"] }, then = { landing_page_id = 1 } },
  { when = { country = ["FR"] }, then = { reject = "not in France" } },
]

[[offers]]
id = 18
advertiser_id = 1
name = "Elsewhere"
url = "https://elsewhere.example.com/?c={transaction_id}"
"""


async def test_a_worker_chooses_by_country_and_device(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """What the worker saw is what the drain stores; a new database is followed; without it clicks go on, unknown."""
    catalog, database = tmp_path / "catalog.toml", tmp_path / "geo.mmdb"
    catalog.write_text(CATALOG)
    write_database(database, {"192.0.2.0/25": OTTAWA, "192.0.2.128/25": PARIS})
    node = await make_node(
        catalog=catalog, EDGE_GEOIP_DB=str(database), EDGE_TRUSTED_PROXIES="127.0.0.1/32"
    ).start()
    async with aiohttp.ClientSession() as session:

        async def click(ip: str, agent: str) -> str:
            headers = {"X-Forwarded-For": ip, "User-Agent": agent}
            url = f"{node.origin}/aff_c?offer_id=17&aff_id=2"
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                assert answer.status == 302
                return answer.headers["Location"]

        phone, desktop, french, nowhere = await asyncio.gather(
            click("192.0.2.7", IPHONE), click("192.0.2.7", WINDOWS), click("192.0.2.200", IPHONE), click("8.8.8.8", "")
        )
        assert phone.startswith("https://pages.example.com/")
        assert desktop.endswith("&at=CA-ON-Ottawa&on=desktop,Windows,10,,,Chrome")
        assert french.startswith("https://elsewhere.example.com/")
        assert nowhere.endswith("&at=--&on=,,,,,")
        rows = await stored(node, 4)
        assert [facts(rows[id_of(location)]) for location in (phone, desktop, french, nowhere)] == [
            ("CA", "mobile", "", 1, {"rule": "1"}),
            ("CA", "desktop", "", 0, {}),
            ("FR", "mobile", "targeting", 0,
             {"rule": "2", "rule_reason": "not in France", "requested_offer_id": "17"}),
            ("", "", "", 0, {}),
        ]  # fmt: skip
        told = await asyncio.to_thread(explain, node, id_of(french))
        assert "redirected because targeting" in told
        assert re.search(r"asked for +offer 17\n +rule +2 of offer 17 sent the click on or away\n +refused +not in France\n", told)

        async def is_canadian_in_france() -> bool:
            return (await click("192.0.2.200", IPHONE)).startswith("https://pages.example.com/")

        write_database(database, {"192.0.2.0/24": OTTAWA})
        await eventually(is_canadian_in_france, STORED_S, node.describe)

        async def is_unknown() -> bool:
            return (await click("192.0.2.7", WINDOWS)).endswith("&at=--&on=desktop,Windows,10,,,Chrome")

        database.unlink()
        await eventually(is_unknown, STORED_S, node.describe)


def id_of(location: str) -> str:
    found = re.search(r"c=([0-9a-f]{32})", location)
    assert found
    return found[1]


def facts(row: asyncpg.Record) -> tuple[object, ...]:
    """Where a click was, on what, and what was made of it."""
    return row["country"], row["device_type"], row["reason"], row["landing_page_id"], json.loads(row["extras"])


def explain(node: Node, click_id: str) -> str:
    """What the command prints."""
    command: list[str | Path] = [COMMAND, "explain", click_id, "--data-dir", node.data_dir]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def stored(node: Node, count: int) -> dict[str, asyncpg.Record]:
    """The clicks by id, once there are so many."""
    rows: list[asyncpg.Record] = []

    async def is_stored() -> bool:
        rows[:] = await node.fetch("SELECT * FROM clicks")
        return len(rows) == count

    await eventually(is_stored, STORED_S, node.describe)
    return {row["click_id"].hex: row for row in rows}
