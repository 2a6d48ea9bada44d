"""Rows as files: streamed as they are read, never held; a file that could not be finished ends without its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from edge.admin.api.operation import EVERYBODY, Call, Caller, Operation, Scope
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.api.reports import ReportParameters, viewer_of
from edge.admin.backend import Backend, DatabaseAway
from edge.exports.asking import MEDIA, Format, Shape, parse_selection, take_shape
from edge.exports.reports import export_report, parse_report
from edge.exports.running import Write, export_table
from storage.postgres.api_keys import load_key
from storage.postgres.connection import Connection, is_retryable
from storage.postgres.exports.tables import TABLES, Table
from storage.postgres.installation import recall
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.query import NotYours, Parameters, QueryRefused
from storage.postgres.reports.report import ReportTooSlow

MAX_RUNNING = 3
"""Each holds one of the API's connections for as long as its reader takes."""
READER_TIMEOUT_S = 30.0
"""A reader that takes nothing for so long is gone. (The database would end the transaction after a minute.)"""
BELIEVED_S = 1.0
"""After so long it is asked whether the key is still in force."""
_log = structlog.get_logger()
Job = Callable[[Connection, Write], Awaitable[int]]
Handler = Callable[[Call], Awaitable[web.StreamResponse]]


def _exporting(what: str) -> Handler:
    """The handler of a table, or of `reports`."""

    async def export(call: Call) -> web.StreamResponse:
        return await send_export(call.backend, call.caller, call.request, what, list(call.request.query.items()))

    return export


async def send_export(
    backend: Backend, caller: Caller, request: web.Request, what: str, parameters: Parameters
) -> web.StreamResponse:
    """A table, or `reports`, as the answer to that request; Problem, with every fault, before it has begun."""
    if _running.count >= MAX_RUNNING:
        raise Problem(503, f"{MAX_RUNNING} exports are being made already", headers={"Retry-After": "10"})
    with _running:
        async with backend.slow_connection() as conn:
            zone = await recall(conn, "timezone", backend.settings.timezone)
            shape, job = _read(caller, what, parameters, zone)

            async def watched(write: Write) -> int:
                async with _while_in_force(backend, caller.key_id):
                    return await job(conn, write)

            return await _Stream(request, what, shape).run(watched)


@asynccontextmanager
async def _while_in_force(backend: Backend, key_id: int) -> AsyncIterator[None]:
    """Ends the block, whatever it waits for, soon after the key was revoked or is over; Problem."""

    async def watch() -> None:
        while True:
            if not await _is_in_force(backend, key_id):
                return until.reschedule(0)
            await asyncio.sleep(BELIEVED_S)

    try:
        async with asyncio.timeout(None) as until:
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        if not until.expired():
            raise
        raise Problem(401, "the key is not in force any more") from error


async def _is_in_force(backend: Backend, key_id: int) -> bool:
    try:
        async with backend.connection() as conn:  # not the export's: in its snapshot the key stays what it was
            key = await load_key(conn, key_id)
    except Exception as error:
        if not (isinstance(error, DatabaseAway) or is_retryable(error)):
            raise
        return True  # the export's own connection says so if it is away too
    return key is not None and key.is_in_force


def _read(caller: Caller, what: str, parameters: Parameters, zone: str) -> tuple[Shape, Job]:
    """What is asked for; Problem with every fault."""
    now, viewer = datetime.now(UTC), viewer_of(caller)
    try:
        shape, parameters = take_shape(parameters)
        if what == "reports":
            query, is_whole = parse_report(parameters, viewer, now, zone)
            return shape, lambda conn, write: export_report(
                conn, query, viewer, shape, write, now=now, is_whole=is_whole
            )
        selection = parse_selection(TABLES[what], parameters, viewer, now, zone)
        return shape, lambda conn, write: export_table(conn, selection, shape, write)
    except NotYours as error:
        raise not_found(error.dimension) from error
    except QueryRefused as refused:
        raise _refused(refused) from refused


def _refused(refused: QueryRefused) -> Problem:
    return bad_fields([(fault.field, fault.text) for fault in refused.faults])


class _Running:
    """How many exports are being made."""

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *error: object) -> None:
        self.count -= 1


_running = _Running()


class _Stream:
    """An answer that begins with the first bytes: until then a fault is still a problem with its status."""

    def __init__(self, request: web.Request, what: str, shape: Shape) -> None:
        self._request = request
        self._what = what
        self._shape = shape
        self._response = web.StreamResponse(headers=_headers(what, shape.format))

    async def run(self, job: Callable[[Write], Awaitable[int]]) -> web.StreamResponse:
        try:
            await job(self._write)
            await self._prepare()
        except Exception as error:
            if not self._response.prepared:
                if isinstance(error, ReportTooSlow):
                    raise Problem(422, str(error)) from error
                if isinstance(error, QueryRefused):
                    raise _refused(error) from error
                raise
            self._cut(error)
        return self._response

    async def _write(self, data: bytes) -> None:
        await self._prepare()
        async with asyncio.timeout(READER_TIMEOUT_S):
            await self._response.write(data)

    async def _prepare(self) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)

    def _cut(self, error: Exception) -> None:
        """The last chunk never comes, so that the reader knows."""
        if not isinstance(error, ConnectionError):
            _log.warning("export_cut", what=self._what, error=str(error), kind=type(error).__name__)
        if self._request.transport is not None:
            self._request.transport.abort()


def _headers(what: str, form: str) -> dict[str, str]:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    return {
        "Content-Type": MEDIA[form],
        "Content-Disposition": f'attachment; filename="{what}-{stamp}.{form}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


_REPORT = {field.encode_name: field for field in msgspec.structs.fields(ReportParameters)}
_SHAPE: list[Any] = [
    ("format", Format, "csv"),
    ("for_spreadsheets", Annotated[bool, Meta(description="of CSV: make text of what would be calculated")], False),
]


def _parameters(table: Table) -> type[msgspec.Struct]:
    """For the OpenAPI page: what a table's export takes, as reports name it."""
    names = "|".join(field.name for field in table.fields)
    columns = Annotated[str, Meta(pattern=f"^({names})(,({names}))*$", description="which, comma-separated")]
    start = ("from_", _REPORT["from"].type, "") if table.is_timeless else ("from_", _REPORT["from"].type)
    known = [name for name, one in DIMENSIONS.items() if table.source.has(one)]
    fields: list[Any] = [
        start,
        *((name, _REPORT[name].type, "") for name in ("to", "timezone")),
        ("by", _REPORT["by"].type, "conversion"),
        ("columns", columns, ""),
        *_SHAPE,
        *((name, _REPORT[name].type, msgspec.field(default_factory=list)) for name in known),
    ]
    return msgspec.defstruct(f"Export{table.name.title()}", fields, rename={"from_": "from"}, kw_only=True)


def _operation(what: str, query_type: type[msgspec.Struct], scopes: tuple[Scope, ...]) -> Operation:
    media = tuple(one.partition(";")[0] for one in MEDIA.values())
    summary = f"{what.capitalize()} as CSV, NDJSON or Parquet"
    return Operation(
        "GET",
        f"/exports/{what}",
        f"export_{what}",
        summary,
        _exporting(what),
        scopes,
        query_type=query_type,
        takes_any_query=True,
        media=media,
    )


OPERATIONS = (
    *(_operation(name, _parameters(table), table.scopes) for name, table in TABLES.items()),
    _operation(
        "reports", msgspec.defstruct("ExportReports", _SHAPE, bases=(ReportParameters,), kw_only=True), EVERYBODY
    ),
)
