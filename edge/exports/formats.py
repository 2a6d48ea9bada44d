"""Rows as CSV, NDJSON and Parquet."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import msgspec

from edge.exports.cells import defuse

Kind = str
"""Those of storage's tables, and `decimal`: numbers of a report, exact to 18 places."""
ROW_GROUP_ROWS = 50_000
_MONEY_DIGITS, _MONEY_PLACES = 18, 6


class Heading(NamedTuple):
    """A column's name and kind."""

    name: str
    kind: Kind


class Encoder(Protocol):
    """Turns rows into bytes; what it returns is to be written at once, in order."""

    def begin(self) -> bytes:
        """What comes before all rows."""

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """More rows."""

    def end(self) -> bytes:
        """What comes after them: without it the file is not whole."""


def make_encoder(name: str, headings: Sequence[Heading], *, for_spreadsheets: bool = False) -> Encoder:
    """The encoder of a format: csv, ndjson, parquet."""
    if name == "csv":
        return ValueCsvEncoder(headings, for_spreadsheets=for_spreadsheets)
    return NdjsonEncoder(headings) if name == "ndjson" else ParquetEncoder(headings)


class CsvEncoder:
    """RFC 4180, a header first; of cells that are texts, numbers or None already."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._headings = headings

    def begin(self) -> bytes:
        return self._encode([[heading.name for heading in self._headings]])

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        return self._encode(rows)

    def end(self) -> bytes:
        return b""

    @staticmethod
    def _encode(rows: Iterable[Iterable[Any]]) -> bytes:
        out = io.StringIO(newline="")
        csv.writer(out).writerows(rows)
        return out.getvalue().encode()


class ValueCsvEncoder(CsvEncoder):
    """Of any values, such as a report's. `for_spreadsheets`: no text is calculated."""

    def __init__(self, headings: Sequence[Heading], *, for_spreadsheets: bool) -> None:
        super().__init__(headings)
        self._for_spreadsheets = for_spreadsheets

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        return self._encode([self._cell(value) for value in row] for row in rows)

    def _cell(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            return f"{value:f}"
        if isinstance(value, datetime):
            return value.isoformat()
        return defuse(value) if self._for_spreadsheets and isinstance(value, str) else value


class NdjsonEncoder:
    """One JSON object a line; money as numbers, written as exactly as it is stored."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._names = [heading.name for heading in headings]
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    def begin(self) -> bytes:
        return b""

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        names = self._names
        return self._encoder.encode_lines([dict(zip(names, row, strict=True)) for row in rows])

    def end(self) -> bytes:
        return b""


class ParquetEncoder:
    """Row groups of `ROW_GROUP_ROWS`; money as decimal128(18,6), times as UTC microseconds, ids and JSON as text."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - 60 MB and a quarter of a second, for this format alone
        import pyarrow.parquet as pq  # noqa: PLC0415

        self._arrow = pa
        self._kinds = [heading.kind for heading in headings]
        self._schema = pa.schema([(one.name, _arrow_type(pa, one.kind)) for one in headings])
        self._sink = _Collected()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def begin(self) -> bytes:
        return self._sink.take()

    def add(self, rows: Sequence[Sequence[Any]]) -> bytes:
        columns = [
            self._arrow.array(_prepared(kind, values), type=self._schema.field(place).type)
            for place, (kind, values) in enumerate(zip(self._kinds, zip(*rows, strict=True), strict=True))
        ]
        if columns:
            self._waiting.append(self._arrow.RecordBatch.from_arrays(columns, schema=self._schema))
        if sum(batch.num_rows for batch in self._waiting) >= ROW_GROUP_ROWS:
            self._write()
        return self._sink.take()

    def end(self) -> bytes:
        self._write()
        self._writer.close()
        return self._sink.take()

    def _write(self) -> None:
        if self._waiting:
            table = self._arrow.Table.from_batches(self._waiting, schema=self._schema)
            self._waiting = []
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS * 2)


class _Collected:
    """A file that only grows, whose bytes are taken away as they come."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: what is left is taken afterwards."""

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts = []
        return data


def _arrow_type(arrow: Any, kind: Kind) -> Any:
    types = {
        "int": arrow.int32(),
        "bigint": arrow.int64(),
        "money": arrow.decimal128(_MONEY_DIGITS, _MONEY_PLACES),
        "decimal": arrow.decimal128(38, 18),
        "time": arrow.timestamp("us", tz="UTC"),
        "date": arrow.date32(),
        "texts": arrow.list_(arrow.string()),
    }
    return types.get(kind, arrow.string())


def _prepared(kind: Kind, values: Sequence[Any]) -> Sequence[Any]:
    if kind == "json":
        return [None if value is None else msgspec.json.encode(value).decode() for value in values]
    return values
