"""Benches for the drain's tests: see drains.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.postgres.drains import Bench, open_bench


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
