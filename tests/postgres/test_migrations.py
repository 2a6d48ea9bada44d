"""The migrations, on the embedded server and on Debian's."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from storage.errors import DatabaseUnusable
from storage.postgres.connection import connect
from storage.postgres.migrations import PREVIOUS_RELEASE, Migration, migrate, read_migrations

COLUMNS = {
    "clicks": "click_id clicked_at node_id offer_id aff_id landing_page_id creative_id alias source aff_sub1 aff_sub2"
    " aff_sub3 aff_sub4 aff_sub5 aff_click_id utm_source utm_medium utm_campaign utm_content utm_term contact_id ip"
    " country region city user_agent device_type device_brand os browser language referrer visitor cost payout revenue"
    " currency outcome reason flags extras catalog_revision",
    "conversions": "conversion_id click_id transaction_id offer_id aff_id goal_id converted_at received_at amount"
    " currency revenue payout status reason status_code adv_sub1 adv_sub2 adv_sub3 adv_sub4 adv_sub5"
    " conversion_unique_id promo_code via ip extras catalog_revision node_id advertiser_id landing_page_id creative_id"
    " country device_type touched_at tier",
    "stats_hourly": "hour node_id advertiser_id offer_id aff_id goal_id landing_page_id creative_id country device_type"
    " currency impressions gross_clicks unique_clicks invalid_clicks refused_clicks conversions pending rejected reversed amount"
    " payout revenue cost",
    "journal_positions": "journal_id node_id worker_id segment byte_offset watermark_ms finished_at updated_at partitions",
    "external_ids": "transaction_id click_id",
}
COLUMNS["clicks"] += " first_click_id"
COLUMNS["conversions"] += " contact_id named_click_id erased_at"
COLUMNS["impressions"] = COLUMNS["clicks"]


async def test_a_second_run_finds_nothing_to_do(empty_database: str) -> None:
    """Migrating is idempotent."""
    connection = await connect(empty_database)
    assert await migrate(connection) == [migration.name for migration in read_migrations()]
    assert await migrate(connection) == []
    await connection.close()


async def test_two_at_once_apply_each_file_once(empty_database: str) -> None:
    """M2: concurrent starts neither fail nor apply twice."""
    connections = [await connect(empty_database) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(connection) for connection in connections))
    assert sorted(map(len, applied)) == [0, 0, 0, len(read_migrations())]
    await asyncio.gather(*(connection.close() for connection in connections))


async def test_the_contract_s_columns_are_there(any_database: str) -> None:
    """Users' own SQL finds the names that the design promises, and no column that it does not name."""
    connection = await connect(any_database)
    for table, names in COLUMNS.items():
        rows = await connection.fetch(
            "SELECT attname::text AS name FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped", table
        )  # fmt: skip
        assert sorted(row["name"] for row in rows) == sorted(names.split()), table
    await connection.close()


async def test_a_changed_file_is_refused(any_database: str) -> None:
    """M3: a database built with another text than the file's is left alone."""
    connection = await connect(any_database)
    first, *others = read_migrations()
    with pytest.raises(DatabaseUnusable, match=r"migration 0001 .* is not the file"):
        await migrate(connection, [replace(first, sql=first.sql + "-- edited"), *others])
    await connection.close()


async def test_the_next_release_s_database_is_used_and_a_later_one_s_refused(any_database: str) -> None:
    """M5: nodes may be upgraded one after the other, by one release; two releases on, an older one stops at its start."""
    connection = await connect(any_database)
    ours = read_migrations()
    newest = ours[-1].version
    following = [*ours, Migration(9998, "of_the_next", "CREATE TABLE next ()", works_from=newest)]
    await migrate(connection, following)
    assert await migrate(connection) == []
    await migrate(connection, [*following, Migration(9999, "from_the_future", "CREATE TABLE future ()", works_from=9998)])
    assert await migrate(connection, following) == []
    with pytest.raises(DatabaseUnusable, match=r"9999 .*newer release"):
        await migrate(connection)
    await connection.close()


async def test_a_database_that_says_nothing_of_older_releases_is_refused(any_database: str) -> None:
    """M5: a file that was recorded without `works_from` is taken to need its own release."""
    connection = await connect(any_database)
    await connection.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'unsaid', '')")
    with pytest.raises(DatabaseUnusable, match="9999"):
        await migrate(connection)
    await connection.close()


def test_the_release_before_this_one_is_known_by_its_last_file() -> None:
    """M5: it is one of ours, and those who write the next release's files find it said what they must not break."""
    assert PREVIOUS_RELEASE in {migration.version for migration in read_migrations()}
    assert {migration.works_from for migration in read_migrations()} == {PREVIOUS_RELEASE}


async def test_a_failing_file_leaves_nothing_behind(any_database: str) -> None:
    """M1: a file that fails half-way leaves neither its first half nor a record, and frees the lock."""
    connection = await connect(any_database)
    broken = Migration(9999, "broken", "CREATE TABLE half (); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, [*read_migrations(), broken])
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    other = await connect(any_database)
    assert await migrate(other) == []
    await asyncio.gather(connection.close(), other.close())


async def test_a_migration_gives_up_on_a_locked_table(any_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """M4: a forgotten transaction makes the migration fail; it does not queue everybody behind it."""
    monkeypatch.setattr("storage.postgres.migrations.LOCK_TIMEOUT_S", 0.05)
    holder, connection = await connect(any_database), await connect(any_database)
    alter = Migration(9999, "alter", "ALTER TABLE nodes ADD COLUMN more int")
    async with holder.transaction():
        await holder.execute("LOCK TABLE nodes IN ACCESS SHARE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await migrate(connection, [*read_migrations(), alter])
    await asyncio.gather(holder.close(), connection.close())
