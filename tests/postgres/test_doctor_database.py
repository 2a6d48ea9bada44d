"""`doctor`'s look at a database: each fault is there for real, in a real one."""

import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import asyncpg
import pytest

from edge.doctor import database as looks
from edge.doctor.database import check_database
from edge.doctor.findings import Finding
from edge.doctor.installation import Installation
from edge.node import claim_lease, secret_prints
from edge.settings import Settings
from storage.postgres.connection import Connection, connect
from storage.postgres.inspection import open_for_looking
from storage.postgres.installation import remember
from storage.postgres.nodes import claim_node
from storage.postgres.partitions import Partitions
from storage.postgres.positions import register
from tests.node import free_port

SECRET = "5f0c1e9b7a2d4c3e8f6a5b4c3d2e1f00"


def make_found(data_dir: Path, url: str, *, serve_pid: int | None = None, **settings: Any) -> Installation:
    """A node with that database; `serve_pid`: as if it ran."""
    data_dir.mkdir(exist_ok=True)
    values = {"secrets": (SECRET,), "node_id": 3, **settings}
    return Installation(Settings(data_dir=str(data_dir), database_url=url, **values), None, serve_pid)


async def look(found: Installation) -> dict[str, list[Finding]]:
    """What is said, by subject."""
    said: dict[str, list[Finding]] = {}
    for finding in await check_database(found):
        said.setdefault(finding.name, []).append(finding)
    return said


def states(said: dict[str, list[Finding]], name: str) -> list[str]:
    """How a subject stands."""
    return [finding.state for finding in said[name]]


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    """A connection that brings the faults about."""
    conn = await connect(database)
    yield conn
    conn.terminate()


async def test_a_good_database_is_ok_in_everything_but_what_the_tests_turn_off(
    any_database: str, data_dir: Path
) -> None:
    """Migrated, with partitions and our lease; the tests' servers run without fsync, and that is told as what it is."""
    found = make_found(data_dir, any_database)
    await claim_lease(found.settings, any_database)
    conn = await connect(any_database)
    await Partitions().ensure_ahead(conn, datetime.now(UTC).date())
    await conn.close()
    said = await look(found)
    assert [one.found for name in said for one in said[name] if one.state != "ok"] == [
        "fsync is off: a power cut can destroy the database",
        "full_page_writes is off: a power cut can destroy the database",
    ]
    assert said["database"][0].found.startswith("PostgreSQL 1")
    assert said["node lease"][0].found == "node id 3 is this data dir's"


async def test_a_database_that_is_away_is_one_line(data_dir: Path) -> None:
    """Nobody listens there; the password is not repeated."""
    said = await look(make_found(data_dir, f"postgresql://u:hunter22@127.0.0.1:{free_port()}/x"))
    assert states(said, "database") == ["fail"]
    assert "does not answer" in said["database"][0].found
    assert "hunter22" not in str(said)


async def test_a_refusal_says_why(data_dir: Path, database: str) -> None:
    """A database of that name is not there."""
    name = database.split("@/")[1].split("?", maxsplit=1)[0]
    said = await look(make_found(data_dir, database.replace(f"@/{name}?", "@/nowhere?")))
    assert said["database"][0].found == 'cannot use the database: database "nowhere" does not exist'


async def test_the_embedded_database_of_a_stopped_node_is_left_out(data_dir: Path) -> None:
    """There is nothing to look at, and that is no fault; with serve running it is one."""
    [finding] = await check_database(make_found(data_dir, ""))
    assert (finding.state, finding.found) == ("skipped", "the embedded one runs only with serve")
    [finding] = await check_database(make_found(data_dir, "", serve_pid=1))
    assert (finding.state, "no running `clickedge serve`" in finding.found) == ("fail", True)


async def test_nothing_can_be_written_while_looking(database: str) -> None:
    """The session itself refuses."""
    async with open_for_looking(database) as conn:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await remember(conn, "x", "y")


async def test_old_new_and_missing_tables_are_told_apart(
    database: str, empty_database: str, data_dir: Path, conn: Connection
) -> None:
    """Empty: the next start makes them, a running one should have; one missing; one of a newer release."""
    said = await look(make_found(data_dir, empty_database))
    assert states(said, "migrations") == ["warn"]
    assert said["migrations"][0].found.endswith("are not applied, from tables on")
    await conn.execute("DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)")
    said = await look(make_found(data_dir, database, serve_pid=1))
    assert said["migrations"][0].found.startswith("1 are not applied, from ")
    assert states(said, "migrations") == ["fail"]
    await conn.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'later', '')")
    said = await look(make_found(data_dir, database))
    assert "newer release" in said["migrations"][0].found
    assert states(said, "migrations") == ["fail"]


async def test_partitions_that_are_missing_fail_beside_a_running_drain(
    database: str, data_dir: Path, conn: Connection
) -> None:
    """Before the start the drain will make them; beside a running one today's missing is a failure, next week's a warning."""
    assert states(await look(make_found(data_dir, database)), "partitions") == ["warn"]
    assert states(await look(make_found(data_dir, database, serve_pid=1)), "partitions") == ["fail"]
    today = datetime.now(UTC).date()
    await Partitions().ensure(conn, [today + timedelta(days=ahead) for ahead in range(3)])
    assert states(await look(make_found(data_dir, database, serve_pid=1)), "partitions") == ["warn"]


async def test_a_lease_of_another_data_dir_and_a_strange_secret_fail(
    database: str, data_dir: Path, conn: Connection
) -> None:
    """Another machine has the id; ours, but signed with another secret; nobody's."""
    found = make_found(data_dir, database)
    assert (await look(found))["node lease"][0].found == "node id 3 is free"
    await claim_node(conn, node_id=3, data_dir_id=uuid4(), secret_prints=secret_prints(found.settings))
    said = await look(found)
    assert states(said, "node lease") == ["fail"]
    assert "DELETE FROM nodes WHERE node_id = 3" in said["node lease"][0].advice
    await conn.execute("DELETE FROM nodes")
    await claim_lease(found.settings, database)
    assert states(await look(found), "node lease") == ["ok"]
    other = make_found(data_dir, database, secrets=("another-secret-of-32-characters!",))
    assert "the secret is another one" in (await look(other))["node lease"][0].found


async def test_a_journal_that_is_nowhere_is_named(database: str, data_dir: Path, conn: Connection) -> None:
    """The database waits for it, and this disk does not have it."""
    journal_id = UUID(int=7)
    await register(conn, [(journal_id, 3, 0), (UUID(int=8), 4, 0)])
    [finding] = (await look(make_found(data_dir, database)))["positions"]
    assert (finding.state, journal_id.hex in finding.found) == ("warn", True)
    await conn.execute(finding.advice.partition("lost: ")[2])
    assert states(await look(make_found(data_dir, database)), "positions") == ["ok"]


async def test_streamed_journals_that_stand_still_are_told_by_node(database: str, data_dir: Path, conn: Connection) -> None:
    """Of any node, since nobody there may be able to say it; what goes on, is finished or is not streamed is not."""
    now_ms, old_ms = int(time.time() * 1000), 1_700_000_000_000
    rows = [
        (UUID(int=1), 9, 16, old_ms, None), (UUID(int=2), 9, 16, 0, None), (UUID(int=3), 5, 16, now_ms, None),
        (UUID(int=4), 5, 16, old_ms, datetime.now(UTC)), (UUID(int=5), 5, 0, old_ms, None), (UUID(int=6), 3, 16, now_ms, None),
    ]  # fmt: skip
    begun = (UUID(int=7), 4, 16, 0, None)
    await conn.executemany(
        "INSERT INTO journal_positions (journal_id, node_id, partitions, watermark_ms, finished_at, worker_id, segment,"
        " byte_offset, updated_at) VALUES ($1, $2, $3, $4, $5, 0, 1, 0, now() - $6 * interval '1 hour')",
        [*((*row, 1.0) for row in rows), (*begun, 0.0)],
    )
    said = await look(make_found(data_dir, database))
    [finding] = said["streamed journals"]
    assert finding.state == "warn"
    assert finding.found.startswith("2 of node 9 are not finished and have stood still since 2023-11-14 22:13 UTC")
    assert states(said, "positions") == ["ok"]
    await conn.execute("DELETE FROM journal_positions WHERE node_id = 9")
    assert "streamed journals" not in await look(make_found(data_dir, database))
    streamed = make_found(data_dir, database, stream_url="nats://127.0.0.1:1")
    assert states(await look(streamed), "streamed journals") == ["ok"]


async def test_what_was_left_behind_is_counted(
    database: str, data_dir: Path, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record in quarantine, a transaction that somebody forgot, another time zone, an old backup."""
    await conn.execute(
        "INSERT INTO quarantine (journal_id, segment, byte_offset, error, raw) VALUES ($1, 1, 2, 'x', '')", uuid4()
    )
    await remember(conn, "timezone", "Europe/Berlin")
    await remember(conn, "backed_up_at", (datetime.now(UTC) - timedelta(hours=26)).isoformat())
    forgotten = await connect(database, application_name="forgotten")
    await forgotten.execute("BEGIN; SELECT 1")
    monkeypatch.setattr(looks, "OLD_TRANSACTION_S", 0.0)
    said = await look(make_found(data_dir, database))
    assert {name: states(said, name) for name in ("quarantine", "transactions", "time zones", "backup")} == {
        "quarantine": ["warn"],
        "transactions": ["warn"],
        "time zones": ["warn"],
        "backup": ["warn"],
    }
    assert "forgotten (process" in said["transactions"][0].found
    assert (
        said["backup"][0].found
        == "the last is 1.1 days old, drained journals are kept for 1.0 hours: a restore would miss the difference"
    )
    forgotten.terminate()


async def test_a_role_without_rights_and_a_database_that_takes_no_writes_fail(
    database: str, data_dir: Path, conn: Connection
) -> None:
    """A reader's account: it owns no table and may make none; a database that is read only by default."""
    name = f"reader_{uuid4().hex[:8]}"
    await conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter22'")
    try:
        await conn.execute(
            f"GRANT USAGE ON SCHEMA public TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"
        )
        login, _, place = database.partition("://")[2].partition("@")
        assert login
        url = f"postgresql://{name}:{quote('hunter22')}@{place}"
        said = await look(make_found(data_dir, url))
        assert states(said, "rights") == ["fail"]
        assert f"{name} may make no tables" in said["rights"][0].found
        await conn.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
        assert "tables are another role's" in (await look(make_found(data_dir, url)))["rights"][0].found
        await conn.execute(f"ALTER ROLE {name} SET default_transaction_read_only = on")
        found = [one.found for one in (await look(make_found(data_dir, url)))["database"]]
        assert "it takes no writes (a replica, or read only by default)" in found
    finally:
        await conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_clock_that_differs_from_the_databases_is_told(
    database: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By seconds a warning, by minutes a failure."""
    real = time.time
    for seconds, state in ((5, "warn"), (-300, "fail")):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda seconds=seconds: real() + seconds)
            [finding] = (await look(make_found(data_dir, database)))["clock"]
        assert finding.state == state
        found = re.fullmatch(r"the database's is ([0-9.]+) s (behind|ahead of) ours", finding.found)
        assert found
        assert float(found[1]) == pytest.approx(abs(seconds), abs=0.5)
