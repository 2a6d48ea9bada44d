"""The click-id lease: which milliseconds a worker slot may have used, durably, so that no id is minted twice.

The file holds one record of 16 bytes: b"CEL1" | CRC-32 of the rest | milliseconds, 8 bytes, big endian.

L1  An id's millisecond is never above the T of a record whose fdatasync returned before the id was minted.
L2  T only grows; the next process of the slot starts above the T that it finds.
L3  An empty file was never leased from: the first record is synced, with its directory, before the first id.
L4  Any other content is damage and is refused: guessing a lower T could repeat ids.
L5  One process at a time holds the file's lock.
"""

import fcntl
import os
import struct
import threading
import zlib
from pathlib import Path

from storage.errors import LeaseHeld, StorageError
from storage.files import sync_directory

MAGIC = b"CEL1"
RECORD_BYTES = 16
LEASE_AHEAD_MS = 1000
EXTEND_BELOW_MS = 500


class IdLease:
    """One worker slot's lease. `extend` may run in a thread beside `cover`; close it when the worker stops."""

    def __init__(self, path: Path, descriptor: int, start_ms: int) -> None:
        """For `open` only."""
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._is_broken = False
        self.start_ms = start_ms
        """The last millisecond that an earlier process may have used; 0: there was none."""
        self.through_ms = start_ms
        """The last millisecond that this process may use."""

    @classmethod
    def open(cls, path: Path, now_ms: int) -> "IdLease":
        """Lease the slot of `path`, made if missing, through now + 1 s. LeaseHeld; StorageError: damaged, unwritable."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lease = cls(path, descriptor, _lock_and_read(path, descriptor))
                lease.cover(max(now_ms, lease.start_ms) + LEASE_AHEAD_MS)
                sync_directory(path.parent)
                sync_directory(path.parent.parent)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise StorageError(f"cannot use the id lease {path}: {error.strerror}") from error
        return lease

    def needs_extension(self, now_ms: int) -> bool:
        """Whether less than 500 ms are left: time to call `extend` off the loop."""
        return self.through_ms - now_ms < EXTEND_BELOW_MS

    def extend(self, now_ms: int) -> None:
        """Lease through now + 1 s. StorageError as `cover`."""
        self.cover(now_ms + LEASE_AHEAD_MS)

    def cover(self, ms: int) -> None:
        """Lease through `ms` at least, synced before it returns. StorageError: not leased, and mint no more."""
        with self._lock:
            if ms <= self.through_ms:
                return
            if self._is_broken:
                raise StorageError(f"the id lease {self._path} could not be synced earlier; restart this process")
            try:
                self._write(ms)
            except OSError as error:
                raise StorageError(f"cannot extend the id lease {self._path}: {error.strerror}") from error
            self.through_ms = ms

    def close(self) -> None:
        """Release the slot."""
        os.close(self._descriptor)

    def _write(self, ms: int) -> None:
        body = struct.pack(">Q", ms)
        record = MAGIC + struct.pack(">I", zlib.crc32(body)) + body
        if os.pwrite(self._descriptor, record, 0) != RECORD_BYTES:
            raise OSError(0, "short write")
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            # The kernel may now call the page clean though the disk never got it: no later sync can be believed.
            self._is_broken = True
            raise


def _lock_and_read(path: Path, descriptor: int) -> int:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LeaseHeld(f"another process mints ids from {path}; stop it first") from error
    return _parse(path, os.pread(descriptor, RECORD_BYTES + 1, 0))


def read_lease(path: Path) -> int:
    """The last millisecond leased, for who only looks; 0: none yet. OSError, or StorageError for a damaged file."""
    with path.open("rb") as file:
        return _parse(path, file.read(RECORD_BYTES + 1))


def _parse(path: Path, record: bytes) -> int:
    if not record:
        return 0
    body = record[8:]
    if len(record) != RECORD_BYTES or record[:8] != MAGIC + struct.pack(">I", zlib.crc32(body)):
        raise StorageError(
            f"the id lease {path} is damaged: check that this machine's clock is right, wait 10 seconds, "
            "delete the file and start again"
        )
    return int(struct.unpack(">Q", body)[0])
