"""What has been kept long enough is taken away: days of clicks as partitions, rows of other tables in batches."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from edge.admin.retention import Retention
from edge.counters import Counters, cell
from edge.tracking.click_id import ms_of
from storage.postgres.connection import Connection
from storage.postgres.partitions import Partitions
from storage.postgres.retention import find_days
from storage.postgres.rollups import begin_rollups, pass_hours, sum_days
from tests.node import eventually
from tests.postgres.drains import Bench, Scribe, now_ms
from tests.rollup_recount import rollup_differences

DAY_MS = 86_400_000
KEPT_S = 5 * 86400
"""So a click of eight days ago is too old, and one of three is not."""


def retention(kept_s: int = KEPT_S) -> Retention:
    """The job, without its pauses."""
    job = Retention(lambda: "", kept_s, Counters.private())
    job._pause_s = 0
    return job


def days_ago(days: float) -> int:
    """Unix milliseconds."""
    return now_ms() - int(days * DAY_MS)


async def store_days(bench: Bench, *days: float, clicks: int = 3) -> dict[float, list[bytes]]:
    """Clicks and a view of each of these days; the clicks' ids by day."""
    scribe = bench.scribe()
    stored = {}
    for day in sorted(days, reverse=True):
        fields: dict[str, Any] = {"ms": days_ago(day), "params": {"utm_campaign": "spring", "aff_sub1": "x"}}
        stored[day] = [scribe.click(**fields) for _ in range(clicks)]
        scribe.impression(ms=days_ago(day))
    await bench.drain()
    return stored


async def tables(bench: Bench) -> list[str]:
    """The days' tables that there are, attached or not."""
    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(clicks|impressions)_[0-9]{8}$' ORDER BY 1"
    return [row[0] for row in await bench.rows(query)]


def table_of(click_id: bytes, parent: str = "clicks") -> str:
    """Its day's table."""
    return f"{parent}_{datetime.fromtimestamp(ms_of(click_id) / 1000, UTC):%Y%m%d}"


async def test_old_days_are_dropped_and_nothing_else(bench: Bench) -> None:
    """K1: clicks and views of days before the retention go with their tables; the others and all sums stay."""
    stored = await store_days(bench, 9, 8, 3, 0)
    sums = await bench.rows("SELECT * FROM stats_hourly ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")
    job = retention()
    assert await job.retain(await bench.connect(), datetime.now(UTC))
    assert await bench.ids() == sorted(stored[3] + stored[0])
    left = await tables(bench)
    assert not {table_of(stored[day][0], parent) for day in (9, 8) for parent in ("clicks", "impressions")} & set(left)
    assert await bench.value("SELECT count(*) FROM impressions") == 2
    assert await bench.rows("SELECT * FROM stats_hourly ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11") == sums
    assert job._cells[cell("edge_retention_partitions_total", "clicks")] == 2
    assert job._cells[cell("edge_retention_done_seconds")] > now_ms() - 60_000
    assert await retention().retain(await bench.connect(), datetime.now(UTC)), "a second round finds nothing to do"
    assert await tables(bench) == left
