"""Daily partitions, on the embedded server and on Debian's."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from storage.postgres.connection import connect, is_missing_partition, is_poison, is_retryable
from storage.postgres.partitions import Partitions, day_of_id, id_range

DAY = date(2026, 11, 21)


def id_at(moment: datetime) -> UUID:
    """Some id of that millisecond."""
    return UUID(int=(round(moment.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | 12345)


async def insert_click(connection: Any, moment: datetime) -> None:
    """A click with nothing but what must be there."""
    await connection.execute(
        "INSERT INTO clicks (click_id, clicked_at, node_id, offer_id, aff_id, outcome)"
        " VALUES ($1, $2, 0, 1, 1, 'redirected')",
        id_at(moment),
        moment,
    )


async def plan_of(connection: Any, condition: str) -> set[str]:
    """The partitions that a query on clicks would read."""
    rows = await connection.fetch(f"EXPLAIN (COSTS OFF) SELECT count(*) FROM clicks WHERE {condition}")
    return set(re.findall(r"clicks_\d{8}(?!_)\b", "\n".join(row[0] for row in rows)))


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 11, 21, tzinfo=UTC), DAY),
        (datetime(2026, 11, 21, 23, 59, 59, 999000, tzinfo=UTC), DAY),
        (datetime(2026, 11, 22, tzinfo=UTC), DAY + timedelta(days=1)),
    ],
)
def test_an_id_belongs_to_the_day_of_its_millisecond(moment: datetime, day: date) -> None:
    """P1, at both ends of a day."""
    first, following = id_range(day)
    assert day_of_id(id_at(moment).bytes) == day
    assert first <= id_at(moment) < following


async def test_rows_land_in_their_day(any_database: str) -> None:
    """Rows inserted into the parent are found in the partition of their id's day, at the day's edges too."""
    connection = await connect(any_database)
    await Partitions().ensure(connection, [DAY])
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    for moment in (midnight, midnight + timedelta(days=1) - timedelta(milliseconds=1)):
        await insert_click(connection, moment)
    assert await connection.fetchval("SELECT count(*) FROM clicks_20261121") == 2
    await connection.close()


async def test_ids_and_times_both_prune(any_database: str) -> None:
    """P2: a range of either reads one partition of nine."""
    connection = await connect(any_database)
    await Partitions().ensure_ahead(connection, DAY)
    first, following = id_range(DAY)
    by_id = f"click_id >= '{first}' AND click_id < '{following}'"
    by_time = "clicked_at >= '2026-11-21T00:00Z' AND clicked_at < '2026-11-22T00:00Z'"
    assert len(await plan_of(connection, "true")) == 9
    assert await plan_of(connection, by_id) == {"clicks_20261121"}
    assert await plan_of(connection, by_time) == {"clicks_20261121"}
    await connection.close()


async def test_concurrent_creators_do_not_fail(any_database: str) -> None:
    """Drains that need the same new days at once all go on."""
    connections = [await connect(any_database) for _ in range(6)]
    days = [DAY + timedelta(days=offset) for offset in range(5)]
    await asyncio.gather(*(Partitions().ensure(connection, days) for connection in connections))
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'clicks'::regclass"
    assert await connections[0].fetchval(count) == 5
    await asyncio.gather(*(connection.close() for connection in connections))


async def test_attaching_waits_for_no_reader_nor_writer(any_database: str) -> None:
    """P3: a transaction that has read and written the table does not hold up a new day."""
    busy, connection = await connect(any_database), await connect(any_database)
    await Partitions().ensure(busy, [DAY])
    async with busy.transaction():
        await insert_click(busy, datetime(2026, 11, 21, tzinfo=UTC))
        await busy.fetchval("SELECT count(*) FROM clicks")
        async with asyncio.timeout(20):
            await Partitions().ensure(connection, [DAY + timedelta(days=1)])
    await asyncio.gather(busy.close(), connection.close())


async def test_a_missing_partition_is_no_fault_of_the_row(any_database: str) -> None:
    """A row without a partition is retried, not quarantined; a wrong value is."""
    connection = await connect(any_database)
    partitions = Partitions()
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    await partitions.ensure(connection, [DAY])
    await connection.execute("DROP TABLE clicks_20261121")
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await insert_click(connection, moment)
    assert is_missing_partition(caught.value)
    assert is_retryable(caught.value)
    assert not is_poison(caught.value)
    partitions.forget()
    await partitions.ensure(connection, [DAY])
    await insert_click(connection, moment)
    with pytest.raises(asyncpg.CheckViolationError) as wrong:
        await connection.execute("UPDATE clicks SET clicked_at = clicked_at - interval '1 day'")
    assert is_poison(wrong.value)
    await connection.close()


async def test_a_detached_day_is_attached_again(any_database: str) -> None:
    """A day that retention has detached but not yet dropped takes late rows again."""
    connection = await connect(any_database)
    await Partitions().ensure(connection, [DAY])
    await connection.execute("ALTER TABLE clicks DETACH PARTITION clicks_20261121")
    await Partitions().ensure(connection, [DAY])
    await insert_click(connection, datetime(2026, 11, 21, tzinfo=UTC))
    await connection.close()


async def test_partitions_are_not_made_inside_a_transaction(database: str) -> None:
    """What a rollback would undo is never remembered."""
    connection = await connect(database)
    async with connection.transaction():
        with pytest.raises(RuntimeError, match="outside"):
            await Partitions().ensure(connection, [DAY])
    await connection.close()
