"""A disk for journal tests: real files, with faults on demand and a power switch.

It knows which bytes and names were synced. `cut_power` takes away what was not: every file keeps some length between what
was synced and what was written, its unsynced bytes possibly torn; every directory keeps some first part of its
unsynced renames and creations, in order, as journalling filesystems do.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from storage.journal.filesystem import Filesystem

Choose = Callable[[int, int], int]
"""A number between two bounds, both included."""


@dataclass
class _File:
    path: Path
    synced_bytes: int = 0


@dataclass
class FaultyDisk(Filesystem):
    """`short_writes` holds (bytes that still go through, errno or 0 for a silent short write), one a write."""

    short_writes: list[tuple[int, int]] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """Methods that fail for now: with ENOSPC where something is created, else with EIO."""
    calls: Counter[str] = field(default_factory=Counter)
    _files: dict[int, _File] = field(default_factory=dict)
    _names: dict[Path, list[tuple[Path | None, Path]]] = field(default_factory=dict)
    """Unsynced changes of each directory: (old name, new name), or (None, name) for a new file."""
    _closed: list[_File] = field(default_factory=list)

    def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
        """One write(2), cut short when a fault is planned."""
        self.calls["write"] += 1
        if not self.short_writes:
            return os.write(descriptor, data)
        allowed_bytes, code = self.short_writes.pop(0)
        written = os.write(descriptor, data[:allowed_bytes]) if allowed_bytes else 0
        if code:
            raise OSError(code, os.strerror(code))
        return written

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """ftruncate, or EIO."""
        self._call("truncate")
        super().truncate(descriptor, size_bytes)

    def create_file(self, path: Path) -> int:
        """Note that the new name is not on the disk yet."""
        self._call("create_file", errno.ENOSPC)
        descriptor = super().create_file(path)
        self._files[descriptor] = _File(path)
        self._names.setdefault(path.parent, []).append((None, path))
        return descriptor

    def sync_data(self, descriptor: int) -> None:
        """Note what is safe now, or EIO."""
        self._call("sync_data")
        self._files[descriptor].synced_bytes = self.measure(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Note that the directory's names are safe now."""
        self._call("sync_directory")
        self._names.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, and follow the files that are open below it."""
        self._call("rename")
        super().rename(source, target)
        for file in [*self._files.values(), *self._closed]:
            if file.path.is_relative_to(source):
                file.path = target / file.path.relative_to(source)
        self._names.setdefault(target.parent, []).append((source, target))

    def close(self, descriptor: int) -> None:
        """Close; what was not synced is still not."""
        # Before the number is free: another thread's new file may get it at once.
        self._closed.append(self._files.pop(descriptor))
        super().close(descriptor)

    def kill_process(self) -> None:
        """kill -9: descriptors and locks are gone, every byte that was written stays."""
        for descriptor in list(self._files):
            self.close(descriptor)

    def cut_power(self, choose: Choose) -> None:
        """Every process is gone and so are unsynced bytes and names, as many as `choose` leaves."""
        self.kill_process()
        for file in self._closed:
            self._tear(file, choose)
        for changes in self._names.values():
            kept = choose(0, len(changes))
            for source, target in reversed(changes[kept:]):
                self._undo(source, target)
        self._closed.clear()
        self._names.clear()

    def _tear(self, file: _File, choose: Choose) -> None:
        path = file.path if file.path.exists() else file.path.with_suffix(".done")
        if not path.exists():
            return
        size = path.stat().st_size
        left = choose(min(file.synced_bytes, size), size)
        os.truncate(path, left)
        if left > file.synced_bytes and choose(0, 1):
            with path.open("r+b") as torn:
                torn.seek(choose(file.synced_bytes, left))
                torn.truncate()
                torn.truncate(left)

    @staticmethod
    def _undo(source: Path | None, target: Path) -> None:
        if not target.exists():
            return
        if source is None:
            target.unlink()
        else:
            target.rename(source)

    def _call(self, name: str, code: int = errno.EIO) -> None:
        self.calls[name] += 1
        if name in self.failing:
            raise OSError(code, os.strerror(code))
