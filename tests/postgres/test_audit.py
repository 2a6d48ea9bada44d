"""The audit log and erasures over the API, the console and commands: who did what, without secrets and without people."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner

from edge.admin.auditing import FAILURES_WRITTEN, LogIns
from edge.admin.backend import Backend
from edge.cli.audit import audit
from edge.cli.erase import erase_command
from edge.cli.key import create as create_key
from edge.cli.serve import apply_and_write
from edge.settings import Settings
from storage.postgres.audit import Entry, Filter, add_entry, list_entries
from storage.postgres.connection import Connection, connect
from storage.postgres.retention import BATCHES
from tests.postgres.api import Client, add_key, bearer, open_api
from tests.postgres.drains import SECRET, open_bench

KEY = "the admin's own key"
PARTNER = '[[partners]]\nid = 2\nname = "P"'


@pytest.fixture
async def api(data_dir: Path, database: str) -> AsyncIterator[Client]:
    """The API with an admin's key and one of a partner."""
    data_dir.mkdir()
    await add_key(database, KEY)
    await add_key(database, "a partner's", "partner", aff_id=2)
    async with open_api(database, data_dir, secrets=(SECRET,)) as client:
        yield client


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    """A connection to look with."""
    opened = await connect(database)
    yield opened
    opened.terminate()


async def entries(conn: Connection) -> list[tuple[str, str, dict[str, Any]]]:
    """All of the log: action, subject, detail; the earliest first."""
    return [(one.action, one.subject, one.detail) for one in reversed(await list_entries(conn, Filter()))]


async def ask(client: Client, method: str, path: str, key: str = KEY, **options: Any) -> tuple[int, Any]:
    """Status and body."""
    async with client.request(method, f"/api/v1{path}", headers=bearer(key), **options) as answer:
        return answer.status, await answer.json() if answer.content_length else None


async def test_a_change_over_the_api_is_written_down_without_what_was_sent(api: Client, conn: Connection) -> None:
    """Who, what, to which item; the names of fields and never their values; what only looks is not written."""
    status, made = await ask(api, "POST", "/keys", json={"name": "s3cret name", "scope": "reports"})
    assert status == 201
    assert (await ask(api, "DELETE", f"/keys/{made['key_id']}"))[0] == 204
    await ask(api, "GET", "/keys")
    assert await entries(conn) == [
        ("create_key", f"/keys/{made['key_id']}", {"fields": ["advertiser_id", "aff_id", "expires_at", "name", "scope"]}),
        ("revoke_key", f"key_id={made['key_id']}", {}),
    ]
    [row] = await conn.fetch("SELECT DISTINCT actor, address FROM audit_log")
    assert (row["actor"], row["address"]) == ("key of admin (key 1)", "127.0.0.1")
    written = str(await conn.fetch("SELECT * FROM audit_log"))
    assert "s3cret" not in written
    assert made["token"] not in written


async def test_what_is_refused_leaves_neither_a_change_nor_an_entry(api: Client, conn: Connection) -> None:
    """The entry is in the change's own transaction."""
    assert (await ask(api, "POST", "/keys", json={"name": "", "scope": "reports"}))[0] == 422
    assert (await ask(api, "DELETE", "/keys/99"))[0] == 404
    await conn.execute("ALTER TABLE audit_log ADD CHECK (action <> 'create_key')")
    assert (await ask(api, "POST", "/keys", json={"name": "x", "scope": "reports"}))[0] >= 500
    assert await conn.fetchval("SELECT count(*) FROM api_keys") == 2
    assert await entries(conn) == []


@pytest.mark.parametrize("said", ["true", "1", "True"])
async def test_a_dry_run_is_not_written_down_however_it_is_said(api: Client, conn: Connection, said: str) -> None:
    """Nobody did anything."""
    status, answer = await ask(api, "POST", f"/partners?dry_run={said}", json={"name": "P"})
    assert (status, answer["diff"] != []) == (200, True)
    assert await entries(conn) == []


async def test_contacts_are_not_named_in_the_log(api: Client, conn: Connection) -> None:
    """Not in the subject either."""
    await conn.execute("INSERT INTO contacts (contact_id) VALUES ('anna@example.com')")
    assert (await ask(api, "DELETE", "/contacts/anna@example.com"))[0] == 204
    [(action, subject, _)] = await entries(conn)
    assert (action, subject) == ("delete_contact", "contact_id=…")


async def test_the_log_is_for_admins_and_is_read_in_pages(api: Client, conn: Connection) -> None:
    """The latest first, filtered by what it says; other keys are refused."""
    for number in range(3):
        await add_entry(conn, Entry("anna", "month close", f"month={number}"))
    await add_entry(conn, Entry("bert", "monthly"))
    status, page = await ask(api, "GET", "/audit?action=month&limit=2")
    assert (status, [one["subject"] for one in page["data"]]) == (200, ["month=2", "month=1"])
    _, rest = await ask(api, "GET", f"/audit?action=month&limit=2&cursor={page['next_cursor']}")
    assert ([one["subject"] for one in rest["data"]], rest["next_cursor"]) == (["month=0"], None)
    for path in ("/audit", "/erasures"):
        assert (await ask(api, "GET", path, "a partner's"))[0] == 403
    assert (await ask(api, "POST", "/erasures", "a partner's", json={"contacts": ["a"]}))[0] == 403
    assert (await ask(api, "GET", "/audit?cursor=!"))[0] == 422


async def test_the_log_cannot_be_changed_and_old_entries_go(conn: Connection) -> None:
    """UPDATE is refused by the database; retention deletes by age."""
    await add_entry(conn, Entry("anna", "apply"))
    with pytest.raises(asyncpg.PostgresError, match="never changed"):
        await conn.execute("UPDATE audit_log SET actor = 'nobody'")
    now = datetime.now(UTC)
    assert await BATCHES["audit_log"](conn, now - timedelta(days=1)) == 0
    assert await BATCHES["audit_log"](conn, now + timedelta(days=1)) == 1


async def test_failed_log_ins_are_written_to_a_bound(data_dir: Path, database: str, conn: Connection) -> None:
    """A guesser fills no disk."""
    backend = Backend(Settings(data_dir=str(data_dir)), lambda: database)
    log = LogIns(backend)
    for _ in range(FAILURES_WRITTEN + 10):
        await log.note_failure("192.0.2.1", "no such key")
    await log.note("anna", "192.0.2.2")
    await backend.close()
    # A minute of the clock may end meanwhile.
    assert FAILURES_WRITTEN <= await conn.fetchval("SELECT count(*) FROM audit_log WHERE action = 'log_in_failed'") < 40
    assert await conn.fetchval("SELECT actor || address FROM audit_log WHERE action = 'log_in'") == "anna192.0.2.2"


async def test_people_are_erased_and_counted_over_the_api(api: Client, data_dir: Path, database: str) -> None:
    """A dry run changes nothing; the erasure is listed by its hash, and written down without the value."""
    async with open_bench(data_dir, database) as bench:
        bench.scribe(worker=1).click(contact_id="anna")
        await bench.drain()
        body = {"contacts": ["anna"], "dry_run": True}
        status, counted = await ask(api, "POST", "/erasures", json=body)
        assert (status, counted["rows"]) == (200, {"clicks": 1, "contacts": 1})
        assert await bench.value("SELECT count(*) FROM clicks") == 1
        _, erased = await ask(api, "POST", "/erasures", json={**body, "dry_run": False})
        assert (erased["rows"], await bench.ids()) == (counted["rows"], [])
        _, page = await ask(api, "GET", "/erasures")
        [one] = page["data"]
        assert (one["kind"], one["actor"]) == ("contact", "key of admin (key 1)")
        [entry] = await entries(bench.conn)
        assert entry[:2] == ("erase", "contact")
        assert "anna" not in str(entry)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "/contacts"),
        ({"contacts": [""]}, "/contacts"),
        ({"contacts": ["a\u0007b"]}, "/contacts/0"),
        ({"clicks": ["nonsense"]}, "/clicks/0"),
        ({"ips": ["203.0.113.7/24"]}, "/ips/0"),
        ({"ips": ["300.1.1.1"]}, "/ips/0"),
        ({"people": ["a"]}, ""),
    ],
)
async def test_whom_to_erase_is_checked_before_anything_is_done(
    api: Client, conn: Connection, body: dict[str, Any], fault: str
) -> None:
    """A fault anywhere: 422, and nothing stored."""
    status, answer = await ask(api, "POST", "/erasures", json=body)
    assert status == 422
    assert fault in str(answer)
    assert await conn.fetchval("SELECT count(*) FROM erasures") == 0


def test_the_commands_erase_and_tell(data_dir: Path, database: str) -> None:
    """`erase` counts, erases, refuses bad input; `audit` tells of it and of a key that was made."""

    async def prepare() -> None:
        async with open_bench(data_dir, database) as bench:
            bench.scribe(worker=1).click(contact_id="anna", ip="203.0.113.9")
            await bench.drain()

    asyncio.run(prepare())
    where = ["--data-dir", str(data_dir), "--database", database]
    environment = {"EDGE_SECRET": "a-secret-of-the-commands", "EDGE_NODE_ID": "0"}
    runner = CliRunner(env=environment)
    counted = runner.invoke(erase_command, ["--contact", "anna", "--dry-run", *where])
    assert not counted.exception, counted.exception
    assert counted.output.splitlines() == ["         1  clicks", "         1  contacts", "nothing is changed"]
    done = runner.invoke(erase_command, ["--contact", "anna", *where])
    assert "2 rows erased, and what journals hold until " in done.output
    for wrong in (["--ip", "nowhere"], ["--click", "nonsense"], ["--contact", ""], []):
        refused = runner.invoke(erase_command, [*wrong, *where])
        assert type(refused.exception).__name__ == "UserError", refused.output
    assert runner.invoke(create_key, ["k", "--scope", "admin", *where]).exit_code == 0
    told = runner.invoke(audit, where).output.splitlines()
    assert [line.split("  ")[2] for line in told] == ["key create", "erase"]
    assert "anna" not in "".join(told)
    assert "nothing" in runner.invoke(audit, ["--actor", "nobody", *where]).output
    assert runner.invoke(audit, ["--since", "then", *where]).exception


async def test_what_serve_applies_at_its_start_is_written_down_with_it(conn: Connection) -> None:
    """Once, as `apply` is; a file that is known, or changes nothing, leaves no entry."""
    for text in (PARTNER, PARTNER, PARTNER + "\n"):
        await apply_and_write(conn, text, "catalog.toml")
    [entry] = await list_entries(conn, Filter())
    assert (entry.actor, entry.action, entry.subject) == ("serve", "apply", "revision=1")
    assert entry.detail == {"created": 1, "updated": 0, "archived": 0}
