"""Files that are there only when they are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import UserError


class ReaderGone(Exception):
    """Nobody reads the pipe any more: there is no use in going on, and nothing to complain about."""


class Sink:
    """Where a file's bytes go: an open descriptor. UserError when it takes no more, as when the disk is full."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        """All of it. ReaderGone where that was a pipe and its reader has left."""
        with _told(self._name):
            view = memoryview(data)
            while view:
                done = os.write(self._fd, view)
                view = view[done:]
                self.written_bytes += done


@contextmanager
def write_whole(path: Path) -> Iterator[Sink]:
    """A file that gets its name when the block ends well, and is gone when it does not; UserError if it cannot be written.

    Its folder is made if it is missing. What was there under that name stays until then.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _told(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield Sink(fd, str(path))
            with _told(str(path)):
                os.fsync(fd)
        finally:
            os.close(fd)
        with _told(str(path)):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise UserError(f"cannot write {name}: {error.strerror or error}") from error
