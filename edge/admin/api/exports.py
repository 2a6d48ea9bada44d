"""Rows as files: streamed as they are read, never held; a file that could not be finished ends without its end."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

import structlog
from aiohttp import web
from msgspec import Meta, Struct

from edge.admin.api.operation import EVERYBODY, Call, Operation
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.exports.asking import MEDIA, Format, Shape, parse_selection, take_shape, visible_tables
from edge.exports.reports import export_report, parse_report
from edge.exports.running import Write, export_table
from storage.postgres.connection import Connection
from storage.postgres.exports.tables import TABLES
from storage.postgres.installation import recall
from storage.postgres.reports.query import QueryRefused
from storage.postgres.reports.report import ReportTooSlow
from storage.postgres.reports.viewer import Viewer

MAX_RUNNING = 3
"""Each holds one of the API's connections for as long as its reader takes."""
READER_TIMEOUT_S = 30.0
"""A reader that takes nothing for so long is gone. (The database would end the transaction after a minute.)"""
_log = structlog.get_logger()
Job = Callable[[Connection, Write], Awaitable[int]]
_Text = Annotated[str, Meta(max_length=2000)]


class ExportPath(Struct):
    """What to export."""

    what: Literal["clicks", "impressions", "conversions", "changes", "costs", "contacts", "reports"]


class ExportQuery(Struct, rename={"starts": "from", "ends": "to"}):
    """The parameters beside the filters, which are those of reports. `columns` of tables; the last ones of reports."""

    starts: _Text = ""
    ends: _Text = ""
    format: Format = "csv"
    for_spreadsheets: bool = False
    timezone: _Text = ""
    by: Literal["conversion", "click"] = "conversion"
    columns: _Text = ""
    offer: list[str] = []
    partner: list[str] = []
    advertiser: list[str] = []
    dimensions: _Text = ""
    metrics: _Text = ""


async def export(call: Call) -> web.StreamResponse:
    """The file, streamed."""
    what, caller = call.path.what, call.caller
    viewer = Viewer(caller.scope, caller.advertiser_id, caller.aff_id)
    if what != "reports" and what not in visible_tables(viewer):
        raise not_found("export")
    if _running.count >= MAX_RUNNING:
        raise Problem(503, f"{MAX_RUNNING} exports are being made already", headers={"Retry-After": "10"})
    with _running:
        async with call.backend.connection() as conn:
            zone = await recall(conn, "timezone", call.backend.settings.timezone)
            shape, job = _read(call, viewer, zone)
            stream = _Stream(call.request, what, shape)
            return await stream.run(lambda write: job(conn, write))


def _read(call: Call, viewer: Viewer, zone: str) -> tuple[Shape, Job]:
    """What is asked for; Problem with every fault."""
    now, what = datetime.now(UTC), call.path.what
    try:
        shape, parameters = take_shape(list(call.request.query.items()))
        if what == "reports":
            query, is_whole = parse_report(parameters, viewer, now, zone)
            return shape, lambda conn, write: export_report(
                conn, query, viewer, shape, write, now=now, is_whole=is_whole
            )
        selection = parse_selection(TABLES[what], parameters, viewer, now, zone)
        return shape, lambda conn, write: export_table(conn, selection, shape, write)
    except QueryRefused as refused:
        raise bad_fields([(fault.field, fault.text) for fault in refused.faults]) from refused


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
                    raise Problem(503, str(error)) from error
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


OPERATIONS = (
    Operation(
        "GET",
        "/exports/{what}",
        "export",
        "Rows as CSV, NDJSON or Parquet; filters and times as for reports",
        export,
        EVERYBODY,
        path_type=ExportPath,
        query_type=ExportQuery,
        takes_any_query=True,
        media=tuple(media.partition(";")[0] for media in MEDIA.values()),
    ),
)
