"""The clock: is it set, does it jump, is it behind what ids were already minted with."""

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import TZPATH, available_timezones

from edge.doctor.findings import Finding, fail, format_duration, ok, warn
from edge.doctor.installation import Installation
from storage.errors import StorageError
from storage.leases import read_lease

_TIME_ERROR = 5
_STA_UNSYNC = 0x40
_TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")
LEASE_SLACK_MS = 2000
"""A lease reaches a second ahead of its worker."""
JUMP_S = 0.1


class _Timex(ctypes.Structure):
    """The head of the kernel's struct timex, and more room than its rest takes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def check_synchronised(found: Installation) -> Iterator[Finding]:
    """Whether the kernel says that somebody keeps the clock."""
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    is_kept = 0 <= state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    if is_kept:
        yield ok("clock", f"kept by NTP, at most {timex.maxerror / 1000:.0f} ms off")
    elif _TIMESYNC_MARK.exists():
        yield ok("clock", "set by systemd-timesyncd")
    else:
        yield warn(
            "clock",
            "nobody keeps it, as far as the kernel knows",
            "run chrony or systemd-timesyncd (in a container or virtual machine the host may keep it)",
        )


def check_leases(found: Installation) -> Iterator[Finding]:
    """Whether the clock is behind an id lease: ids would then be of the future until it has caught up."""
    paths = sorted((found.data_dir / "ids").glob("worker-*.lease"))
    furthest_ms = 0
    for path in paths:
        try:
            furthest_ms = max(furthest_ms, read_lease(path))
        except (StorageError, OSError) as error:
            yield fail("id lease", str(error), "without it this worker does not start: do as it says")
            return
    behind_s = (furthest_ms - LEASE_SLACK_MS) / 1000 - time.time()
    if behind_s > 0:
        finding = fail if behind_s > 60 else warn
        yield finding(
            "id lease",
            f"the clock is {format_duration(behind_s)} behind what ids were minted with",
            "set the clock right; ids stay unique meanwhile, but their clicks are dated that much too late",
        )
    elif paths:
        yield ok("id lease", f"{len(paths)}, behind the clock as they should be")
    else:
        yield ok("id lease", "none yet: no worker has run on this data dir")


class Jumps:
    """Watches the wall clock against the monotonic one from its making on."""

    def __init__(self) -> None:
        self._began_s = time.time() - time.monotonic()

    def check(self, found: Installation) -> Iterator[Finding]:
        """Whether the clock was set meanwhile."""
        moved_s = time.time() - time.monotonic() - self._began_s
        if abs(moved_s) > JUMP_S:
            yield warn(
                "clock",
                f"it jumped by {moved_s:+.1f} s while we looked",
                "let NTP slew it instead of setting it",
            )


def check_time_zones(found: Installation) -> Iterator[Finding]:
    """Whether there is a time zone database, and where it is from."""
    zone, count = found.settings.timezone, len(available_timezones())
    if count < 100:
        yield warn("time zones", f"only {count} are known here", "install the tzdata package")
        return
    source = next((path for path in TZPATH if Path(path, "tzdata.zi").exists()), "the tzdata package")
    yield ok("time zones", f"{count} from {source}; days begin in {zone}")
