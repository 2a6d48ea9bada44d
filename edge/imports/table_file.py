"""A CSV file of any size, read row by row in constant memory: encodings, separators, gzip, and what is no CSV at all."""

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast

from edge.errors import UserError

MAX_COLUMNS = 1000
MAX_LINE_CHARS = 2**18
MAX_ROW_CHARS = 2**19
csv.field_size_limit(MAX_ROW_CHARS)
_DELIMITERS = ",;\t|"
_KEPT_CHARS = 4096
_SNIFFED_BYTES = 4096
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_GZIP = b"\x1f\x8b"
_DAMAGED = (OSError, EOFError, zlib.error)
_NO_CSV = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive: save the sheet as CSV, unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV"),
    (b"PAR1", "a Parquet file: write it as CSV"),
    (b"%PDF", "a PDF: export it as CSV"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it, or use gzip"),
    (b"BZh", "packed with bzip2: unpack it, or use gzip"),
    (b"\xfd7zXZ", "packed with xz: unpack it, or use gzip"),
)
_NO_TABLE = (("{", "JSON"), ("[", "JSON"), ("<", "a web page or XML"))


class Row(NamedTuple):
    """A row: the number of its first line, its values; `fault`: why it could not be split (then its text is one value)."""

    line: int
    values: list[str]
    fault: str = ""


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """What is no UTF-8 is taken for Windows-1252, as old spreadsheets write it; its five gaps for Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    raw = error.object[error.start : error.end]
    text = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in raw)
    return text, error.end


_ERRORS = "clickedge-windows-1252"
codecs.register_error(_ERRORS, _as_windows_1252)


class _Counted(io.RawIOBase):
    """The file's bytes, counted and hashed as they are read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.count = 0
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        self.hash.update(data)
        return len(data)


class TableFile:
    """The header and the rows of a file. UserError if it cannot be read, is no CSV, or has no header."""

    def __init__(self, path: Path, name: str = "") -> None:
        """`name`: what to call it, where that is not the path."""
        self._name = name or str(path)
        try:
            self._raw = path.open("rb", buffering=0)
        except OSError as error:
            raise UserError(f"cannot read {self._name}: {error.strerror}") from error
        try:
            self.size_bytes = path.stat().st_size
            self._counted = _Counted(cast("IO[bytes]", self._raw))
            self._begin()
        except (*_DAMAGED, UserError) as error:
            self._raw.close()
            if isinstance(error, UserError):
                raise
            raise UserError(f"cannot read {self._name}: {error}") from error

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read, in bytes as they are on disk."""
        return self._counted.count

    @property
    def sha256(self) -> str:
        """Of what has been read; after the last row, of the file."""
        return self._counted.hash.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def rows(self) -> Iterator[Row]:
        """What follows the header. Empty lines are left out."""
        while True:
            self._begin_row()
            line = self._line + 1
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                # A mark that is not closed makes one row of all that follow.
                first, *others = self._taken
                self._give_back(others)
                yield Row(line, [first[:_KEPT_CHARS]], _csv_fault(error))
                continue
            except (*_DAMAGED, ValueError) as error:
                raise UserError(f"{self._name}, line {self._line + 1}: the file is damaged here: {error}") from error
            if self._is_cut:
                yield Row(line, ["".join(self._taken)[:_KEPT_CHARS]], f"a line is longer than {MAX_LINE_CHARS} characters")
            elif any(value.strip() for value in values):
                yield Row(line, values)

    def _begin(self) -> None:
        buffered = io.BufferedReader(self._counted, 2**17)
        start = buffered.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES]
        stream: IO[bytes] = cast("IO[bytes]", buffered)
        if start.startswith(_GZIP):
            stream = cast("IO[bytes]", io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=buffered)), 2**17))
            start = cast("io.BufferedReader", stream).peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES]
        for mark, what in _NO_CSV:
            if start.startswith(mark):
                raise UserError(f"{self._name} is {what}")
        self._text = io.TextIOWrapper(stream, encoding=_encoding_of(start), errors=_ERRORS, newline="")
        self._line = 0
        self._ahead: deque[str] = deque()
        self._begin_row()
        first = self._first_line()
        self.delimiter = max(_DELIMITERS, key=first.count)
        self._give_back([first])
        self.header = self._read_header()

    def _first_line(self) -> str:
        """The first line that says something; a spreadsheet's `sep=;` is passed over."""
        while line := self._next_line():
            text = line.strip()
            if self._is_cut:
                raise UserError(f"{self._name}: its header is longer than {MAX_LINE_CHARS} characters: it is no table")
            for mark, what in _NO_TABLE:
                if text.startswith(mark):
                    raise UserError(f"{self._name} is {what}: export it as CSV")
            if text.strip(_DELIMITERS + " ") and not (text.lower().startswith("sep=") and len(text) == 5):
                return line
        raise UserError(f"{self._name} is empty: a header and a line for each row are needed")

    def _read_header(self) -> list[str]:
        self._begin_row()
        try:
            header = [value.strip() for value in next(self._reader)]
        except csv.Error as error:
            raise UserError(f"{self._name}: its header is no CSV: {_csv_fault(error)}") from error
        if len(header) > MAX_COLUMNS:
            raise UserError(f"{self._name} has {len(header)} columns: at most {MAX_COLUMNS} are allowed")
        return header

    def _begin_row(self) -> None:
        self._taken: list[str] = []
        self._is_cut = False
        self._row_chars = 0

    def _give_back(self, lines: Sequence[str]) -> None:
        """The next row begins with these lines, which were read last."""
        self._ahead.extendleft(reversed(lines))
        self._line -= len(lines)
        self._reader = csv.reader(iter(self._next_line, ""), delimiter=self.delimiter, strict=True)

    def _next_line(self) -> str:
        """The next line without NULs, cut where it is too long; "" at the end."""
        line = self._ahead.popleft() if self._ahead else self._read_line()
        self._is_cut = self._is_cut or _is_too_long(line)
        self._line += bool(line)
        self._row_chars += len(line)
        if line:
            self._taken.append(line)
        if self._row_chars > MAX_ROW_CHARS:
            raise csv.Error(f"longer than {MAX_ROW_CHARS} characters: is a quotation mark not closed?")
        if self._is_cut:  # whatever stands there is not read: the row is refused
            return "\n"
        return line.replace("\0", "") if "\0" in line else line

    def _read_line(self) -> str:
        """A line of the file, or the beginning of one that is too long."""
        line = rest = self._text.readline(MAX_LINE_CHARS)
        while _is_too_long(rest):
            rest = self._text.readline(MAX_LINE_CHARS)
        return line


def _is_too_long(line: str) -> bool:
    return len(line) == MAX_LINE_CHARS and line[-1] not in "\r\n"


def _encoding_of(start: bytes) -> str:
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding
    if len(start) >= 4 and start[1] == start[3] == 0 and start[0] and start[2]:
        return "utf-16-le"
    if len(start) >= 4 and start[0] == start[2] == 0 and start[1] and start[3]:
        return "utf-16-be"
    return "utf-8"


def _csv_fault(error: csv.Error) -> str:
    text = str(error)
    if "expected after" in text or "unexpected end" in text:
        return f"its quotation marks do not fit: {text}"
    return f"it is no CSV: {text}"
