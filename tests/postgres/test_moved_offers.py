"""An offer that goes over to another advertiser: what came before stays the former one's, everywhere."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin import live
from edge.admin.api import OPERATIONS
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.admin.console import PAGES, Console
from edge.settings import Settings
from tests.postgres.api import Client, add_key, bearer
from tests.postgres.drains import CATALOG, open_bench
from tests.postgres.test_live_events import Studio, heard

MOVED = CATALOG.replace("id = 17\nadvertiser_id = 1", "id = 17\nadvertiser_id = 2")


@pytest.fixture
async def studio(database: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Studio]:
    """API and console on a drained database; a key of each advertiser."""
    monkeypatch.setattr(live, "POLL_S", 0.02)
    async with open_bench(data_dir, database) as bench:
        for number in (1, 2):
            await add_key(database, f"a{number}", "advertiser", advertiser_id=number)
        backend = Backend(Settings(data_dir=str(data_dir)), lambda: database)
        app = web.Application()
        app.add_subapp("/api/", make_api(backend, OPERATIONS))
        app.add_routes(Console(backend, PAGES).routes())
        try:
            async with TestClient(TestServer(app)) as client:
                yield Studio(bench, client, backend)
        finally:
            await backend.close()


async def move(studio: Studio) -> None:
    """Offer 17 is advertiser 2's from now on."""
    studio.scribe.revision = await studio.bench.apply(MOVED)


async def see(client: Client, who: str, path: str) -> tuple[int, str]:
    """A page of the console, as that key sees it."""
    client.session.cookie_jar.clear()
    assert (await client.post("/login", data={"key": who}, allow_redirects=False)).status == 303
    answer = await client.get(path, allow_redirects=False)
    return answer.status, await answer.text()


async def test_a_click_is_heard_by_whose_the_offer_was_at_that_moment(studio: Studio) -> None:
    """Also by who was listening before it moved, and by who catches up afterwards."""
    former, present = await studio.listen("a1"), await studio.listen("a2")
    [before] = await studio.happen(2)
    assert [one["click_id"].replace("-", "") for one in await heard(former, 1)] == [before.hex()]
    await move(studio)
    [after] = await studio.happen(2)
    assert [one["click_id"].replace("-", "") for one in await heard(present, 1)] == [after.hex()]
    await studio.happen(2, converts=True)
    assert [one["event"] for one in await heard(present, 2)] == ["click", "conversion"]
    assert is_quiet(studio, "a1")
    again = await studio.listen("a2", **{"Last-Event-ID": "0-1"})
    assert before.hex() not in [one["click_id"].replace("-", "") for one in await heard(again, 3)]
    for answer in (former, present, again):
        answer.close()


def is_quiet(studio: Studio, who: str) -> bool:
    """Whether nothing waits for the advertiser that this key is of."""
    wanted = int(who.removeprefix("a"))
    return all(one._queue.empty() for one in studio.feed._listeners if one.interest.advertiser_id == wanted)


async def test_the_console_shows_clicks_and_sales_to_whose_they_were(studio: Studio) -> None:
    """The story of an id, and the newest clicks, by the catalog of the click; sales by whose they were booked."""
    [before] = await studio.happen(2, converts=True)
    await move(studio)
    [after] = await studio.happen(2)
    client: Any = studio.client
    for who, own, foreign in (("a1", before, after), ("a2", after, before)):
        assert (await see(client, who, f"/clicks/{own.hex()}"))[0] == 200
        assert (await see(client, who, f"/clicks/{foreign.hex()}"))[0] == 404
    for path in ("/clicks", "/?part=live"):
        _, text = await see(client, "a2", path)
        assert after.hex() in text
        assert before.hex() not in text
    rows = await (await client.get("/api/v1/clicks", headers=bearer("a2"))).json()
    assert [row["click_id"] for row in rows["data"]] == [after.hex()]

