"""The catalog's operations over HTTP, on a real database."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from edge.admin.catalog_apply import apply_text
from storage.postgres.connection import connect
from tests.node import EXAMPLE_CATALOG
from tests.postgres.api import Client, add_key, bearer, open_api

ROOT = bearer("root")


@pytest.fixture
async def client(database: str, data_dir: Path) -> AsyncIterator[Client]:
    """The API over the example catalog, with a key of each scope."""
    conn = await connect(database)
    await apply_text(conn, EXAMPLE_CATALOG.read_text(), "catalog.toml")
    await conn.close()
    await add_key(database, "root")
    await add_key(database, "viewer", "reports")
    await add_key(database, "partner", "partner", aff_id=2)
    await add_key(database, "advertiser", "advertiser", advertiser_id=1)
    async with open_api(database, data_dir) as client:
        yield client


async def send(
    client: Client, method: str, path: str, body: Any = None, *, etag: str = "", headers: dict[str, str] = ROOT
) -> tuple[int, Any, str]:
    """Status, JSON and ETag of an answer."""
    extra = {"If-Match": etag} if etag else {}
    answer = await client.request(method, f"/api/v1{path}", json=body, headers={**headers, **extra})
    return answer.status, await answer.json(content_type=None) if await answer.read() else None, answer.headers.get("ETag", "")


async def test_an_offer_is_made_read_changed_and_archived(client: Client) -> None:
    """Each step answers the offer as it is now; the next free id is given; archived is gone."""
    offer = {"advertiser_id": 1, "name": "New", "url": "https://x.example/?c={transaction_id}", "payout": 1.25}
    status, made, etag = await send(client, "POST", "/offers", offer)
    assert (status, made["id"], made["payout"], made["click_window"]) == (201, 20, 1.25, "30d")
    assert await send(client, "GET", "/offers/20") == (200, made, etag)
    status, changed, new_etag = await send(client, "PATCH", "/offers/20", {"name": "Newer", "payout": "2"}, etag=etag)
    assert (status, changed) == (200, {**made, "name": "Newer", "payout": 2})
    assert new_etag != etag
    assert (await send(client, "PUT", "/offers/20", changed, etag=new_etag))[::2] == (200, new_etag)
    assert await send(client, "DELETE", "/offers/20", etag=new_etag) == (204, None, "")
    assert (await send(client, "GET", "/offers/20"))[0] == 404
    assert (await send(client, "POST", "/offers", offer))[1]["id"] == 21
