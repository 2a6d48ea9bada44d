"""The disk under the data dir: what kind it is, how much is free, how long an fsync takes."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from edge.doctor.findings import Finding, fail, format_bytes, ok, skipped, warn
from edge.doctor.installation import Installation
from storage.journal.capacity import undrained_bytes

PROBE_SYNCS = 40
PROBE_LIMIT_S = 2.0
PROBE_BYTES = 4096
SLOW_SYNC_S = 0.025
STUCK_SYNC_S = 0.5
INCREDIBLE_SYNC_S = 10e-6
SPARE_BYTES = 2**30
SPARE_FILES = 10_000
_IN_MEMORY = {"tmpfs", "ramfs"}
_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "glusterfs", "afs")


def check_data_dir(found: Installation) -> Iterator[Finding]:
    """Whether it is there and can be written."""
    directory, place = found.data_dir, found.existing_dir()
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield fail(
            "data dir",
            f"{place} is no directory that this user can write",
            f"give {directory} to the user that serve runs as, or choose another EDGE_DATA_DIR",
        )
    elif place != directory:
        yield ok("data dir", f"{directory} does not exist yet; serve makes it")
    else:
        yield ok("data dir", f"{directory}")


def check_filesystem(found: Installation) -> Iterator[Finding]:
    """What keeps the files."""
    place = found.existing_dir()
    kind = kind_of_filesystem(place)
    if kind in _IN_MEMORY:
        yield warn(
            "filesystem", f"{place} is {kind}: all of it is gone at the next boot", "set EDGE_DATA_DIR to a disk"
        )
    elif kind.startswith(_REMOTE):
        yield warn(
            "filesystem",
            f"{place} is {kind}: each answer waits for the network, and locks may not hold",
            "set EDGE_DATA_DIR to a local disk",
        )
    elif kind in ("overlay", "aufs"):
        yield warn(
            "filesystem",
            f"{place} is a container's own layer ({kind}), which goes with the container",
            "mount a volume at the data dir",
        )
    else:
        yield ok("filesystem", f"{kind or 'of an unknown kind'}")


def check_space(found: Installation) -> Iterator[Finding]:
    """Whether the journal's cap is reached before the disk is full."""
    place = found.existing_dir()
    status = os.statvfs(place)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    room = found.settings.journal_max_bytes - undrained_bytes(found.data_dir / "journal")
    said = f"{format_bytes(free)} of {format_bytes(total)} are free"
    if free < min(SPARE_BYTES, total // 20):
        yield fail("space", said, "make room: without any, clicks are not recorded and conversions get 503")
    elif free < room:
        yield warn(
            "space",
            f"{said}, and EDGE_JOURNAL_MAX_BYTES allows the journal {format_bytes(room)} more",
            "set it lower, or make room: a full disk stops the database too",
        )
    else:
        yield ok("space", f"{said}; the journal may take {format_bytes(room)} more")
    if status.f_files > 0 and status.f_favail < SPARE_FILES:
        yield fail("space", f"{status.f_favail} files can still be made", "remove files from this disk")


def check_sync_speed(found: Installation) -> Iterator[Finding]:
    """Median and worst of some fsyncs, held against what is promised with them."""
    place = found.existing_dir()
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield skipped("fsync", f"{place} is no directory that this user can write")
        return
    took_s = time_syncs(place)
    median_s, worst_s = statistics.median(took_s), max(took_s)
    said = f"{len(took_s)} fsyncs of 4 KiB: median {median_s * 1000:.2f} ms, worst {worst_s * 1000:.1f} ms"
    settings = found.settings
    waits = [name for name in ("click", "conversion") if getattr(settings, f"{name}_durability") == "disk"]
    if median_s * 1000 > settings.fsync_interval_ms:
        advice = "take a faster disk, or set EDGE_FSYNC_INTERVAL_MS above the median"
        yield warn("fsync", f"{said}: slower than EDGE_FSYNC_INTERVAL_MS ({settings.fsync_interval_ms})", advice)
    elif waits and (median_s > SLOW_SYNC_S or worst_s > STUCK_SYNC_S):
        yield warn("fsync", f"{said}: every answer to a {' and a '.join(waits)} waits for one", "take a faster disk")
    elif median_s < INCREDIBLE_SYNC_S and kind_of_filesystem(place) not in _IN_MEMORY:
        advice = "find out whether this disk or virtual machine ignores fsync: a power cut would lose what it confirmed"
        yield warn("fsync", f"{said}: faster than a disk can be", advice)
    else:
        yield ok("fsync", said)


def time_syncs(directory: Path) -> list[float]:
    """Seconds that fsyncs of a growing file took. It has no name from the start, so nothing of it outlives us."""
    descriptor = _open_unnamed(directory)
    block = os.urandom(PROBE_BYTES)
    took_s: list[float] = []
    began_s = time.perf_counter()
    try:
        while len(took_s) < PROBE_SYNCS and time.perf_counter() - began_s < PROBE_LIMIT_S:
            os.write(descriptor, block)
            asked_s = time.perf_counter()
            os.fdatasync(descriptor)
            took_s.append(time.perf_counter() - asked_s)
    finally:
        os.close(descriptor)
    return took_s


def kind_of_filesystem(path: Path) -> str:
    """Such as ext4; empty where it cannot be told."""
    real = path.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (real, *real.parents) if place in mounts), "")


def _open_unnamed(directory: Path) -> int:
    with suppress(OSError):
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    descriptor, name = tempfile.mkstemp(prefix=".doctor-", dir=directory)
    os.unlink(name)
    return descriptor
