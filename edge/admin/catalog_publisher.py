"""From the database to the workers: the catalog in force, as a file in the data dir."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from edge.admin.chores import keep_doing, own_connection
from storage.postgres.catalog import Connection, listen, load_current, load_revision
from storage.snapshot_file import holds, write_snapshot

# The backstop for a notice that was lost with its connection: a worker is at most this plus 0.25 s behind.
POLL_INTERVAL_S = 1.0

log = structlog.get_logger()


async def publish_catalog(conn: Connection, snapshot_path: Path) -> int:
    """Have the catalog in force in the file (OSError leaves the former one); its revision."""
    revision, items = await load_current(conn)
    if not await asyncio.to_thread(holds, snapshot_path, revision, items):
        await asyncio.to_thread(write_snapshot, snapshot_path, revision, items)
        log.info("catalog_published", revision=revision)
    return revision


class CatalogPublisher:
    """Keeps the file at the revision in force."""

    def __init__(self, resolve_database: Callable[[], str], snapshot_path: Path) -> None:
        """`resolve_database`: where the database is now; asked again after each lost connection."""
        self._resolve_database = resolve_database
        self._path = snapshot_path
        self._published: int | None = None

    async def run(self) -> None:
        """Publish until cancelled; whatever the database or the disk says is logged and tried again, at most 5 s later."""
        await keep_doing(self._follow, self._tell)

    @staticmethod
    def _tell(error: Exception) -> None:
        log.warning("catalog_not_published", error=str(error), kind=type(error).__name__)

    async def _follow(self) -> None:
        async with own_connection(self._resolve_database, "catalog") as conn:
            # Whatever the file says: it may be damaged, and a restored database has other revisions by the same numbers.
            self._published = None
            moved = asyncio.Event()
            await listen(conn, moved.set)
            while not conn.is_closed():
                # Cleared before looking: a notice that comes while we read is not lost.
                moved.clear()
                await self._publish_if_moved(conn)
                try:
                    await asyncio.wait_for(moved.wait(), POLL_INTERVAL_S)
                except TimeoutError:
                    continue

    async def _publish_if_moved(self, conn: Connection) -> None:
        if await load_revision(conn) == self._published and self._path.exists():
            return
        self._published = await publish_catalog(conn, self._path)
