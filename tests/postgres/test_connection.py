"""Connections, and what their errors mean."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from storage.errors import DatabaseUnusable
from storage.postgres.connection import connect, is_poison, is_retryable, open_pool, resolve_url

ROW: dict[str, Any] = {"a": 1, "b": "x", "c": None, "d": Decimal(1), "e": {}, "g": datetime(2026, 1, 1, tzinfo=UTC)}
TABLE = "CREATE TABLE t (a int, b text, c inet, d numeric(18, 6), e jsonb, g timestamptz)"
WRONG = [
    {"a": 2**40}, {"a": "x"}, {"b": "\ud800"}, {"b": "\0"}, {"b": 5}, {"c": "nonsense"}, {"d": Decimal("1e30")},
    {"d": "x"}, {"e": {"a": "\0"}}, {"e": {"a": "\ud800"}}, {"e": {"a": 2**80}}, {"g": "x"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=ascii)
async def test_a_wrong_value_is_poison_and_leaves_the_connection_usable(database: str, wrong: dict[str, Any]) -> None:
    """Whether the client or the server refuses a value, in COPY or INSERT: the data is at fault, not the database."""
    connection = await connect(database)
    await connection.execute(TABLE)
    row = {**ROW, **wrong}
    with pytest.raises(Exception) as copied:
        await connection.copy_records_to_table("t", records=[tuple(row.values())], columns=list(row))
    with pytest.raises(asyncpg.PostgresError) as inserted:
        await connection.execute("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)", *row.values())
    for error in (copied.value, inserted.value):
        assert is_poison(error)
        assert not is_retryable(error)
    assert await connection.fetchval("SELECT count(*) FROM t") == 0
    await connection.close()


async def test_a_duplicate_and_an_oversized_key_are_poison(database: str) -> None:
    """What an index refuses is the data's fault as well."""
    connection = await connect(database)
    insert = "INSERT INTO external_ids VALUES ($1, gen_random_uuid())"
    await connection.execute(insert, "twice")
    with pytest.raises(asyncpg.UniqueViolationError) as twice:
        await connection.execute(insert, "twice")
    with pytest.raises(asyncpg.ProgramLimitExceededError) as long:
        await connection.fetchval(
            "INSERT INTO external_ids SELECT string_agg(md5(n::text), ''), gen_random_uuid() FROM generate_series(1, 500) n"
        )
    assert is_poison(twice.value)
    assert is_poison(long.value)
    await connection.close()


async def test_a_cut_connection_is_retryable(database: str) -> None:
    """A session ended by the server, and the use of a closed connection, are nobody's data."""
    connection, other = await connect(database), await connect(database)
    errors = []
    await other.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    for _ in range(2):
        try:
            await connection.execute("SELECT 1")
        except Exception as error:
            errors.append(error)
    assert [(is_retryable(error), is_poison(error)) for error in errors] == [(True, False)] * 2
    await other.close()


async def test_json_travels_as_python_values(any_database: str) -> None:
    """A dict goes in by COPY and comes back out."""
    connection = await connect(any_database)
    await connection.execute(TABLE)
    row = {**ROW, "e": {"utm": "ü", "n": [1, None]}}
    await connection.copy_records_to_table("t", records=[tuple(row.values())], columns=list(row))
    assert await connection.fetchval("SELECT e FROM t") == row["e"]
    await connection.close()


async def test_a_pool_s_connections_are_prepared(database: str) -> None:
    """Connections of a pool treat JSON likewise."""
    async with await open_pool(lambda: database) as pool:
        assert await pool.fetchval("SELECT '{\"a\": 1}'::jsonb") == {"a": 1}


async def test_a_pool_follows_the_database_to_where_it_is_now(database: str, short_directory: Path) -> None:
    """The embedded server's socket is in another directory after each of its starts; the pool outlives them all."""
    url = urlsplit(database)
    (real,) = parse_qs(url.query)["host"]
    places = [short_directory / name for name in ("here", "there")]

    def resolve() -> str:
        place = next(one for one in places if one.is_symlink())
        return database.replace(quote(real, safe="/"), str(place))

    places[0].symlink_to(real)
    async with await open_pool(resolve) as pool:
        assert await pool.fetchval("SELECT 1") == 1
        await pool.expire_connections()
        places[0].unlink()
        places[1].symlink_to(real)
        assert await pool.fetchval("SELECT 2") == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("clickedge:", "clickedge:not"),
        lambda url: url.replace("@/", "@/missing_"),
        lambda url: "mysql" + url.removeprefix("postgresql"),
    ],
    ids=["password", "database", "scheme"],
)
async def test_a_refused_connection_is_one_clear_error(database: str, change: Any) -> None:
    """What waiting cannot mend is DatabaseUnusable."""
    with pytest.raises(DatabaseUnusable, match="cannot use the database"):
        await connect(change(database))


def test_without_a_serve_commands_say_so(tmp_path: Path) -> None:
    """No connection file, or one that a killed serve left behind: no running serve; an explicit URL wins."""
    with pytest.raises(DatabaseUnusable, match="no running `clickedge serve`"):
        resolve_url(None, tmp_path)
    (tmp_path / "database.url").write_text(f"postgresql://clickedge:x@/clickedge?host={tmp_path}&port=5432\n")
    with pytest.raises(DatabaseUnusable, match="no running `clickedge serve`"):
        resolve_url(None, tmp_path)
    assert resolve_url("postgresql://elsewhere/db", tmp_path) == "postgresql://elsewhere/db"


def test_commands_find_a_running_serve(postgres_url: str, short_directory: Path) -> None:
    """The connection file of a running server is the answer."""
    assert resolve_url(None, short_directory / "embedded") == postgres_url
