"""Benches for the drain's tests: see drains.py. A database of contacts: see people.py."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import Server, fresh_database
from tests.postgres.drains import Bench, open_bench
from tests.postgres.people import Tables, make_town


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
