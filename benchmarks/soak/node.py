"""The node that is soaked: two workers, two drains, the embedded PostgreSQL; its processes, their clock, its health."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp

from benchmarks.serving import Node, _command, _descendants
from storage.journal.capacity import undrained_bytes

WORKERS, DRAINS = 2, 2
JOURNAL_MAX_BYTES = 16 * 2**20
"""Small enough to be filled in seconds, and an ordinary outage of some seconds is far from it."""
SETTINGS = {
    "EDGE_WORKERS": str(WORKERS),
    "EDGE_DRAINS": str(DRAINS),
    "EDGE_JOURNAL_MAX_BYTES": f"{JOURNAL_MAX_BYTES}B",
    "EDGE_TRUSTED_PROXIES": "127.0.0.0/8",
    "EDGE_POSTBACK_ALLOW": "127.0.0.0/8",
    "EDGE_POSTBACK_TIMEOUT": "4s",
    "EDGE_POSTBACK_RETRY": "1s",
    # What fills up by design is full within the first minute, so that growth after it is a leak.
    "EDGE_SESSION_CAPACITY": "2000",
}
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
EXPECTED = {"worker": WORKERS, "drain": DRAINS, "sender": 1, "admin": 1}
HEALED_S = 300.0
_PATIENCE = aiohttp.ClientTimeout(total=15)


class SoakFailed(Exception):
    """Something that had to happen did not."""


class SoakNode(Node):
    """A node on a real disk, nothing pinned, its own processes' clock (not PostgreSQL's) a file's offset from the machine's."""

    def __init__(self, catalog: Path, directory: str) -> None:
        super().__init__(catalog=catalog, directory=directory, **SETTINGS)
        self.exit_code: int | None = None
        self._offset = self.directory / "clock"
        self.step_clock(0)
        self._env |= {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DISABLE_SHM": "1",
            # For old C libraries. With a new one each wait with a deadline ends at once: threads spin for Python's lock.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def __enter__(self) -> Self:
        if FAKETIME is None:
            raise SoakFailed("Debian's faketime is missing; as root: make system")
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        """Ends it in order; the directory stays, for who wants to look (`remove`)."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.exit_code = self.process.wait(120)

    def pin(self) -> None:
        """Every process where the system puts it, as an operator's."""

    def step_clock(self, offset_s: int) -> None:
        """From within a second on the clock is so much ahead of the machine's."""
        fresh = self._offset.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.replace(self._offset)

    def slot(self, role: str, number: int) -> int:
        """The running process of a slot. SoakFailed: there is none just now."""
        wanted = b"edge.child\0%b\0%d\0" % (role.encode(), number)
        for pid in self.pids(role):
            if wanted in _command(pid):
                return pid
        raise SoakFailed(f"no {role} {number} runs")

    def postmaster(self) -> int:
        """PostgreSQL's main process. SoakFailed: it does not run."""
        for pid in _descendants(self.process.pid):
            if b"/postgres\0-D" in _command(pid):
                return pid
        raise SoakFailed("PostgreSQL does not run")

    def postgres_family(self) -> list[int]:
        """It and all of its children."""
        postmaster = self.postmaster()
        return [postmaster, *_descendants(postmaster)]

    def processes(self) -> dict[int, str]:
        """Every process with its role and slot, or PostgreSQL's name for it; the supervisor too."""
        found = {self.process.pid: "supervisor"}
        for pid in _descendants(self.process.pid):
            parts = _command(pid).split(b"\0")
            if b"edge.child" in parts:
                role, slot = parts[parts.index(b"edge.child") + 1 :][:2]
                found[pid] = f"{role.decode()} {slot.decode()}"
            elif parts[0].startswith(b"postgres: clickedge"):
                found[pid] = "postgres: backend"
            elif parts[0].startswith(b"postgres: "):
                found[pid] = parts[0].decode(errors="replace").strip()
            elif parts[0].endswith(b"/postgres"):
                found[pid] = "postgres"
        return found

    def undrained_bytes(self) -> int:
        """What the journals hold that is not marked as stored."""
        return undrained_bytes(self.data_dir / "journal")

    @property
    def log(self) -> Path:
        """What its processes said."""
        return self.directory / "log"

    async def wait_until_well(self, timeout_s: float = HEALED_S) -> None:
        """Until all processes run and both ports say `ready`. SoakFailed when it takes longer."""
        await eventually(self._is_well, timeout_s, "the node is not well")

    async def _is_well(self) -> bool:
        with suppress(SoakFailed):
            self.postmaster()
            if any(len(self.pids(role)) != count for role, count in EXPECTED.items()):
                return False
            origins = [self.admin, *[self.origin] * 4]
            return all([await says_ready(origin) for origin in origins])
        return False


async def says_ready(origin: str) -> bool:
    """Over a connection of its own, so that on the public port any worker may be met."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{origin}/readyz", timeout=_PATIENCE) as answer:
            return answer.status == 200 and (await answer.text()).startswith("ready")
    except (aiohttp.ClientError, TimeoutError):
        return False


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float, fault: str, every_s: float = 0.1) -> None:
    """Until `check` says yes. SoakFailed with `fault` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not await check():
        if time.monotonic() > deadline_s:
            raise SoakFailed(f"{fault} after {timeout_s:.0f} s")
        await asyncio.sleep(every_s)


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than an exit code that nobody fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def kill(pid: int) -> None:
    """kill -9, and wait until it is gone."""

    async def is_gone() -> bool:
        return not is_running(pid)

    os.kill(pid, signal.SIGKILL)
    await eventually(is_gone, 15, f"process {pid} outlived kill -9")
