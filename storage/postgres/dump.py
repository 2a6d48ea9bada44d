"""PostgreSQL's own pg_dump and pg_restore, run on a database of ours; and a restored database put in the place of one.

D1  A restore fills a new database and swaps names at the end, in one transaction: until then the old one is in use.
D2  Who was connected to the old one is cut off, and finds the new one under the name.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from storage.backup_file import copy_dump
from storage.errors import DatabaseUnusable, StorageError
from storage.postgres.cluster import find_binaries
from storage.postgres.connection import Connection, connect

_LOCK = 0x436C6B5265  # "ClkRe"
_CHUNK_BYTES = 1 << 20
_DEBIAN = Path("/usr/lib/postgresql")
_SWAP_TRIES = 5
"""Each waits up to five seconds for the last to go."""


class ProgramFailed(StorageError):
    """pg_dump or pg_restore ended with an error: its words."""


def find_program(name: str, server_major: int) -> str:
    """That program of the server's major version, else of a later one. The bundled ones have no TLS."""
    candidates = [str(_DEBIAN / str(server_major) / "bin" / name), shutil.which(name) or ""]
    with suppress(DatabaseUnusable):
        candidates.insert(0, str(find_binaries() / name))
    versions = {path: _major_of(path) for path in candidates if path and Path(path).exists()}
    for path, major in versions.items():
        if major == server_major:
            return path
    for path, major in versions.items():
        if major > server_major:
            return path
    raise DatabaseUnusable(f"no {name} for PostgreSQL {server_major} here: install postgresql-client-{server_major}")


def dump_database(url: str, password: str, server_major: int) -> Iterator[bytes]:
    """The database in pg_dump's own format, in portions; ProgramFailed at the end if that is not all of it."""
    command = [find_program("pg_dump", server_major), "--format=custom", "--no-password", "--dbname", url]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=_environment(password)
        )
        output = cast("IO[bytes]", process.stdout)
        try:
            while chunk := output.read(_CHUNK_BYTES):
                yield chunk
        finally:
            output.close()
            code = process.wait()
        _check("pg_dump", code, errors)


def fill_database(url: str, password: str, server_major: int, dump: IO[bytes]) -> None:
    """Restore a dump into an empty database; ProgramFailed with what pg_restore said first."""
    command = [
        find_program("pg_restore", server_major), "--exit-on-error", "--no-owner", "--no-privileges", "--no-password",
        "--dbname", url,
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=_environment(password)
        )
        taken = cast("IO[bytes]", process.stdin)
        try:
            with suppress(BrokenPipeError):  # it has ended, and says below why
                copy_dump(dump, taken)
                taken.close()
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        _check("pg_restore", code, errors)


def name_of(url: str) -> str:
    """The database that a URL names."""
    return urlsplit(url).path.removeprefix("/")


def with_name(url: str, name: str) -> str:
    """The same server's database of that name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def is_empty(conn: Connection) -> bool:
    """Whether there is no table in it."""
    query = (
        "SELECT NOT EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)')"
    )
    return bool(await conn.fetchval(query))


@asynccontextmanager
async def open_beside(url: str) -> AsyncIterator[Connection]:
    """A connection to the server beside the database, as its only restorer. DatabaseUnusable while there is another."""
    conn = await connect(with_name(url, "postgres"), application_name="clickedge restore")
    try:
        if not await conn.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise DatabaseUnusable("another restore is at work on this server; wait for it")
        yield conn
    finally:
        conn.terminate()


async def make_beside(conn: Connection, name: str) -> str:
    """A new, empty database; its name. What an interrupted restore left under that name is dropped."""
    fresh = f"{name}_restoring"
    try:
        await conn.execute(f"DROP DATABASE IF EXISTS {_quote(fresh)} WITH (FORCE)")
        await conn.execute(f"CREATE DATABASE {_quote(fresh)} TEMPLATE template0 ENCODING 'UTF8'")
    except Exception as error:
        if getattr(error, "sqlstate", "") != "42501":
            raise
        raise DatabaseUnusable(
            "this role may not create databases: have an empty one made, and give that one's URL with --database"
        ) from error
    return fresh


async def drop_beside(conn: Connection, name: str) -> None:
    """Drop a database that is not wanted any more, with who is connected to it."""
    await conn.execute(f"DROP DATABASE IF EXISTS {_quote(name)} WITH (FORCE)")


async def swap(conn: Connection, name: str, fresh: str, at: datetime) -> str:
    """D1, D2: `fresh` takes the name; the former database's new name. DatabaseUnusable: somebody cannot be cut off."""
    former = f"{name}_before_{at:%Y%m%d_%H%M%S}"
    for _ in range(_SWAP_TRIES):
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        if await _rename(conn, name, former, fresh):
            return former
    raise DatabaseUnusable(f"somebody stays connected to {name}: end them, and try again")


async def _rename(conn: Connection, name: str, former: str, fresh: str) -> bool:
    """Both at once. False: somebody came back before the first of them kept newcomers waiting."""
    try:
        async with conn.transaction():
            await conn.execute(f"ALTER DATABASE {_quote(name)} RENAME TO {_quote(former)}")
            await conn.execute(f"ALTER DATABASE {_quote(fresh)} RENAME TO {_quote(name)}")
    except asyncpg.ObjectInUseError:
        return False
    return True


def _major_of(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\) (\d+)", done.stdout)
    return int(found[1]) if found else 0


def _environment(password: str) -> dict[str, str]:
    """The password is not in the arguments, which every user of the machine may read."""
    names = {name: value for name, value in os.environ.items() if not name.startswith("PG") or name.startswith("PGSSL")}
    return {**names, "PGPASSWORD": password, "PGAPPNAME": "clickedge backup"} if password else names


def _check(program: str, code: int, errors: IO[bytes]) -> None:
    if code == 0:
        return
    errors.seek(0)
    lines = [line for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    raise ProgramFailed(f"{program}: {' '.join(lines[:2])[:500] or f'ended with code {code}'}")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
