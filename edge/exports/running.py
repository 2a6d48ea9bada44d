"""An export run: from one snapshot, a few thousand rows in memory, to whoever takes the bytes."""

import asyncio
from collections.abc import Awaitable, Callable

from edge.exports.asking import Shape
from edge.exports.formats import CsvEncoder, Encoder, Heading, make_encoder
from storage.postgres.connection import Connection
from storage.postgres.exports.reading import estimate_rows, read_batches, snapshot
from storage.postgres.exports.selecting import Selection, select_texts, select_values

Write = Callable[[bytes], Awaitable[None]]
Progress = Callable[[int, int], None]
"""Called with the rows written so far and about how many there will be."""


async def export_table(
    conn: Connection, selection: Selection, shape: Shape, write: Write, progress: Progress | None = None
) -> int:
    """Write the rows; how many. Whatever `write` raises ends it."""
    encoder: Encoder
    headings = [Heading(field.name, field.kind) for field in selection.fields]
    if shape.format == "csv":
        query, encoder = select_texts(selection, is_defused=shape.for_spreadsheets), CsvEncoder(headings)
    else:
        query, encoder = select_values(selection), make_encoder(shape.format, headings)
    written = 0
    async with snapshot(conn):
        expected = await estimate_rows(conn, query) if progress else 0
        async for rows in read_batches(conn, query):
            # Nothing is written before the database has answered: until then a fault can still be told.
            begun = b"" if written else encoder.begin()
            await pass_on(write, begun + await asyncio.to_thread(encoder.add, rows))
            written += len(rows)
            if progress:
                progress(written, expected)
        begun = b"" if written else encoder.begin()
        await pass_on(write, begun + await asyncio.to_thread(encoder.end))
    return written


async def pass_on(write: Write, data: bytes) -> None:
    """Write what there is."""
    if data:
        await write(data)
