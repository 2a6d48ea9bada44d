"""An export run: from one snapshot, a few thousand rows in memory, to whoever takes the bytes."""

from collections.abc import Awaitable, Callable

from edge.exports.asking import Shape
from edge.exports.formats import Heading, make_encoder
from storage.postgres.connection import Connection
from storage.postgres.exports.reading import copy_csv, estimate_rows, read_batches, snapshot
from storage.postgres.exports.selecting import Selection, select_texts, select_values

Write = Callable[[bytes], Awaitable[None]]
Progress = Callable[[int, int], None]
"""Called with the rows written so far and about how many there will be."""


async def export_table(
    conn: Connection, selection: Selection, shape: Shape, write: Write, progress: Progress | None = None
) -> int:
    """Write the rows; how many. Whatever `write` raises ends it."""
    counted = _Counted(write, progress)
    async with snapshot(conn):
        if progress:
            counted.expected = await estimate_rows(conn, select_values(selection))
        if shape.format == "csv":
            query = select_texts(selection, is_defused=shape.for_spreadsheets)
            return await copy_csv(conn, query, counted.write_lines)
        headings = [Heading(field.name, field.kind) for field in selection.fields]
        encoder = make_encoder(shape.format, headings)
        await counted.write(encoder.begin(), 0)
        async for rows in read_batches(conn, select_values(selection)):
            await counted.write(encoder.add(rows), len(rows))
        await counted.write(encoder.end(), 0)
    return counted.rows


class _Counted:
    """Passes bytes on, and tells how far it is."""

    def __init__(self, write: Write, progress: Progress | None) -> None:
        self._write = write
        self._progress = progress
        self.rows = 0
        self.expected = 0

    async def write(self, data: bytes, rows: int) -> None:
        """Bytes that so many more rows have become."""
        if data:
            await self._write(data)
        self.rows += rows
        if self._progress:
            self._progress(self.rows, self.expected)

    async def write_lines(self, data: bytes) -> None:
        """Bytes of CSV: a line is a row, near enough for a bar."""
        await self.write(data, data.count(b"\n") if self._progress else 0)
