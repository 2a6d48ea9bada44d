"""How long a list may take."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from storage.errors import StorageError
from storage.postgres.connection import Connection
from storage.postgres.reports.query import Fault, QueryRefused

TIMEOUT_S = 30


class TooSlow(StorageError):
    """It was given up; a shorter period would not be."""

    def __init__(self) -> None:
        super().__init__(f"that took more than {TIMEOUT_S} s: ask for a shorter period")


@asynccontextmanager
async def in_time(conn: Connection) -> AsyncIterator[None]:
    """One snapshot for what is read in this block, each statement within 30 s; TooSlow.

    QueryRefused: PostgreSQL does not know the time zone.
    """
    try:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(f"SET LOCAL statement_timeout = {TIMEOUT_S * 1000}")
            yield
    except asyncpg.QueryCanceledError as error:
        raise TooSlow from error
    except asyncpg.InvalidParameterValueError as error:
        raise QueryRefused([Fault("timezone", str(error))]) from error
