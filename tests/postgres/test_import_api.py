"""Imports over the API: a file sent is imported beside all else, its progress told, its refused rows fetched."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edge.admin.api import OPERATIONS
from edge.admin.api.server import make_api
from edge.admin.backend import Backend
from edge.admin.import_queue import ImportQueue, Order, queue_of
from edge.drain.takers import PersonTaker
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

        async def is_gone() -> bool:
            return [*(data_dir / "imports").glob("*.upload")] == []

        await eventually(is_gone, 20.0)
        assert await differences(bench.conn) == []


async def test_what_cannot_be_imported_is_told_and_only_admins_may(data_dir: Path, database: str) -> None:
    """Scopes, kinds, fields at fault, an empty body, a form; a file that is no table fails with the reason."""
    async with (
        open_bench(data_dir, database) as bench,
        imports_at(bench) as (client, backend),
        working(queue_of(backend)),
    ):
        place = "/api/v1/imports/conversions"
        assert (await client.post(place, data=b"x", headers=bearer("partner"))).status == 403
        assert (await client.get("/api/v1/imports", headers=bearer("partner"))).status == 403
        for query, field in (
            ("timezone=Mars", "timezone"),
            ("map=amount", "map"),
            ("from=cake", "from"),
            ("nonsense=1", "nonsense"),
        ):
            answer = await client.post(f"{place}?{query}", data=b"x", headers=ADMIN)
            assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, field)
        assert (await client.post("/api/v1/imports/people", data=b"x", headers=ADMIN)).status in (404, 422)
        assert (await client.post(place, data=b"", headers=ADMIN)).status == 422
        assert (
            await client.post(
                place, data={"file": "x"}, headers={**ADMIN, "Content-Type": "multipart/form-data; boundary=x"}
            )
        ).status == 415
        assert (await client.get("/api/v1/imports/99", headers=ADMIN)).status == 404
        assert (await client.get("/api/v1/imports/99/rejects", headers=ADMIN)).status == 404
        assert await bench.value("SELECT count(*) FROM imports") == 0
        sent = await client.post(place, data=b"PK\x03\x04", headers=ADMIN)
        run = await over(client, (await sent.json())["import_id"])
        assert (run["state"], "Excel" in run["error"]) == ("failed", True)


async def test_what_a_killed_process_left_behind_is_imported_by_the_next(data_dir: Path, database: str) -> None:
    """A file that waited, one that was broken off; one that breaks every process off is given up after three tries."""
    async with open_bench(data_dir, database) as bench, imports_at(bench) as (client, backend):
        body = b"contact_id,list\n7,news\n"
        ids = [
            (await (await client.post("/api/v1/imports/contacts", data=body, headers=ADMIN)).json())["import_id"]
            for _ in range(3)
        ]
        await bench.conn.execute("UPDATE imports SET state = 'running' WHERE import_id = $1", ids[1])
        await bench.conn.execute("UPDATE imports SET plan = plan || '{\"tries\": 3}' WHERE import_id = $1", ids[2])
        states = [(await (await client.get(f"/api/v1/imports/{one}", headers=ADMIN)).json())["state"] for one in ids]
        assert states == ["waiting", "interrupted", "waiting"]
        async with working(ImportQueue(backend)):
            runs = [await over(client, one) for one in ids]
        assert [(run["state"], run["rows_stored"], run["rows_known"]) for run in runs] == [
            ("done", 1, 0), ("done", 0, 1), ("failed", 0, 0),
        ]  # fmt: skip
        assert [path.name for path in (data_dir / "imports").glob("*.part")] == []


async def test_what_a_stopped_process_was_importing_is_begun_again_by_the_next(
    data_dir: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart is no failure of the file: it is still there, and goes in."""
    async with open_bench(data_dir, database) as bench, imports_at(bench) as (client, backend):
        sent = await client.post("/api/v1/imports/contacts", data=b"contact_id,list\n7,news\n", headers=ADMIN)
        import_id = (await sent.json())["import_id"]
        is_at_it = asyncio.Event()

        async def take_for_ever(*_: object) -> None:
            is_at_it.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(PersonTaker, "take", take_for_ever)
            async with working(ImportQueue(backend)):
                await is_at_it.wait()

        async def is_let_go() -> bool:
            run = await (await client.get(f"/api/v1/imports/{import_id}", headers=ADMIN)).json()
            return bool(run["state"] != "running")

        await eventually(is_let_go, 20.0)
        async with working(ImportQueue(backend)):
            run = await over(client, import_id)
        assert (run["state"], run["error"], run["rows_stored"]) == ("done", "", 1)


class SlowCommit:
    """A connection whose transactions are committed when they are let."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self.is_reached, self.is_let = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """One of them."""
        async with self._conn.transaction():
            yield
            self.is_reached.set()
            await self.is_let.wait()


async def test_a_file_whose_run_is_not_committed_yet_is_not_thrown_away(data_dir: Path, database: str) -> None:
    """It comes while the queue is at work, which looks for the next file between its name and its run."""
    async with open_bench(data_dir, database) as bench, imports_at(bench) as (client, backend):
        queue = ImportQueue(backend)
        queue.folder.mkdir()
        part = queue.folder / "one.part"
        part.write_bytes(b"contact_id,list\n7,news\n")
        async with backend.connection() as conn:
            slow: Any = SlowCommit(conn)
            submitting = asyncio.create_task(queue.submit_file(slow, Order(kind="contacts", file_name="one.csv"), part))
            await slow.is_reached.wait()
            looking = asyncio.create_task(queue._import_next())
            await asyncio.wait([looking], timeout=0.5)
            slow.is_let.set()
            import_id = await submitting
        await looking
        async with working(queue):
            run = await over(client, import_id)
        assert (run["state"], run["rows_stored"]) == ("done", 1)


async def test_refused_rows_and_files_that_nobody_imports_go_while_the_process_runs(
    data_dir: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After their 30 days, or their one; nobody need send another file, nor start the process again."""
    monkeypatch.setattr("edge.admin.import_queue.SWEEP_S", 0.05)
    async with open_bench(data_dir, database) as bench, imports_at(bench) as (_, backend):
        queue = ImportQueue(backend)
        queue.folder.mkdir()
        (queue.folder / "left.part").touch()

        def names() -> set[str]:
            return {path.name for path in queue.folder.iterdir()}

        async def has_begun() -> bool:
            return names() == set()

        async def is_swept() -> bool:
            return names() == {"2.rejects.csv", "b.draft", "b.order"}

        async with working(queue):
            await eventually(has_begun, 20.0)
            for name, days in (("1.rejects.csv", 31), ("a.draft", 2), ("a.order", 2), ("2.rejects.csv", 29)):
                (queue.folder / name).touch()
                at = now_ms() / 1000 - days * 86_400
                os.utime(queue.folder / name, (at, at))
            for name in ("b.draft", "b.order"):
                (queue.folder / name).touch()
            await eventually(is_swept, 20.0)
