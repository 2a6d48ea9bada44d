"""The id lease: what a process may have used is known to the next one, or the start is refused."""

import os
import threading
from pathlib import Path

import pytest

from edge.tracking.click_id import ClickIds, ms_of
from storage.errors import StorageError
from storage.leases import LEASE_AHEAD_MS, RECORD_BYTES, IdLease

NOW_MS = 1_790_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ids" / "worker-0.lease"


def test_a_first_lease_starts_at_nothing_and_covers_a_second(path: Path) -> None:
    """The directory and the file are made, private."""
    lease = IdLease.open(path, NOW_MS)
    assert (lease.start_ms, lease.through_ms) == (0, NOW_MS + LEASE_AHEAD_MS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    lease.close()


def test_a_restored_older_lease_repeats_no_id_while_the_clock_is_right(path: Path) -> None:
    """A lease of an hour ago, or none, as after a restore: ids are of now, above all that were minted since."""
    first = IdLease.open(path, NOW_MS)
    old = path.read_bytes()
    ids = ClickIds(["secret"], 0, 0, first)
    minted = {ids.mint(NOW_MS) for _ in range(5000)}
    first.extend(NOW_MS + 3_600_000)
    minted |= {ids.mint(NOW_MS + 3_600_000) for _ in range(5000)}
    lost_ms = first.through_ms
    first.close()
    for restored in (old, b""):
        path.write_bytes(restored)
        second = IdLease.open(path, lost_ms + 1)
        again = ClickIds(["secret"], 0, 0, second)
        fresh = {again.mint(lost_ms + 1) for _ in range(5000)}
        second.close()
        assert len(fresh) == 5000
        assert fresh.isdisjoint(minted)
        assert min(fresh) > max(minted)


def test_the_next_process_starts_above_the_last_lease(path: Path) -> None:
    """L1, L2: ids of a process that died at once, and of a clock set back an hour, are not minted again."""
    first = IdLease.open(path, NOW_MS)
    last = ClickIds(["secret"], 0, 0, first).mint(NOW_MS + LEASE_AHEAD_MS)
    first.close()
    second = IdLease.open(path, NOW_MS - 3_600_000)
    assert second.start_ms == NOW_MS + LEASE_AHEAD_MS
    assert ms_of(ClickIds(["secret"], 0, 0, second).mint(NOW_MS - 3_600_000)) == ms_of(last) + 1
    second.close()


def test_an_extension_is_asked_for_below_half_a_second(path: Path) -> None:
    """`extend` leases one second from now and never shortens what is leased."""
    lease = IdLease.open(path, NOW_MS)
    assert not lease.needs_extension(NOW_MS + 500)
    assert lease.needs_extension(NOW_MS + 501)
    lease.extend(NOW_MS + 501)
    assert lease.through_ms == NOW_MS + 501 + LEASE_AHEAD_MS
    lease.extend(NOW_MS)
    assert lease.through_ms == NOW_MS + 501 + LEASE_AHEAD_MS
    lease.close()


def test_minting_beyond_the_lease_writes_it_first(path: Path) -> None:
    """L1: when nobody extended in time, mint itself does, and the file knows before the id is out."""
    lease = IdLease.open(path, NOW_MS)
    ClickIds(["secret"], 0, 0, lease).mint(NOW_MS + 60_000)
    lease.close()
    reopened = IdLease.open(path, NOW_MS)
    assert reopened.start_ms == NOW_MS + 60_000
    reopened.close()


def test_threads_extending_and_minting_leave_the_highest_lease_on_disk(path: Path) -> None:
    """L2: `extend` off the loop beside `cover` on it never writes a lower T over a higher one."""
    lease = IdLease.open(path, NOW_MS)

    def cover_every_fourth(offset: int) -> None:
        for ms in range(offset, 400, 4):
            lease.cover(NOW_MS + 5000 + ms)

    threads = [threading.Thread(target=cover_every_fourth, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lease.close()
    reopened = IdLease.open(path, NOW_MS)
    assert reopened.start_ms == NOW_MS + 5399
    reopened.close()


def test_every_damaged_bit_and_every_torn_length_is_refused(path: Path) -> None:
    """L4: no damage is read as a lease; the message says what to do."""
    IdLease.open(path, NOW_MS).close()
    record = path.read_bytes()
    assert len(record) == RECORD_BYTES
    damaged = [
        bytes(b ^ (1 << bit % 8) * (i == bit // 8) for i, b in enumerate(record)) for bit in range(8 * len(record))
    ]
    for content in [*damaged, *(record[:length] for length in range(1, RECORD_BYTES)), record + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"is damaged: check .* delete the file"):
            IdLease.open(path, NOW_MS)


def test_an_empty_file_was_never_leased_from(path: Path) -> None:
    """L3: a crash between making the file and its first record leaves nothing to repeat."""
    path.parent.mkdir()
    path.touch()
    lease = IdLease.open(path, NOW_MS)
    assert lease.start_ms == 0
    lease.close()


@pytest.mark.reliability(number=8)
def test_a_second_process_on_the_same_slot_is_refused(path: Path) -> None:
    """L5: the lock belongs to the open file; it is free again when that is closed."""
    lease = IdLease.open(path, NOW_MS)
    with pytest.raises(StorageError, match="another process mints ids"):
        IdLease.open(path, NOW_MS)
    lease.close()
    IdLease.open(path, NOW_MS).close()


def test_a_place_that_cannot_hold_a_lease_is_one_clear_error(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "ids").touch()
    with pytest.raises(StorageError, match="cannot use the id lease"):
        IdLease.open(tmp_path / "ids" / "worker-0.lease", NOW_MS)


def test_a_lease_that_cannot_be_written_covers_nothing_more(path: Path) -> None:
    """The descriptor is swapped for a full device: the error is ours and `through_ms` stays."""
    lease = IdLease.open(path, NOW_MS)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, lease._descriptor)
    os.close(full)
    with pytest.raises(StorageError, match="cannot extend the id lease"):
        lease.extend(NOW_MS + 1000)
    assert lease.through_ms == NOW_MS + LEASE_AHEAD_MS
    lease.close()


def test_a_failed_sync_breaks_the_lease_for_good(path: Path) -> None:
    """A device cannot be synced: later the disk is not believed again, even if it then says yes."""
    lease = IdLease.open(path, NOW_MS)
    file = os.dup(lease._descriptor)
    # /dev/null takes the write and has no fdatasync: EINVAL.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, lease._descriptor)
    os.close(null)
    with pytest.raises(StorageError, match="cannot extend"):
        lease.extend(NOW_MS + 1000)
    os.dup2(file, lease._descriptor)
    os.close(file)
    with pytest.raises(StorageError, match="restart this process"):
        lease.extend(NOW_MS + 1000)
    lease.close()
