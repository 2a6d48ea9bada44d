"""A time zone that Python knows and this PostgreSQL does not: one clear line, from the API, the console, as a file too."""

import asyncio
import importlib.resources
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.postgres.connection import connect
from storage.postgres.reports.periods import known_zones
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.api import bearer, open_api
from tests.postgres.consoles import KEYS, Filled, add_hour, fill, log_in, open_console, read

TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
BY_DAY = f"date={TODAY}&timezone="
FROM_API = (
    "/reports?dimensions=date&timezone=", f"/clicks?{BY_DAY}", f"/conversions?metric=conversions&{BY_DAY}",
    f"/contacts?metric=clicks&{BY_DAY}", "/cohorts?timezone=", "/exports/reports?dimensions=date&timezone=",
    f"/exports/clicks?from={TODAY}&{BY_DAY}", f"/exports/clicks?format=parquet&from={TODAY}&{BY_DAY}",
)  # fmt: skip
FROM_CONSOLE = (
    "/reports?dimensions=date&timezone=", f"/reports/clicks?{BY_DAY}", f"/reports/contacts?metric=clicks&{BY_DAY}",
    f"/conversions?{BY_DAY}", f"/contacts?metric=clicks&{BY_DAY}", "/cohorts?timezone=", "/cohorts.csv?timezone=",
    "/cohorts/chart.json?timezone=", "/reports/chart.json?dimensions=date&timezone=", "/reports/export?dimensions=date&timezone=",
    "/exports/reports?dimensions=date&timezone=", f"/exports/clicks?from={TODAY}&filters=date%3D{TODAY}&timezone=",
)  # fmt: skip


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file: a click, a sale and a contact of today."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        filled = fill(url)
        asyncio.run(_name_contacts(url))
        asyncio.run(add_hour(url, datetime.now(UTC).replace(minute=0, second=0, microsecond=0), gross_clicks=1))
        yield filled


async def _name_contacts(url: str) -> None:
    conn = await connect(url)
    await conn.execute("INSERT INTO contacts (contact_id, first_seen_at) VALUES ('anna', now())")
    await conn.execute("UPDATE clicks SET contact_id = 'anna'")
    await conn.execute("UPDATE conversions SET contact_id = 'anna'")
    await conn.close()


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[str]:
    """One that only Python knows, as of a newer release of the tz database."""
    (tmp_path / "Mars").mkdir()
    with importlib.resources.files("tzdata.zoneinfo").joinpath("UTC").open("rb") as known:
        (tmp_path / "Mars" / "Olympus").write_bytes(known.read())
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path), *before])
    known_zones.cache_clear()
    yield "Mars/Olympus"
    zoneinfo.reset_tzpath(before)
    known_zones.cache_clear()


async def test_the_api_names_the_parameter(filled: Filled, data_dir: Path, zone: str) -> None:
    """422, whatever is asked by such days."""
    async with open_api(filled.url, data_dir) as client:
        for path in FROM_API:
            answer = await client.get(f"/api/v1{path}{zone}", headers=bearer(KEYS["admin"][0]))
            problem = await answer.json()
            fields = [one["field"] for one in problem.get("errors", ())]
            assert (answer.status, fields) == (422, ["timezone"]), (path, problem)
            assert "not recognized" in str(problem["errors"]), (path, problem)


async def test_the_console_says_it_in_words(filled: Filled, data_dir: Path, zone: str) -> None:
    """No page takes it for a fault of ours, or for a database that is away."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        for path in FROM_CONSOLE:
            assert "not recognized" in await read(client, path + zone, 422), path
