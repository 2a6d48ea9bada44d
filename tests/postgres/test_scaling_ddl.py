"""The layout for Citus in docs/scaling.md: its plain statements run, and what Citus asks of the tables is so."""

import re
from pathlib import Path

import asyncpg
import pytest

from storage.postgres.connection import connect

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```sql\n(-- .*?)^```$", re.DOTALL | re.MULTILINE)
_DISTRIBUTED = re.compile(r"create_distributed_table\('(\w+)', '(\w+)'(?:, colocate_with => '(\w+)')?\)")
_REFERENCE = re.compile(r"create_reference_table\('(\w+)'\)")
_PLAIN, _CITUS, _CLICKHOUSE = "-- Plain PostgreSQL", "-- Citus, not run", "-- ClickHouse, not run"

_UNIQUE_KEYS = """
    SELECT indexrelid::regclass::text AS name, array_agg(attname::text) AS columns
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey::int2[])
    WHERE indrelid = $1::text::regclass AND indisunique GROUP BY 1
"""
_TYPE = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2"


def blocks(kind: str) -> list[str]:
    return [block for block in _BLOCK.findall(PAGE) if block.startswith(kind)]


async def changed(database: str) -> asyncpg.Connection:
    """The product's schema, and what the page changes in it."""
    conn = await connect(database)
    for block in blocks(_PLAIN):
        await conn.execute(block)
    return conn


def test_every_statement_says_whether_it_was_run() -> None:
    """There is no block of SQL without its first line, and each kind is there."""
    assert len(_BLOCK.findall(PAGE)) == PAGE.count("```sql") == sum(map(len, map(blocks, (_PLAIN, _CITUS, _CLICKHOUSE))))
    assert all(blocks(kind) for kind in (_PLAIN, _CITUS, _CLICKHOUSE))


async def test_each_distribution_column_is_in_every_unique_key(database: str) -> None:
    """Citus refuses a table of which this is not so; and a column that may be NULL has no shard."""
    conn = await changed(database)
    try:
        for block in blocks(_CITUS):
            for table, column, _ in _DISTRIBUTED.findall(block):
                keys = await conn.fetch(_UNIQUE_KEYS, table)
                assert [row["name"] for row in keys if column not in row["columns"]] == [], table
                assert await conn.fetchval(
                    "SELECT attnotnull FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2", table, column
                ), table
    finally:
        await conn.close()


async def test_without_the_page_s_changes_the_second_step_is_impossible(database: str) -> None:
    """The changes are there for a reason: conversion_changes has a key without the conversion."""
    conn = await connect(database)
    try:
        keys = await conn.fetch(_UNIQUE_KEYS, "conversion_changes")
        assert any("conversion_id" not in row["columns"] for row in keys)
    finally:
        await conn.close()


async def test_tables_that_lie_together_are_hashed_alike(database: str) -> None:
    """`colocate_with` names a table that was distributed before, by a column of the same type."""
    conn = await changed(database)
    types: dict[str, str] = {}
    try:
        for table, column, beside in _DISTRIBUTED.findall("".join(blocks(_CITUS))):
            types[table] = await conn.fetchval(_TYPE, table, column)
            assert beside in {"", "none"} or types[table] == types[beside], table
        assert len(types) == len(_DISTRIBUTED.findall("".join(blocks(_CITUS))))
    finally:
        await conn.close()


async def test_reference_tables_exist_and_are_not_distributed_as_well(database: str) -> None:
    """A table is one or the other."""
    names = _REFERENCE.findall("".join(blocks(_CITUS)))
    distributed = {table for table, _, _ in _DISTRIBUTED.findall("".join(blocks(_CITUS)))}
    conn = await connect(database)
    try:
        assert names
        for name in names:
            assert await conn.fetchval("SELECT to_regclass($1::text) IS NOT NULL", name), name
    finally:
        await conn.close()
    assert distributed.isdisjoint(names)


@pytest.mark.parametrize("table", ["conversion_changes", "postback_outbox", "postback_log"])
async def test_changed_tables_still_refuse_the_same_row_twice(database: str, table: str) -> None:
    """The new primary keys hold what the old ones did, within a conversion."""
    conn = await changed(database)
    try:
        keys = await conn.fetch(_UNIQUE_KEYS, table)
        assert all("conversion_id" in row["columns"] for row in keys)
        assert len(keys) == 2
    finally:
        await conn.close()
