"""An export's rows, read from one snapshot without ever holding more than a few thousand of them.

By a cursor, not by COPY TO: asyncpg's `copy_from_query` leaves a connection that hangs when who takes the bytes fails
after the last of them came, and fails itself when that one is slow (asyncpg issue 240).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from storage.postgres.connection import Connection
from storage.postgres.exports.selecting import Query
from storage.postgres.reports.query import Fault, QueryRefused

BATCH_ROWS = 5000
TIMEOUT_S = 24 * 3600.0
"""The reader sets the pace; who waits for it has a limit of its own."""


@asynccontextmanager
async def snapshot(conn: Connection) -> AsyncIterator[None]:
    """All that is read within is of one moment, and nothing is changed. QueryRefused: PostgreSQL does not know the zone."""
    transaction = conn.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    try:
        # Who reads may pause, as a pager does; the API has a limit of its own.
        await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield
    except asyncpg.InvalidParameterValueError as error:  # it knows fewer zones than Python
        raise QueryRefused([Fault("timezone", str(error))]) from error
    finally:
        if not conn.is_closed():
            await transaction.rollback()


async def estimate_rows(conn: Connection, query: Query) -> int:
    """About how many rows there will be, as the planner thinks."""
    [plan] = msgspec.json.decode(await conn.fetchval(f"EXPLAIN (FORMAT JSON) {query.sql}", *query.arguments))
    return int(plan["Plan"]["Plan Rows"])


async def read_batches(conn: Connection, query: Query) -> AsyncIterator[list[Any]]:
    """Rows, some thousands at a time; within a snapshot."""
    statement = await conn.prepare(query.sql, timeout=TIMEOUT_S)
    cursor = await statement.cursor(*query.arguments, timeout=TIMEOUT_S)
    while rows := await cursor.fetch(BATCH_ROWS, timeout=TIMEOUT_S):
        yield rows
