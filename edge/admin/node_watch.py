"""What belongs to the node and not to one of its processes: the journals' disk, the database. Looked at by the admin process."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime

from edge.admin.backend import Backend
from edge.admin.chores import may_pass, own_connection
from edge.counters import Counters, cell
from storage.journal.capacity import undrained_bytes
from storage.postgres.connection import Connection
from storage.postgres.watch import look

DISK_INTERVAL_S = 1.0
DATABASE_INTERVAL_S = 2.0
COMMAND_TIMEOUT_S = 5.0

_MAX_BYTES = cell("edge_journal_max_bytes")
_STREAM_MAX_BYTES = cell("edge_stream_max_bytes")
_UNDRAINED = cell("edge_journal_undrained_bytes")
_FREE = cell("edge_journal_disk_free_bytes")
_UP = cell("edge_database_up")
_ERRORS = cell("edge_database_errors_total")
_IDLE, _USED = (cell("edge_database_pool_connections", state) for state in ("idle", "used"))
_AHEAD = cell("edge_partitions_ahead")
_PUBLISHED = cell("edge_catalog_published_seconds")


class NodeWatch:
    """The job of one admin process."""

    def __init__(self, backend: Backend, resolve_database: Callable[[], str], counters: Counters) -> None:
        """`resolve_database`: where the database is now; asked again after each lost connection."""
        self._backend = backend
        self._resolve_database = resolve_database
        self._root = backend.settings.data_path / "journal"
        self._cells = counters.cells

    async def run(self) -> None:
        """Until cancelled."""
        self._cells[_MAX_BYTES] = self._backend.settings.journal_max_bytes
        self._cells[_STREAM_MAX_BYTES] = self._backend.settings.stream_max_bytes
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(self._watch_disk())
            jobs.create_task(self._watch_database())

    async def _watch_disk(self) -> None:
        """In a thread: the folder may be large, and the disk slow."""
        while True:
            try:
                self._cells[_UNDRAINED], self._cells[_FREE] = await asyncio.to_thread(self._measure_disk)
            except OSError:  # out of descriptors, say: the last figures stand
                pass
            self._cells[_IDLE], self._cells[_USED] = self._backend.count_connections()
            await asyncio.sleep(DISK_INTERVAL_S)

    def _measure_disk(self) -> tuple[int, int]:
        disk = os.statvfs(self._root)
        return undrained_bytes(self._root), disk.f_bavail * disk.f_frsize

    async def _watch_database(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as error:
                if not may_pass(error):
                    raise
            self._cells[_UP] = 0
            self._cells[_ERRORS] += 1
            await asyncio.sleep(DATABASE_INTERVAL_S)

    async def _follow(self) -> None:
        """Until the connection is lost."""
        async with own_connection(self._resolve_database, "watch", COMMAND_TIMEOUT_S) as conn:
            while not conn.is_closed():
                await self.look(conn, datetime.now(UTC))
                await asyncio.sleep(DATABASE_INTERVAL_S)

    async def look(self, conn: Connection, now: datetime) -> None:
        """Take down what the database says at `now`."""
        found = await look(conn, now.date())
        self._cells[_AHEAD] = found.partitions_ahead
        self._cells[_PUBLISHED] = found.catalog_published_s
        self._cells[_UP] = 1
