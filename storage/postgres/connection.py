"""Connections to PostgreSQL: which database, with what time limits, and what its errors mean."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson

from storage.errors import DatabaseUnusable

Connection: TypeAlias = asyncpg.Connection
Pool: TypeAlias = asyncpg.Pool

OLDEST_MAJOR = 14
CONNECTION_FILE = "database.url"
_CONNECT_TIMEOUT_S = 10.0
# A client that vanished without a word must not keep its row locks until the kernel notices, two hours later.
_SERVER_SETTINGS = {
    "timezone": "UTC",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
}


def resolve_url(database: str | None, data_dir: Path) -> str:
    """Where a command finds the database: what the user said, else what a running `serve` wrote down."""
    if database:
        return database
    try:
        url = (data_dir / CONNECTION_FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        url = ""
    except OSError as error:
        raise DatabaseUnusable(f"cannot read {error.filename}: {error.strerror}") from error
    # A killed `serve` leaves its file behind.
    if not url or not _is_listening(url):
        raise DatabaseUnusable(
            f"no running `clickedge serve` on {data_dir} and no --database:"
            " start it, or say --data-dir DIR or --database URL"
        )
    return url


def _is_listening(url: str) -> bool:
    place = parse_qs(urlsplit(url).query)
    if "host" not in place:
        # A server elsewhere: connecting will tell.
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{place['host'][0]}/.s.PGSQL.{place.get('port', ['5432'])[0]}")
        except PermissionError:
            return True
        except OSError:
            return False
    return True


async def connect(
    url: str, *, application_name: str = "clickedge", command_timeout_s: float | None = None
) -> asyncpg.Connection:
    """One connection, `jsonb` as Python values. DatabaseUnusable for what waiting cannot mend, else asyncpg's errors."""
    try:
        connection = await asyncpg.connect(
            url,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=command_timeout_s,
            server_settings={"application_name": application_name, **_SERVER_SETTINGS},
        )
    except (*_REFUSALS, ValueError) as error:
        raise DatabaseUnusable(f"cannot use the database: {error}") from error
    try:
        await _prepare(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def open_pool(
    resolve: Callable[[], str],
    *,
    max_size: int = 4,
    application_name: str = "clickedge",
    command_timeout_s: float | None = 60,
) -> asyncpg.Pool:
    """A pool of connections as `connect` makes them; errors as there.

    `resolve` is asked for each connection: the embedded server is somewhere else after each of its starts.
    """
    await (await connect(resolve(), application_name=application_name)).close()

    async def connect_anew(*_: object, **arguments: Any) -> asyncpg.Connection:
        return await asyncpg.connect(resolve(), **arguments)

    return await asyncpg.create_pool(
        connect=connect_anew,
        min_size=0,  # nobody is to look for a database, and log that it is away, before it is needed
        max_size=max_size,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings={"application_name": application_name, **_SERVER_SETTINGS},
        init=_prepare,
    )


def is_poison(error: BaseException) -> bool:
    """Whether the data itself is at fault, so that the same rows will fail again and others need not."""
    is_surroundings = isinstance(error, asyncpg.InterfaceError) or is_missing_partition(error)
    return isinstance(error, _POISON) and not is_surroundings


def is_bad_value(error: BaseException) -> bool:
    """Whether the database refused a value that a request brought: a number too large, a text with a NUL in it."""
    return isinstance(error, asyncpg.DataError)


def is_missing_partition(error: BaseException) -> bool:
    """Whether a row found no partition: that is no fault of the row. `Partitions.forget` and try again."""
    return isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name


def is_retryable(error: BaseException) -> bool:
    """Whether the same work may succeed later: whatever the database or the way to it says, poison excepted."""
    return isinstance(error, _OUTSIDE) and not is_poison(error)


async def _prepare(connection: asyncpg.Connection) -> None:
    major = connection.get_server_version().major
    if major < OLDEST_MAJOR:
        raise DatabaseUnusable(f"the database server is PostgreSQL {major}; {OLDEST_MAJOR} or newer is needed")
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


def _encode_jsonb(value: Any) -> bytes:
    # The leading byte is the version of jsonb's binary form; COPY knows no other.
    return b"\x01" + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_POISON = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    # A key longer than an index takes, a row longer than a page.
    asyncpg.ProgramLimitExceededError,
    # What copy_records_to_table raises while it encodes a value of another type or range than the column's.
    TypeError,
    ValueError,
    ArithmeticError,
)
_OUTSIDE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
