"""Imports over the API: a file sent is imported beside all else, its progress told, its refused rows fetched."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin.api import OPERATIONS
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.admin.import_queue import ImportQueue, queue_of
from tests.node import eventually
from tests.postgres.api import Client, add_key, bearer
from tests.postgres.drains import Bench, make_settings, now_ms, open_bench
from tests.recount import differences

ADMIN = bearer("root")
DAY_MS = 86_400_000


@asynccontextmanager
async def imports_at(bench: Bench) -> AsyncIterator[tuple[Client, Backend]]:
    """The API of that bench, as the admin process has it, but for its queue, which is not at work yet."""
    await add_key(bench.url, "root")
    await add_key(bench.url, "partner", "partner", aff_id=2)
    backend = Backend(make_settings(bench.data_dir, bench.url), lambda: bench.url)
    app = web.Application()
    app.add_subapp("/api/", make_api(backend, OPERATIONS))
    try:
        async with TestClient(TestServer(app)) as client:
            yield client, backend
    finally:
        await backend.close()


@asynccontextmanager
async def working(queue: ImportQueue) -> AsyncIterator[None]:
    """The queue at work."""
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def over(client: Client, import_id: int) -> dict[str, Any]:
    """The run, once it is over."""
    run: dict[str, Any] = {}

    async def is_over() -> bool:
        nonlocal run
        run = await (await client.get(f"/api/v1/imports/{import_id}", headers=ADMIN)).json()
        return run["state"] in ("done", "failed")

    await eventually(is_over, 20.0)
    return run


async def test_a_file_sent_is_imported_and_its_refused_rows_can_be_fetched(data_dir: Path, database: str) -> None:
    """202 at once, then progress, counts, what the columns were taken for; a rehearsal stores nothing."""
    async with (
        open_bench(data_dir, database) as bench,
        imports_at(bench) as (client, backend),
        working(queue_of(backend)),
    ):
        scribe = bench.scribe()
        click = scribe.click(ms=now_ms() - DAY_MS).hex()
        await bench.drain()
        body = f"Id of the click;Betrag;Datum\n{click};12,50;{now_ms() // 1000 - 60}\n{click};x;{now_ms() // 1000}\n".encode()
        query = "file_name=C:\\sales.csv&map=transaction_id=Id of the click&map=amount=Betrag&map=datetime=Datum"
        for dry_run in ("true", "false"):
            sent = await client.post(f"/api/v1/imports/conversions?{query}&dry_run={dry_run}", data=body, headers=ADMIN)
            assert sent.status == 202, await sent.text()
            run = await over(client, (await sent.json())["import_id"])
            assert (run["state"], run["error"], run["file_name"]) == ("done", "", "sales.csv")
            assert (run["rows_stored"], run["rows_rejected"], run["has_rejects"]) == (1, 1, True)
            assert (run["read_bytes"], run["size_bytes"]) == (len(body), len(body))
            assert run["preview"]["columns"]["amount"] == "Betrag"
            assert await bench.value("SELECT count(*) FROM conversions") == (dry_run == "false")
        refused = await client.get(f"/api/v1/imports/{run['import_id']}/rejects", headers=ADMIN)
        assert (await refused.text()).startswith("line,reason,Id of the click,Betrag,Datum\r\n3,'x' is no amount,")
        listed = await (await client.get("/api/v1/imports?limit=1", headers=ADMIN)).json()
        assert ([one["import_id"] for one in listed["data"]], listed["next_cursor"]) == ([2], "2")
        assert [*(data_dir / "imports").glob("*.upload")] == []
        assert await differences(bench.conn) == []
