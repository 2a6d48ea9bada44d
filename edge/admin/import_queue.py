"""Files that were uploaded to be imported: kept below the data dir, imported one after the other, beside all else.

Q1  A file is complete before it has its name, `<import id>.upload`, and nobody looks at that before its run is committed.
Q2  It goes away when its run is over. What is found after a restart is imported: again, if that was broken off.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from uuid import uuid4
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

import msgspec
import structlog

from edge.admin.backend import Backend
from edge.drain.import_run import Source, run_import
from edge.drain.takers import Choices, Plan
from edge.errors import UserError
from edge.node import with_secrets
from edge.settings import Settings
from storage.postgres.connection import Connection, connect, resolve_url
from storage.postgres.import_runs import create_run, finish_run, list_open, pick_run
from storage.postgres.installation import recall

log = structlog.get_logger()
MIN_FREE_BYTES = 1 << 30
"""What an upload must leave free: the journal stands on the same disk."""
KEPT_S = {"*.rejects.csv": 30 * 86400, "*.draft": 86400, "*.order": 86400}
"""How long what nobody comes for is kept: refused rows, and files whose columns somebody was to look at."""
SWEEP_S = 3600.0
"""So often at least it is looked for that."""
MAX_TRIES = 3
_CHUNK_BYTES = 1 << 20
_RETRY_S = 5.0


class NoRoom(UserError):
    """The disk has no room for the file."""


class Order(Choices, frozen=True, kw_only=True):
    """What is to be done with a file, as it is kept with the run until its turn comes; `timezone` "": EDGE_TIMEZONE."""

    file_name: str
    timezone: str = ""
    draft: str = ""
    """Which kept file (import_drafts.py) it was that the console sent; "": none."""


class ImportQueue:
    """One for the admin process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._settings = backend.settings
        self.folder = backend.settings.data_path / "imports"
        self._wanted = asyncio.Event()
        self._naming = asyncio.Lock()
        """Held from a file's name to its run's commit: in between it looks like one that nobody knows."""

    async def submit(self, order: Order, body: AsyncIterator[bytes]) -> int:
        """Keep a file and have it imported in its turn; the run's id. NoRoom; UserError if it is empty.

        However slowly the file comes: a connection is taken when all of it is there.
        """
        part = self.folder / f"{uuid4().hex}.part"
        try:
            if not await self.keep(part, body):
                raise UserError("the body is empty: send the file itself")
            async with self._backend.connection() as conn:
                return await self.submit_file(conn, order, part)
        finally:
            part.unlink(missing_ok=True)

    async def submit_file(self, conn: Connection, order: Order, path: Path) -> int:
        """Have a complete file of this folder imported in its turn: it gets another name; the run's id."""
        async with self._naming, conn.transaction():
            plan = {"order": msgspec.to_builtins(order), "dry_run": order.dry_run}
            size_bytes = (await asyncio.to_thread(path.stat)).st_size
            import_id = await create_run(conn, order.kind, order.file_name, size_bytes, order.actor, plan)
            await asyncio.to_thread(path.rename, self._upload(import_id))
        self._wanted.set()
        return import_id

    def rejects(self, import_id: int) -> Path:
        """Where the refused rows of an uploaded file are."""
        return self.folder / f"{import_id}.rejects.csv"

    async def run(self) -> None:
        """Import what there is, and what comes, until cancelled."""
        await asyncio.to_thread(self._tidy)
        while True:
            self._wanted.clear()
            try:
                while await self._import_next():
                    pass
                await asyncio.to_thread(self.forget_old)
            except Exception as error:
                log.warning("import_postponed", error=str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            # What is still there is held by a session that ends soon.
            pause_s = _RETRY_S if self._waiting_ids() else SWEEP_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause_s)

    async def _import_next(self) -> bool:
        """Import the first file that waits; False: there is none."""
        if not self._waiting_ids():
            return False
        conn = await connect(
            resolve_url(self._settings.database_url, self._settings.data_path), application_name="clickedge import"
        )
        try:
            async with self._naming:
                ids = self._waiting_ids()
                for gone in set(ids) - await list_open(conn, ids):
                    self._upload(gone).unlink(missing_ok=True)
            run = await pick_run(conn, ids)
            if run is None:
                return False
            await self._import(conn, run)
        finally:
            await conn.close()
        return True

    async def _import(self, conn: Connection, run: dict[str, Any]) -> None:
        import_id = run["import_id"]
        if run["plan"].get("tries", 0) >= MAX_TRIES:
            await finish_run(conn, import_id, error=f"given up: it was broken off {MAX_TRIES} times")
            return
        order = msgspec.convert(run["plan"]["order"], Order)
        source = Source(self._upload(import_id), order.file_name, self.rejects(import_id))
        settings = with_secrets(self._settings)
        try:
            plan = await plan_of(conn, order, settings)
            report = await run_import(conn, settings, source, plan, import_id=import_id)
        except UserError as error:
            await finish_run(conn, import_id, error=str(error)[:1000])
            log.warning("import_failed", import_id=import_id, error=str(error))
            return
        log.info("import_done", import_id=import_id, kind=order.kind, **cast("dict[str, Any]", report.counts))

    async def keep(self, path: Path, body: AsyncIterator[bytes]) -> int:
        """The body into a file of this folder; its size. NoRoom: then what there is of it is the caller's to remove."""
        await asyncio.to_thread(lambda: self.folder.mkdir(mode=0o700, exist_ok=True))
        size_bytes, chunks, held = 0, [], 0
        with path.open("wb") as file:
            async for chunk in body:
                chunks.append(chunk)
                held += len(chunk)
                if held >= _CHUNK_BYTES:
                    await asyncio.to_thread(self._write, file, chunks)
                    size_bytes, chunks, held = size_bytes + held, [], 0
            await asyncio.to_thread(self._write, file, chunks)
        return size_bytes + held

    def _write(self, file: Any, chunks: list[bytes]) -> None:
        try:
            if shutil.disk_usage(self.folder).free < MIN_FREE_BYTES + _CHUNK_BYTES:
                raise NoRoom(
                    f"the disk of {self.folder} has no room for it: {MIN_FREE_BYTES >> 20} MiB must stay free"
                )
            file.write(b"".join(chunks))
            file.flush()
        except OSError as error:
            raise NoRoom(f"the file cannot be kept: {error.strerror}") from error

    def _waiting_ids(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.upload") if path.stem.isdigit()]

    def _upload(self, import_id: int) -> Path:
        return self.folder / f"{import_id}.upload"

    def _tidy(self) -> None:
        """Uploads that were broken off go."""
        for path in self.folder.glob("*.part"):
            path.unlink(missing_ok=True)

    def forget_old(self) -> None:
        """What has been kept long enough goes."""
        for pattern, kept_s in KEPT_S.items():
            for path in self.folder.glob(pattern):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > kept_s:
                        path.unlink()


_queues: WeakKeyDictionary[Backend, ImportQueue] = WeakKeyDictionary()


def queue_of(backend: Backend) -> ImportQueue:
    """The queue that belongs to this backend."""
    return _queues.setdefault(backend, ImportQueue(backend))


async def plan_of(conn: Connection, order: Order, settings: Settings) -> Plan:
    """The order as an import is run."""
    zone = ZoneInfo(order.timezone or await recall(conn, "timezone", settings.timezone))
    return Plan(zone=zone, **{name: getattr(order, name) for name in Choices.__struct_fields__})
