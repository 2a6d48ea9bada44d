"""A command's way to the database: two options, one connection, one clear line when it fails."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.errors import UserError
from edge.settings import ROOT_DATA_DIR
from storage.postgres.audit import Entry, add_entry
from storage.postgres.connection import Connection, connect, is_retryable

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def database_options(command: F) -> F:
    """`--data-dir` and `--database`: where a command finds the database of a node."""
    with_database = click.option(
        "--database", envvar="EDGE_DATABASE_URL", default=None, help="A database's URL instead."
    )(command)
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        envvar="EDGE_DATA_DIR",
        default=lambda: ROOT_DATA_DIR if os.geteuid() == 0 else "data",
        help="The data dir of a running serve.",
    )(with_database)


def run_connected(
    url: str,
    name: str,
    work: Callable[[Connection], Awaitable[T]],
    *,
    written: Callable[[T], Entry | None] | None = None,
) -> T:
    """What `work` makes of a connection; UserError when the database cannot do it now.

    `written`: what the audit log is told right afterwards of what was done, None for nothing.
    """

    async def run() -> T:
        conn = await connect(url, application_name=f"clickedge {name}")
        try:
            done = await work(conn)
            if written and (entry := written(done)):
                await add_entry(conn, entry)
            return done
        finally:
            await conn.close()

    try:
        return asyncio.run(run())
    except Exception as error:
        if is_retryable(error):
            raise UserError(f"the database did not do it: {error or type(error).__name__}") from error
        raise
