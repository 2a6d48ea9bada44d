"""A child process as the supervisor keeps it: started, told, watched, restarted with back-off, replaced, stopped."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from contextlib import suppress

import msgspec
import structlog
from msgspec.structs import replace

from edge.counters import Counters, cell
from edge.metric_families import OF_A_LIVING_PROCESS
from edge.processes import ANSWERS, STANDS_BY, ChildOrders, die_with_parent

log = structlog.get_logger()

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STEADY_AFTER_S = 10.0
GONE_S = 1.0
START_S = 60.0
"""How long a successor may take until it stands by, and then until it answers."""

_STARTS = cell("edge_process_starts_total")
_UP = cell("edge_process_up")
_GONE = [_UP, *map(cell, OF_A_LIVING_PROCESS)]


class Progress:
    """What one process says of its way to readiness, through a pipe that ends with it."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._said = b""
        self._has_news = asyncio.Event()
        self._is_over = False
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def begin(self) -> None:
        """The process has its own copy of the pipe's other end now."""
        os.close(self.write_fd)

    async def has_said(self, step: bytes) -> bool:
        """Wait for that step; False when the process ends without it."""
        while step not in self._said and not self._is_over:
            self._has_news.clear()
            await self._has_news.wait()
        return step in self._said

    def _read(self) -> None:
        said = os.read(self._read_fd, 64)
        self._said += said
        if not said:
            self._is_over = True
            asyncio.get_running_loop().remove_reader(self._read_fd)
            os.close(self._read_fd)
        self._has_news.set()


class Started:
    """A process that was started, with what it has said of its progress."""

    def __init__(self, process: Process, progress: Progress) -> None:
        self.process = process
        self.progress = progress

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)


class Child:
    """One slot's process. A successor takes over only once its predecessor is gone."""

    def __init__(self, orders: ChildOrders, counters: Counters) -> None:
        self._orders = orders
        self._cells = counters.cells
        self._current: Started | None = None
        self._successor: Started | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._has_been_told = False
        self._is_replaced = False
        self._has_changed = asyncio.Event()

    def start(self) -> None:
        """Keep the process running from now on."""
        self._keeper = asyncio.create_task(self._keep())

    async def answers(self) -> None:
        """Until the slot's process, or one that came after it, says that it answers."""
        while True:
            self._has_changed.clear()
            current = self._current
            if current and await current.progress.has_said(ANSWERS):
                return
            if self._current is current:
                await self._has_changed.wait()

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL when it takes longer than `patience_s`."""
        self._has_been_told = True
        if self._keeper is None:
            return
        if self._current is None:
            self._keeper.cancel()
        ending = {self._keeper}
        if self._successor:
            self._successor.signal(signal.SIGTERM)
            ending.add(asyncio.ensure_future(self._successor.process.wait()))  # type: ignore[arg-type]
        self._signal(signal.SIGTERM)
        _, pending = await asyncio.wait(ending, timeout=patience_s)
        if pending:
            self._kill(patience_s)
            if self._successor:
                self._successor.signal(signal.SIGKILL)
            await asyncio.wait(ending)

    async def replace(self, patience_s: float, *, stands_by: bool) -> bool:
        """Let another process take the slot over, of the code that is installed now; False: the old one stays.

        `stands_by`: it loads first, while the old one works on. The old one gets SIGHUP, and SIGKILL when it then takes
        longer than `patience_s`.
        """
        predecessor = self._current
        if predecessor is None:  # a pause before a restart: the next one is a new one
            return True
        if stands_by and not await self._prepare():
            return False
        if self._current is predecessor:
            self._is_replaced = True
            predecessor.signal(signal.SIGHUP)
            await self._await_end(predecessor, patience_s)
        if not stands_by:
            return True
        try:
            async with asyncio.timeout(START_S):
                await self.answers()
        except TimeoutError:
            log.error("successor_failed", role=self._orders.role, slot=self._orders.slot, reason="it does not answer")
            return False
        return True

    async def _prepare(self) -> bool:
        """Start a successor and wait until it stands by; False, and it is gone again, if it does not."""
        try:
            successor = self._successor = await self._spawn(replace(self._orders, is_successor=True))
        except (OSError, subprocess.SubprocessError) as error:
            log.error("successor_failed", role=self._orders.role, slot=self._orders.slot, reason=str(error))
            return False
        is_ready = False
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                is_ready = await successor.progress.has_said(STANDS_BY)
        if is_ready or self._successor is not successor:  # else the old one died meanwhile, and this one has its place
            return True
        self._successor = None
        ending = asyncio.ensure_future(successor.process.wait())
        # One that has just ended by itself is given the moment until that is seen: its code says why.
        if (await asyncio.wait((ending,), timeout=GONE_S))[1]:
            successor.signal(signal.SIGKILL)
        code = await ending
        log.error("successor_failed", role=self._orders.role, slot=self._orders.slot, code=code)
        return False

    async def _await_end(self, one: Started, patience_s: float) -> None:
        ending = asyncio.ensure_future(one.process.wait())
        _, pending = await asyncio.wait((ending,), timeout=patience_s)
        if pending:
            self._kill(patience_s)
            await ending
        while self._current is one:
            self._has_changed.clear()
            await self._has_changed.wait()

    async def _keep(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            started_s = time.monotonic()
            try:
                code: int | str = await self._run_once()
            except (OSError, subprocess.SubprocessError) as error:  # no memory or descriptor for it just now
                code = str(error)
            lived_s = time.monotonic() - started_s
            backoff_s = FIRST_BACKOFF_S if lived_s > STEADY_AFTER_S else min(MAX_BACKOFF_S, backoff_s * 2)
            if self._has_been_told:
                return
            is_replaced, self._is_replaced = self._is_replaced, False
            if is_replaced:
                continue
            log.error("child_died", role=self._orders.role, slot=self._orders.slot, code=code, restart_in_s=backoff_s)
            await asyncio.sleep(0 if self._successor else backoff_s)

    async def _run_once(self) -> int:
        """Be with the slot's process until its end: the one that stands by, or a new one. Its exit code."""
        current, self._successor = self._successor, None
        self._current = current = current or await self._spawn(self._orders)
        self._cells[_UP] = 1
        self._has_changed.set()
        try:
            if self._has_been_told:
                self._signal(signal.SIGTERM)
            return await current.process.wait()
        finally:
            for place in _GONE:
                self._cells[place] = 0
            self._current = None
            self._has_changed.set()

    async def _spawn(self, orders: ChildOrders) -> Started:
        started = await spawn(orders)
        self._cells[_STARTS] += 1
        return started

    def _kill(self, patience_s: float) -> None:
        log.error("child_killed", role=self._orders.role, slot=self._orders.slot, patience_s=patience_s)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._current is not None:
            self._current.signal(number)


async def run_once(orders: ChildOrders, patience_s: float) -> int:
    """The exit code of a process that has one thing to do; killed when that takes longer than `patience_s`."""
    try:
        started = await spawn(orders)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("child_died", role=orders.role, slot=orders.slot, code=str(error))
        return -1
    try:
        async with asyncio.timeout(patience_s):
            return await started.process.wait()
    except TimeoutError:
        log.error("child_killed", role=orders.role, slot=orders.slot, patience_s=patience_s)
        return -1
    finally:
        started.signal(signal.SIGKILL)


async def spawn(orders: ChildOrders) -> Started:
    """Start the interpreter on what is installed now. OSError, SubprocessError: not just now."""
    progress = Progress()
    orders = replace(orders, progress_fd=progress.write_fd)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",  # the current folder must not shadow a module
            "-m",
            "edge.child",
            orders.role,  # for eyes: ps shows who is who
            str(orders.slot),
            stdin=subprocess.PIPE,
            pass_fds=[orders.counters_fd, progress.write_fd, *orders.listen_fds, *(fd for _, _, fd in orders.slots)],
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    finally:
        progress.begin()
    if process.stdin:
        process.stdin.write(msgspec.msgpack.encode(orders))  # far less than a pipe holds
        process.stdin.close()
    return Started(process, progress)
