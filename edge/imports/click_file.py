"""What was refused of a file of clicks, written beside it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edge.errors import UserError
from edge.imports.table_file import Row


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
