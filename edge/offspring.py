"""A child process as the supervisor keeps it: started, told, watched, restarted with back-off, stopped."""

import asyncio
import signal
import subprocess
import sys
import time

import msgspec
import structlog

from edge.counters import OF_A_LIVING_PROCESS, Counters, cell
from edge.processes import ChildOrders, die_with_parent

log = structlog.get_logger()

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STEADY_AFTER_S = 10.0

_STARTS = cell("edge_process_starts_total")
_UP = cell("edge_process_up")
_GONE = [_UP, *map(cell, OF_A_LIVING_PROCESS)]


class Child:
    """One slot's process. A successor starts only once its predecessor is gone."""

    def __init__(self, orders: ChildOrders, counters: Counters) -> None:
        self._orders = orders
        self._cells = counters.cells
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._has_been_told = False

    def start(self) -> None:
        """Keep the process running from now on."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL when it takes longer than `patience_s`."""
        self._has_been_told = True
        if self._keeper is None:
            return
        if self._process is None:
            self._keeper.cancel()
        else:
            self._signal(signal.SIGTERM)
        _, pending = await asyncio.wait((self._keeper,), timeout=patience_s)
        if pending:
            log.error("child_killed", role=self._orders.role, slot=self._orders.slot, patience_s=patience_s)
            self._signal(signal.SIGKILL)
            await asyncio.wait((self._keeper,))

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
            log.error("child_died", role=self._orders.role, slot=self._orders.slot, code=code, restart_in_s=backoff_s)
            await asyncio.sleep(backoff_s)

    async def _run_once(self) -> int:
        orders = self._orders
        descriptors = [orders.counters_fd, *orders.listen_fds, *(fd for _, _, fd in orders.slots)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",  # the current folder must not shadow a module
            "-m",
            "edge.child",
            orders.role,  # for eyes: ps shows who is who
            str(orders.slot),
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self._cells[_STARTS] += 1
        self._cells[_UP] = 1
        try:
            if self._has_been_told:
                self._signal(signal.SIGTERM)
            await self._process.communicate(msgspec.msgpack.encode(orders))
            return await self._process.wait()
        finally:
            for place in _GONE:
                self._cells[place] = 0
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
