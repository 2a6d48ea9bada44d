"""What the admin process keeps doing for the node: each chore on a connection of its own, begun anew whenever that is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from storage.errors import StorageError
from storage.postgres.connection import Connection, connect, is_retryable

SHORTEST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
_COMMAND_TIMEOUT_S = 60.0


@asynccontextmanager
async def own_connection(
    resolve_database: Callable[[], str], name: str, command_timeout_s: float = _COMMAND_TIMEOUT_S
) -> AsyncIterator[Connection]:
    """A connection by the name `clickedge NAME`, to where the database is now. DatabaseUnusable or asyncpg's errors."""
    conn = await connect(
        resolve_database(), application_name=f"clickedge {name}", command_timeout_s=command_timeout_s
    )
    try:
        yield conn
    finally:
        conn.terminate()


def may_pass(error: Exception) -> bool:
    """Whether it is the database's or the disk's, and trying again may help."""
    return isinstance(error, StorageError | OSError) or is_retryable(error)


async def keep_doing(
    chore: Callable[[], Awaitable[None]],
    tell: Callable[[Exception], None],
    *,
    shortest_s: float = SHORTEST_PAUSE_S,
    longest_s: float = LONGEST_PAUSE_S,
) -> None:
    """Until cancelled. `tell` hears of errors that may pass, others are raised; the pauses double while it ends soon."""
    pause_s = shortest_s
    while True:
        began_s = time.monotonic()
        try:
            await chore()
        except Exception as error:
            if not may_pass(error):
                raise
            tell(error)
        if time.monotonic() - began_s > longest_s:
            pause_s = shortest_s
        await asyncio.sleep(pause_s)
        pause_s = min(longest_s, pause_s * 2)
