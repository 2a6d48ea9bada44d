"""A file of clicks, read row by row: any size, with what was refused written beside it."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self, cast

from edge.errors import UserError

_DELIMITERS = ",;\t|"
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
csv.field_size_limit(2**20)


class Row(NamedTuple):
    """A row: the number of its last line, its values; `fault`: why it could not even be split."""

    line: int
    values: list[str]
    fault: str = ""


class ClickFile:
    """A CSV file, plain or gzipped, UTF-8 or UTF-16; the delimiter is what stands in the header most often."""

    def __init__(self, path: Path) -> None:
        """UserError if it cannot be read or has no header."""
        self._text: IO[str] | None = None
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._begin(path)
        except (OSError, EOFError, UserError) as error:
            self.close()
            if isinstance(error, UserError):
                raise
            raise UserError(f"cannot read {path}: {error}") from error

    def _begin(self, path: Path) -> None:
        self.size_bytes = path.stat().st_size
        start = self._raw.read(2)
        self._raw.seek(0)
        text = self._text = self._open_text(start)
        first_line = text.readline()
        if first_line.lstrip()[:1] in ("{", "["):
            raise UserError(f"{path} is JSON: export the clicks as CSV")
        delimiter = max(_DELIMITERS, key=first_line.count)
        self.header: list[str] = next(csv.reader([first_line], delimiter=delimiter), [])
        if not any(self.header):
            raise UserError(f"{path} is empty: a header and a line for each row are needed")
        self._reader = csv.reader(text, delimiter=delimiter)

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read."""
        return self._raw.tell()

    def rows(self) -> Iterator[Row]:
        """What follows the header; empty lines are left out."""
        while True:
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(self._reader.line_num + 1, [], f"it is no CSV: {error}")
                continue
            except (OSError, EOFError) as error:
                raise UserError(f"line {self._reader.line_num + 2}: the file is damaged here: {error}") from error
            if values:
                yield Row(self._reader.line_num + 1, values)

    def close(self) -> None:
        """Close the file."""
        if self._text is not None:
            self._text.close()
        self._raw.close()

    def _open_text(self, start: bytes) -> IO[str]:
        stream: IO[bytes] = self._raw
        if start == _GZIP:
            unpacked = gzip.GzipFile(fileobj=self._raw)
            start = unpacked.read(2)
            unpacked.seek(0)
            stream = cast("IO[bytes]", unpacked)
        encoding = "utf-16" if start in _UTF16 else "utf-8-sig"
        return io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="")


class Rejects:
    """`FILE.rejects.csv`: refused rows as they were, each with its line and the reason. Made with the first of them."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        """A file left by an earlier run is removed: it speaks of that run."""
        self.path = path.with_name(path.name + ".rejects.csv")
        self.count = 0
        self._header = header
        self._file: IO[str] | None = None
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot replace {self.path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row, reason: str) -> None:
        """Keep one; UserError if it cannot be written."""
        self.count += 1
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8", newline="")
                csv.writer(self._file).writerow(["line", "reason", *self._header])
            csv.writer(self._file).writerow([row.line, reason, *row.values])
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
