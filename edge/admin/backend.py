"""What the API and the console work with: the database, the settings, the processes' counters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from edge.admin.authentication import KeyRing
from edge.admin.catalog_cache import CatalogCache
from edge.admin.metrics import Slot
from edge.counters import Counters, cell
from edge.errors import UserError
from edge.settings import Settings
from storage.errors import StorageError
from storage.postgres.connection import Connection, Pool, is_retryable, open_pool

MAX_CONNECTIONS = 8
MAX_SLOW = 5
"""So many connections may be busy with reports, lists and exports; the others stay for log-ins, health and changes."""
_WAIT_S = 10.0
_COMMAND_TIMEOUT_S = 60.0
_ERRORS = cell("edge_database_errors_total")
_bound: ContextVar[tuple[asyncio.Task[Any] | None, Connection] | None] = ContextVar("bound", default=None)


class DatabaseAway(UserError):
    """The database does not answer; the same request may succeed later."""


class Backend:
    """One for the admin process. The database may come later than the process, and go and return."""

    def __init__(
        self,
        settings: Settings,
        resolve_database: Callable[[], str],
        slots: Sequence[Slot] = (),
        counters: Counters | None = None,
    ) -> None:
        """`resolve_database`: where the database is now; asked when connections are opened. `counters`: this process's."""
        self.settings = settings
        self.slots = slots
        self._cells = (counters or Counters.private()).cells
        self.catalogs = CatalogCache()
        self.keys = KeyRing()
        self._resolve_database = resolve_database
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._slow = asyncio.Semaphore(MAX_SLOW)

    @asynccontextmanager
    async def slow_connection(self) -> AsyncIterator[Connection]:
        """A connection for what may take seconds, of which there are fewer; DatabaseAway if all stay in use."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._slow.acquire()
        except TimeoutError as error:
            raise DatabaseAway(f"{MAX_SLOW} reports or lists are being made already") from error
        try:
            async with self.connection() as conn:
                yield conn
        finally:
            self._slow.release()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for this block, inside `transaction` its own; DatabaseAway if there is none to be had."""
        bound = _bound.get()
        if bound is not None and bound[0] is asyncio.current_task():
            yield bound[1]
            return
        try:
            pool = await self._opened()
            conn = await pool.acquire(timeout=_WAIT_S)
        except Exception as error:
            if not (isinstance(error, StorageError | OSError | TimeoutError) or is_retryable(error)):
                raise
            self._cells[_ERRORS] += 1
            raise DatabaseAway("the database does not answer") from error
        try:
            yield conn
        except Exception as error:
            # A reader that went away says ConnectionError too.
            is_reader_s = isinstance(error, ConnectionError) and not conn.is_closed()
            self._cells[_ERRORS] += is_retryable(error) and not is_reader_s
            raise
        finally:
            await pool.release(conn)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction in which everything happens that this task does with `connection` in this block."""
        async with self.connection() as conn, conn.transaction():
            # Only for this very task: one that it starts lives on when the connection is somebody else's.
            mark = _bound.set((asyncio.current_task(), conn))
            try:
                yield conn
            finally:
                _bound.reset(mark)

    def count_connections(self) -> tuple[int, int]:
        """Open connections: idle ones, and those in use."""
        pool = self._pool
        if pool is None:
            return 0, 0
        idle = pool.get_idle_size()
        return idle, pool.get_size() - idle

    async def close(self) -> None:
        """Close all connections, at once."""
        if self._pool is not None:
            self._pool.terminate()

    async def _opened(self) -> Pool:
        if self._pool is None:
            async with self._opening:
                self._pool = self._pool or await self._open()
        return self._pool

    async def _open(self) -> Pool:
        return await open_pool(
            self._resolve_database,
            max_size=MAX_CONNECTIONS,
            application_name="clickedge admin",
            command_timeout_s=_COMMAND_TIMEOUT_S,
        )
