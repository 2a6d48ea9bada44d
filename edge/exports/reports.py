"""A report as a file: all of its rows, read in pages of one snapshot; totals are left to who adds up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import msgspec

from edge.exports.asking import Shape
from edge.exports.formats import Encoder, Heading, make_encoder
from edge.exports.running import Progress, Write, pass_on
from storage.postgres.connection import Connection
from storage.postgres.exports.reading import snapshot
from storage.postgres.reports.query import Fault, Parameters, QueryRefused, ReportQuery, parse_query
from storage.postgres.reports.report import Column, Report, Row, run_report
from storage.postgres.reports.viewer import Viewer

PAGE_ROWS = 50_000
_KINDS = {"id": "int", "text": "text", "date": "date", "week": "date", "month": "date", "hour": "time"}
_SPREAD = ("linear", "time_decay", "position")


def parse_report(parameters: Parameters, viewer: Viewer, now: datetime, timezone: str) -> tuple[ReportQuery, bool]:
    """The report that the parameters ask for, and whether all of its rows are wanted: no `limit`. QueryRefused, NotYours."""
    faults = [Fault(name, "is of tables only") for name, value in parameters if name == "columns" and value]
    rest = [one for one in parameters if one[0] != "columns"]
    try:
        query = parse_query(rest, viewer, now, timezone)
    except QueryRefused as refused:
        raise QueryRefused([*faults, *refused.faults]) from refused
    if faults:
        raise QueryRefused(faults)
    return query, not any(name == "limit" and value for name, value in rest)


async def export_report(
    conn: Connection,
    query: ReportQuery,
    viewer: Viewer,
    shape: Shape,
    write: Write,
    progress: Progress | None = None,
    *,
    now: datetime,
    is_whole: bool = True,
) -> int:
    """Write the rows; how many. `is_whole`: all of them, not only the query's page. ReportTooSlow."""
    written, encoder = 0, None
    async with snapshot(conn):
        async for report in _pages(conn, query, viewer, now, is_whole=is_whole):
            if encoder is None:
                encoder = _encoder(report, shape)
                await pass_on(write, encoder.begin())
            rows = [list(_values(report, row)) for row in report.rows]
            await pass_on(write, await asyncio.to_thread(encoder.add, rows))
            written += len(rows)
            if progress:
                progress(written, report.row_count)
        if encoder is not None:
            await pass_on(write, await asyncio.to_thread(encoder.end))
    return written


async def _pages(
    conn: Connection, query: ReportQuery, viewer: Viewer, now: datetime, *, is_whole: bool
) -> AsyncIterator[Report]:
    page = msgspec.structs.replace(query, limit=PAGE_ROWS) if is_whole else query
    while True:
        report = await run_report(conn, page, viewer, now)
        yield report
        if not is_whole or report.next_cursor is None:
            return
        page = msgspec.structs.replace(page, offset=page.offset + page.limit)


def _encoder(report: Report, shape: Shape) -> Encoder:
    """People get the labels, which name the denominators; programs the names."""
    is_spread = report.query.touch in _SPREAD
    headings = [Heading(_title(one, shape), _KINDS.get(one.kind, "text")) for one in report.dimensions]
    for one in report.metrics:
        title = _title(one, shape)
        headings.append(Heading(title, "bigint" if one.kind == "count" and not is_spread else "decimal"))
        if report.query.compare:
            headings += [Heading(f"{title}_before", headings[-1].kind), Heading(f"{title}_change", "decimal")]
    return make_encoder(shape.format, headings, for_spreadsheets=shape.for_spreadsheets)


def _title(column: Column, shape: Shape) -> str:
    return column.label if shape.for_spreadsheets else column.name


def _values(report: Report, row: Row) -> Iterator[Any]:
    for one in report.dimensions:
        yield row.dimensions.get(one.name)
    for metric in report.metrics:
        yield row.metrics[metric.name]
        if report.query.compare:
            yield (row.previous or {}).get(metric.name)
            yield (row.change or {}).get(metric.name)
