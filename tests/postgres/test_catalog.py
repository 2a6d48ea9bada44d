"""The catalog from a file through Postgres to a snapshot, on real servers. C1-C3 are `storage.postgres.catalog`'s."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.admin.catalog_apply import ApplyResult, apply_if_new, apply_text
from edge.admin.catalog_publisher import POLL_INTERVAL_S, CatalogPublisher, publish_catalog
from edge.catalog_follower import read_snapshot
from edge.cli.apply import apply
from edge.errors import UserError
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_file import CatalogFaults
from storage.postgres.catalog import (
    CatalogMoved,
    Connection,
    load_at,
    load_changes,
    load_current,
    load_revision,
    store_revision,
)
from storage.postgres.connection import connect
from storage.snapshot_file import read_revision
from tests.node import eventually

EXAMPLE = (Path(__file__).parents[2] / "examples" / "catalog.toml").read_text()
PARTNERS = '[[partners]]\nid = 2\nname = "P"\n[[partners]]\nid = 3\nname = "Q"\n'


@pytest.fixture
async def conn(any_database: str) -> AsyncIterator[Connection]:
    """A connection to a fresh database."""
    connection = await connect(any_database)
    yield connection
    await connection.close()


def told(result: ApplyResult) -> tuple[int, int, int, int]:
    """Revision, created, updated, archived."""
    return result.revision, result.created, result.updated, result.archived


async def test_a_file_is_stored_once(conn: Connection) -> None:
    """The first apply makes a revision; the second finds nothing to change and makes none."""
    assert told(await apply_text(conn, EXAMPLE, "catalog.toml")) == (1, 8, 0, 0)
    assert told(await apply_text(conn, EXAMPLE, "catalog.toml")) == (1, 0, 0, 0)
    revision, items = await load_current(conn)
    catalog = Catalog.empty().changed(revision, items)
    offer = catalog.offer(17)
    assert offer is not None
    assert f"{offer.terms(0, 2).payout:f}" == "6.00"
    assert catalog.alias("SL2") == ("click", {"offer_id": "17", "aff_id": "2"})


async def test_a_dry_run_changes_nothing(conn: Connection) -> None:
    """It tells the same diff, and the revision stays."""
    result = await apply_text(conn, PARTNERS, "c.toml", dry_run=True)
    assert told(result) == (0, 2, 0, 0)
    assert result.diff == ["+ partners[2] P", "+ partners[3] Q"]
    assert await load_revision(conn) == 0


async def test_a_file_with_faults_changes_nothing(conn: Connection) -> None:
    """One fault among good items: nothing of the file is stored."""
    with pytest.raises(CatalogFaults, match=r"c\.toml: partners\[4\]\.name"):
        await apply_text(conn, PARTNERS + "[[partners]]\nid = 4\n", "c.toml")
    assert await load_current(conn) == (0, [])


async def test_only_what_the_file_names_is_changed(conn: Connection) -> None:
    """Other items stay; with `prune` they are archived, and their history stays."""
    await apply_text(conn, PARTNERS, "c.toml")
    one = '[[partners]]\nid = 2\nname = "New"\n'
    assert told(await apply_text(conn, one, "c.toml")) == (2, 0, 1, 0)
    assert len((await load_current(conn))[1]) == 2
    assert told(await apply_text(conn, one, "c.toml", prune=True)) == (3, 0, 0, 1)
    assert [item_id for _, item_id, _ in (await load_current(conn))[1]] == ["2"]
    assert len(await load_at(conn, 2)) == 2


async def test_a_pruned_item_is_no_reference(conn: Connection) -> None:
    """With `prune` a file must hold all that it refers to."""
    await apply_text(conn, EXAMPLE, "c.toml")
    alias = '[[aliases]]\npath = "X"\nkind = "click"\nparams = { offer_id = 17 }\n'
    with pytest.raises(CatalogFaults, match=r"there is no offers\[17\]"):
        await apply_text(conn, alias, "c.toml", prune=True)
    assert told(await apply_text(conn, alias, "c.toml")) == (2, 1, 0, 0)


async def test_every_revision_stays_readable(conn: Connection) -> None:
    """C1, C2: the items of any revision, and the way from one to any later one, by change and by removal."""
    for changes in (
        [("k", "a", b"1"), ("k", "b", b"1")],
        [("k", "a", b"2")],
        [("k", "b", None), ("k", "c", b"3"), ("j", "a", b"j")],
        [("k", "b", b"4"), ("k", "c", None), ("k", "never", None)],
    ):
        await store_revision(conn, changes, base_revision=await load_revision(conn), actor="test")
    states = [{(kind, key): body for kind, key, body in await load_at(conn, number)} for number in range(5)]
    assert states[0] == {}
    assert states[2] == {("k", "a"): b"2", ("k", "b"): b"1"}
    assert states[4] == {("k", "a"): b"2", ("k", "b"): b"4", ("j", "a"): b"j"}
    for after in range(5):
        for through in range(after, 5):
            state = dict(states[after])
            for kind, key, body in await load_changes(conn, after, through):
                if body is None:
                    state.pop((kind, key), None)
                else:
                    state[kind, key] = body
            assert state == states[through], (after, through)


async def test_two_authors_never_overwrite_each_other(conn: Connection, any_database: str) -> None:
    """C3: of changes worked out against one revision the first is stored, the others are refused."""
    others = [await connect(any_database) for _ in range(4)]
    results = await asyncio.gather(
        *(
            store_revision(other, [("k", "a", str(number).encode())], base_revision=0, actor="test")
            for number, other in enumerate(others)
        ),
        return_exceptions=True,
    )
    for other in others:
        await other.close()
    assert results.count(1) == 1
    assert sum(isinstance(result, CatalogMoved) for result in results) == 3
    assert await load_revision(conn) == 1


async def test_serve_applies_a_file_only_when_it_is_new(conn: Connection) -> None:
    """What was edited elsewhere since the file was applied is never undone, also if the file once changed nothing."""
    other = PARTNERS.replace('"P"', '"Edited"')
    assert told_or_none(await apply_if_new(conn, PARTNERS, "c.toml")) == (1, 2, 0, 0)
    body = b'{"id":2,"name":"Edited"}'
    await store_revision(conn, [("partners", "2", body)], base_revision=1, actor="console")
    assert await apply_if_new(conn, PARTNERS, "c.toml") is None
    assert told_or_none(await apply_if_new(conn, other, "c.toml")) == (2, 0, 0, 0)
    await store_revision(conn, [("partners", "2", b'{"id":2,"name":"Again"}')], base_revision=2, actor="console")
    assert await apply_if_new(conn, other, "c.toml") is None
    assert await load_revision(conn) == 3


def told_or_none(result: ApplyResult | None) -> tuple[int, int, int, int] | None:
    """As `told`, where nothing may have been done."""
    return told(result) if result else None


async def test_a_published_catalog_is_the_one_in_force(conn: Connection, tmp_path: Path) -> None:
    """The snapshot file holds the revision's items."""
    await apply_text(conn, EXAMPLE, "c.toml")
    path = tmp_path / "catalog.snapshot"
    assert await publish_catalog(conn, path) == 1
    catalog = await read_snapshot(path, Catalog.empty())
    assert catalog.revision == 1
    assert catalog.offer(18) is not None


async def wait_for_revision(path: Path, revision: int) -> None:
    """Until the file holds that revision."""

    async def is_there() -> bool:
        return read_revision(path) == revision

    await eventually(is_there, 20)


async def test_the_publisher_follows_revisions_and_survives_a_lost_connection(
    any_database: str, conn: Connection, tmp_path: Path
) -> None:
    """Each revision comes by itself, also after its connections were cut; what nobody told of is seen within a second."""
    path = tmp_path / "catalog.snapshot"
    publisher = asyncio.create_task(CatalogPublisher(lambda: any_database, path).run())
    await wait_for_revision(path, 0)
    await apply_text(conn, PARTNERS, "c.toml")
    await wait_for_revision(path, 1)
    await conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'clickedge catalog'"
    )
    await apply_text(conn, PARTNERS, "c.toml", prune=True)
    await apply_text(conn, EXAMPLE, "c.toml", prune=True)
    await wait_for_revision(path, 2)
    path.unlink()
    await wait_for_revision(path, 2)
    assert POLL_INTERVAL_S <= 1
    assert not publisher.done()
    publisher.cancel()


async def test_the_publisher_replaces_a_damaged_file(any_database: str, conn: Connection, tmp_path: Path) -> None:
    """A file of the right revision with a wrong byte is written anew when the publisher starts."""
    path = tmp_path / "catalog.snapshot"
    await apply_text(conn, PARTNERS, "c.toml")
    await publish_catalog(conn, path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    publisher = asyncio.create_task(CatalogPublisher(lambda: any_database, path).run())
    await wait_for_revision(path, 1)
    publisher.cancel()


def big_catalog() -> str:
    """10,000 offers and 20,000 partners."""
    rows = ['[[advertisers]]\nid = 1\nname = "A"\n']
    rows += [
        f'[[offers]]\nid = {number}\nadvertiser_id = 1\nname = "Offer {number}"\npayout = "5.00"\nrevenue = "7.50"\n'
        f'url = "https://shop.example.com/{number}?clickid={{transaction_id}}&p={{aff_id}}"\nstatus = "active"\n'
        for number in range(1, 10_001)
    ]
    rows += [f'[[partners]]\nid = {number}\nname = "Partner {number}"\n' for number in range(1, 20_001)]
    return "".join(rows)


async def test_a_large_catalog_is_applied_and_loaded(database: str, tmp_path: Path) -> None:
    """10,000 offers and 20,000 partners: loaded from Postgres, published, read; applying them again makes no revision."""
    conn = await connect(database)
    text = big_catalog()
    assert told(await apply_text(conn, text, "c.toml")) == (1, 30_001, 0, 0)
    revision, items = await load_current(conn)
    catalog = Catalog.empty().changed(revision, items)
    await publish_catalog(conn, tmp_path / "catalog.snapshot")
    read = await read_snapshot(tmp_path / "catalog.snapshot", Catalog.empty())
    assert told(await apply_text(conn, text, "c.toml")) == (1, 0, 0, 0)
    await conn.close()
    assert (read.revision, read.offer(10_000) is None, catalog.offer(10_000) is None) == (1, False, False)


def test_the_command_prints_the_diff_and_the_revision(database: str, tmp_path: Path) -> None:
    """`clickedge apply`: what changes line by line, a summary, the revision; warnings on stderr; stdin as `-`."""
    file = tmp_path / "c.toml"
    file.write_text(PARTNERS)
    runner = CliRunner()
    dry = runner.invoke(apply, [str(file), "--dry-run", "--database", database])
    assert dry.stdout.splitlines() == [
        "+ partners[2] P",
        "+ partners[3] Q",
        "2 created, 0 updated, 0 archived: dry run, still revision 0",
    ]
    done = runner.invoke(apply, ["-", "--database", database], input=PARTNERS)
    assert done.stdout.splitlines()[-1] == "2 created, 0 updated, 0 archived: revision 1"
    again = runner.invoke(apply, [str(file), "--database", database])
    assert again.stdout == "nothing to change: revision 1\n"
    pruned = runner.invoke(apply, ["-", "--prune", "--database", database], input='[[partners]]\nid = 2\nname = "P"\n')
    assert pruned.stdout.splitlines() == ["- partners[3] Q", "0 created, 0 updated, 1 archived: revision 2"]


def test_the_command_says_what_it_cannot_read(tmp_path: Path) -> None:
    """A missing file, a folder, bytes that are no text: one line, before any database is asked."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for name in (str(tmp_path / "none.toml"), str(tmp_path), str(binary)):
        result = CliRunner().invoke(apply, [name, "--database", "postgresql://nowhere.invalid/x"])
        assert isinstance(result.exception, UserError)
        assert name in str(result.exception)
