"""The database brought up to this code: at the start, and by a process of the new code before it replaces the old."""

import asyncio

import structlog

from edge.counters import Counters
from edge.processes import ChildOrders
from storage.errors import StorageError
from storage.postgres.connection import connect, is_retryable
from storage.postgres.migrations import migrate

log = structlog.get_logger()

PATIENCE_S = 30.0
PAUSE_S = 1.0
MIGRATION_S = 3600.0
"""How long a process may migrate, once it has the database."""


async def migrate_database(url: str) -> None:
    """Apply what is missing. DatabaseUnusable when database and code do not fit; errors of asyncpg while it is away."""
    conn = await connect(url)
    try:
        await migrate(conn)
    finally:
        await conn.close()


async def run_migration(orders: ChildOrders, counters: Counters) -> None:
    """Be the process that migrates, and ends. StorageError: it could not, for half a minute or for good."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + PATIENCE_S
    while True:
        try:
            await migrate_database(orders.resolve_database())
            return
        except Exception as error:
            if not is_retryable(error):
                raise
            if loop.time() > deadline_s:
                raise StorageError(f"the database could not be migrated: {error}") from error
            log.warning("migration_postponed", error=str(error))
            await asyncio.sleep(PAUSE_S)
