"""A node's backup taken, and restored: the database whole, and what of the data dir the database does not have.

Journals are not in it: they are what a restored database is caught up from, as far as they are still there.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from edge.errors import UserError
from edge.node import NODE_FILE, SECRET_FILE
from edge.setting_values import parse_secrets
from storage.backup_file import Backup, Contents, collect_files, write_backup
from storage.errors import DatabaseUnusable
from storage.files import hold_lock, write_atomically
from storage.postgres import dump
from storage.postgres.audit import Entry, add_entry
from storage.postgres.catalog import load_revision
from storage.postgres.connection import Connection, connect, resolve_url
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.installation import remember
from storage.postgres.migrations import find_missing, migrate, read_migrations
from storage.postgres.nodes import hand_over
from storage.postgres.server_user import make_data_dir

BACKED_UP_AT = "backed_up_at"
SplitPassword = Callable[[str], tuple[str, str]]


class Taken(NamedTuple):
    """A backup that was made."""

    contents: Contents
    files: list[str]


class Restored(NamedTuple):
    """`former`: the name under which the database of before is kept; empty: there was none. `notes`: what to do now."""

    former: str
    notes: list[str]


async def take_backup(file: Path, url: str, data_dir: Path, split_password: SplitPassword) -> Taken:
    """One consistent snapshot of the database while it is in use, into `file`. UserError: the file cannot be written."""
    conn = await connect(url, application_name="clickedge backup")
    try:
        if await find_missing(conn):
            raise UserError("the database is not migrated yet: start serve first")
        began = datetime.now(UTC)
        contents = Contents(
            release=version("clickedge"),
            taken_at=began.isoformat(timespec="seconds"),
            server_version=await conn.fetchval("SHOW server_version"),
            migration=max(migration.version for migration in read_migrations()),
            catalog_revision=await load_revision(conn),
        )
        major = conn.get_server_version().major
        files = collect_files(data_dir)
        try:
            portions = dump.dump_database(*split_password(url), major)
            contents = await asyncio.to_thread(write_backup, file, contents, files, portions)
        except OSError as error:
            raise UserError(f"{error.filename or file}: {error.strerror}") from error
        await remember(conn, BACKED_UP_AT, contents.taken_at)
    finally:
        await conn.close()
    return Taken(contents, sorted(files))


async def restore_backup(
    file: Path, database: str | None, data_dir: Path, split_password: SplitPassword, agree: Callable[[str], None]
) -> Restored:
    """Put the database of `file` in the place of the node's; `agree` is told what is there now, and raises to stop it.

    Without `database` and without a running serve the embedded server is started for it, on a new data dir too.
    """
    backup = Backup(file)
    try:
        _refuse_newer(backup.contents)
        if database:
            return await _restore(backup, database, None, split_password, agree)
        async with _server_of(data_dir) as (url, is_serving):
            restored = await _restore(backup, url, data_dir, split_password, agree)
            advice = "; restart serve, so that it uses it" if is_serving else ""
            return restored._replace(notes=[note + advice for note in restored.notes])
    finally:
        backup.close()


def _refuse_newer(contents: Contents) -> None:
    newest = max(migration.version for migration in read_migrations())
    if contents.migration > newest:
        raise UserError(f"the backup is of the newer release {contents.release}: restore it with that one")


@asynccontextmanager
async def _server_of(data_dir: Path) -> AsyncIterator[tuple[str, bool]]:
    """The URL of the data dir's embedded server, and whether it is that of a running serve; else it is started for this."""
    try:
        running = resolve_url(None, data_dir)
    except DatabaseUnusable:
        running = ""
    if running:
        yield running, True
        return
    make_data_dir(data_dir)
    lock = hold_lock(data_dir / "serve.lock")
    if lock is None:
        raise UserError(f"a serve on {data_dir} is starting or stopping: try again when it has")
    server = EmbeddedPostgres(data_dir)
    try:
        yield await server.start(), False
    finally:
        await server.stop()
        os.close(lock)


def put_files(files: dict[str, bytes], data_dir: Path) -> list[str]:
    """Put the backup's files where there are none; a secret joins one that is there. What was done, in words."""
    notes = []
    for name, data in files.items():
        path = data_dir / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(path, [data])
            notes.append(f"put {path}")
        elif name == SECRET_FILE and (joined := _join_secrets(path.read_bytes(), data)):
            write_atomically(path, [joined])
            notes.append(f"added the backup's secret to {path}, behind the one there")
    return notes


def _join_secrets(present: bytes, added: bytes) -> bytes:
    """Both, the present ones first; empty where nothing is missing."""
    mine, theirs = (parse_secrets(data.decode("ascii").strip()) for data in (present, added))
    missing = [secret for secret in theirs if secret not in mine]
    return (",".join([*mine, *missing]) + "\n").encode("ascii") if missing else b""


async def _restore(
    backup: Backup, url: str, data_dir: Path | None, split_password: SplitPassword, agree: Callable[[str], None]
) -> Restored:
    """Beside the database and then in its place; into the database itself where that is another server's empty one."""
    name = dump.name_of(url)
    conn = await connect(url, application_name="clickedge restore")
    try:
        major, is_empty = conn.get_server_version().major, await dump.is_empty(conn)
    finally:
        await conn.close()
    if is_empty and data_dir is None:
        await _fill(backup, url, data_dir, split_password, major)
        return Restored("", [])
    if not is_empty:
        agree(f"the database {name} is replaced by the backup of {backup.contents.taken_at}")
    notes = put_files(backup.files(), data_dir) if data_dir else []
    async with dump.open_beside(url) as beside:
        fresh = await dump.make_beside(beside, name)
        try:
            await _fill(backup, dump.with_name(url, fresh), data_dir, split_password, major)
            former = await dump.swap(beside, name, fresh, datetime.now(UTC))
        except BaseException:
            await dump.drop_beside(beside, fresh)
            raise
        if is_empty:
            await dump.drop_beside(beside, former)
    return Restored("" if is_empty else former, notes)


async def _fill(
    backup: Backup, url: str, data_dir: Path | None, split_password: SplitPassword, server_major: int
) -> None:
    """The dump into an empty database, then what makes it this node's: migrations, statistics, the lease."""
    with backup.open_dump() as source:
        await asyncio.to_thread(dump.fill_database, *split_password(url), server_major, source)
    conn = await connect(url, application_name="clickedge restore")
    try:
        await migrate(conn)
        if data_dir is not None:
            await _take_over(conn, backup.files(), data_dir)
        await remember(conn, BACKED_UP_AT, backup.contents.taken_at)
        await add_entry(conn, Entry("restore", "restore", f"taken_at={backup.contents.taken_at}"))
        await conn.execute("ANALYZE")
    finally:
        await conn.close()


async def _take_over(conn: Connection, files: dict[str, bytes], data_dir: Path) -> None:
    """What the backup's data dir had leased is this one's now."""
    try:
        former, mine = (
            UUID(text.decode("ascii").strip()) for text in (files[NODE_FILE], (data_dir / NODE_FILE).read_bytes())
        )
    except (KeyError, OSError, ValueError):
        return
    await hand_over(conn, former, mine)
