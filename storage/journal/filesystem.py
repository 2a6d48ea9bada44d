"""The seam between the writer and the disk. In tests a subclass cuts the power, tears writes, runs out of space."""

import fcntl
import os
from pathlib import Path

from storage.errors import JournalLocked
from storage.files import sync_directory


class Filesystem:
    """POSIX, one method a call; every one raises OSError."""

    write = staticmethod(os.write)

    def make_directory(self, path: Path) -> None:
        """A new directory that only its owner may enter."""
        path.mkdir(mode=0o700)

    def create_file(self, path: Path) -> int:
        """A descriptor of an empty file. O_APPEND: after a truncation the next write must land at the new end."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut the file."""
        os.ftruncate(descriptor, size_bytes)

    def measure(self, descriptor: int) -> int:
        """The file's size in bytes."""
        return os.fstat(descriptor).st_size

    def sync_data(self, descriptor: int) -> None:
        """The file's bytes and size on the disk."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """The directory's names on the disk."""
        sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; an empty or absent target only, by the journal's own rules."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Unlink; a name that is gone is fine."""
        path.unlink(missing_ok=True)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back, and with it its lock."""
        os.close(descriptor)

    def lock(self, descriptor: int) -> None:
        """Hold the file until the descriptor is closed or the process dies; JournalLocked when it is held."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalLocked("another process writes this journal") from None


REAL_FILESYSTEM = Filesystem()
