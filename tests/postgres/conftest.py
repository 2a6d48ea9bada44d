"""Benches for the drain's tests: see drains.py; a month for those of reports: see report_month.py; contacts: see people.py."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.postgres.connection import Connection, connect
from tests.conftest import _TEMPLATE, Server, _fresh_database, fresh_database
from tests.postgres.drains import Bench, open_bench
from tests.postgres.people import Tables, make_town
from tests.postgres.report_month import make_month
from tests.postgres.report_recount import flatten


@pytest.fixture
async def bench(data_dir: Path, any_database: str) -> AsyncIterator[Bench]:
    """A bench on the embedded server, and again on Debian's."""
    async with open_bench(data_dir, any_database) as opened:
        yield opened


@pytest.fixture
async def embedded_bench(data_dir: Path, database: str) -> AsyncIterator[Bench]:
    """A bench on the embedded server."""
    async with open_bench(data_dir, database) as opened:
        yield opened


@pytest.fixture(scope="session")
def town(embedded_server: Server, short_directory: Path) -> Iterator[tuple[str, Tables]]:
    """A database with contacts, for all tests that change nothing of them; its URL and all of its rows."""
    for url in fresh_database(embedded_server):
        yield url, asyncio.run(make_town(short_directory / "town", url))


@pytest.fixture(scope="session")
def month_url(embedded_server: Server, short_directory: Path) -> Iterator[str]:
    """A database with a month of everything, and its flat table; tests of reports share it and only read."""

    async def make(url: str) -> None:
        await make_month(short_directory / f"reports-{uuid.uuid4().hex[:8]}", url)
        conn = await connect(url)
        await flatten(conn)
        await conn.close()

    for url in _fresh_database(embedded_server, _TEMPLATE):
        embedded_server.runner.run(make(url))
        yield url


@pytest.fixture
async def month(month_url: str) -> AsyncIterator[Connection]:
    """A connection to it."""
    conn = await connect(month_url)
    yield conn
    conn.terminate()
