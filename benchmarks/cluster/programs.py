"""The product's processes: edges (`clickedge serve`) and drains (`clickedge drain`), each with a directory of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp

from benchmarks.nats import die_with_parent, free_port
from benchmarks.serving import _command, _descendants
from benchmarks.soak.node import SoakFailed, is_running, kill, says_ready
from storage.postgres.server_user import make_data_dir

COMMAND = Path(sys.executable).with_name("clickedge")
READY_S = 120.0
STOP_S = 90.0


class Program:
    """One `clickedge …` that runs on. Directory and ports stay the same over restarts."""

    def __init__(self, name: str, directory: Path, env: Mapping[str, str], admin_port: int = 0) -> None:
        """`directory` is its own, and holds `data` and `log`; `admin_port` 0: a free one."""
        self.name = name
        self.directory = directory
        self.data_dir = directory / "data"
        self.admin_port = admin_port or free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def arguments(self) -> list[str]:
        """Of the command."""
        raise NotImplementedError

    @property
    def expected(self) -> dict[str, int]:
        """How many processes of each role it must have."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Its first process. SoakFailed: it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise SoakFailed(f"{self.name} does not run: {self.last_words()}")
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Whether its first process runs."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it, from the main thread; `wait_ready` says when it works."""
        make_data_dir(self.directory)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(COMMAND), *self.arguments], env={**kept, **self._env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent(),  # noqa: PLW1509 - it takes no lock
            )  # fmt: skip

    async def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until all its processes run and say that they are ready. SoakFailed after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while not await self.is_well():
            _ = self.pid
            if time.monotonic() > deadline_s:
                counts = {role: len(self.pids(role)) for role in self.expected}
                raise SoakFailed(f"{self.name} is not ready after {timeout_s:.0f} s: {counts}; {self.last_words()}")
            await asyncio.sleep(0.1)

    async def is_well(self) -> bool:
        """Whether all its processes run and it says that it is ready."""
        if not self.is_up or any(len(self.pids(role)) != count for role, count in self.expected.items()):
            return False
        return all([await says_ready(origin) for origin in self.origins])

    @property
    def origins(self) -> list[str]:
        """Where it must say that it is ready."""
        return [self.admin]

    def pids(self, role: str) -> list[int]:
        """Running processes of a role."""
        if not self.is_up:
            return []
        return [one for one in _descendants(self.pid) if b"edge.child\0" + role.encode() + b"\0" in _command(one)]

    def family(self) -> list[int]:
        """All its processes."""
        return [self.pid, *_descendants(self.pid)]

    async def kill_role(self, role: str) -> int:
        """kill -9 of the one process of a role; its id."""
        pids = self.pids(role)
        if not pids:
            raise SoakFailed(f"{self.name} has no {role}")
        await kill(pids[0])
        return pids[0]

    async def kill_supervisor(self) -> None:
        """kill -9 of its first process, and until those below it have followed."""
        await self._kill([self.pid])

    async def kill_all(self) -> None:
        """kill -9 of every process at once: a machine that is gone. Workers first: without a shipper they would answer on
        their own, for the moment that is between two kills here and is none where a machine is lost.
        """
        await self._kill([*self.pids("worker"), *self.family()])

    async def _kill(self, victims: list[int]) -> None:
        family = self.family()
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, STOP_S)

        async def are_gone() -> bool:
            return not any(map(is_running, family))

        await eventually(are_gone, 30, f"processes of {self.name} outlived its first one")

    def ask_to_stop(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    async def stop(self) -> int:
        """SIGTERM and its end; the exit code. SoakFailed when it does not end."""
        self.ask_to_stop()
        if self._process is None:
            return 0
        try:
            return await asyncio.to_thread(self._process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            for pid in self.family():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise SoakFailed(f"{self.name} did not end within {STOP_S:.0f} s: {self.last_words()}") from None

    def lose_disk(self) -> None:
        """What it had in its data dir is gone; it must not run."""
        if self.is_up:
            raise SoakFailed(f"{self.name} still runs")
        shutil.rmtree(self.data_dir)

    async def metrics(self) -> dict[str, float]:
        """Its metrics page, each sample with its labels; empty when it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            patience = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=patience) as session, session.get(f"{self.admin}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
            return {name: float(value) for name, _, value in samples}
        return {}

    @property
    def log(self) -> Path:
        """What its processes said."""
        return self.directory / "log"

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "it was never started"


class Edge(Program):
    """`clickedge serve` without drains of its own."""

    def __init__(self, number: int, directory: Path, catalog: Path, env: Mapping[str, str], ports: tuple[int, int] = (0, 0)) -> None:
        """`number` is its node id; `ports`: public and admin, 0: a free one."""
        super().__init__(f"edge {number}", directory, {"EDGE_NODE_ID": str(number), **env}, ports[1])
        self.number = number
        self.port = ports[0] or free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self._catalog = catalog

    @property
    def arguments(self) -> list[str]:
        """Of the command."""
        return [
            "serve", "--host", "127.0.0.1", "--port", str(self.port), "--admin-port", str(self.admin_port),
            "--data-dir", str(self.data_dir), "--apply", str(self._catalog),
        ]  # fmt: skip

    @property
    def expected(self) -> dict[str, int]:
        """How many processes of each role it must have."""
        return {"worker": int(self._env.get("EDGE_WORKERS", "1")), "shipper": 1, "sender": 1, "admin": 1}

    @property
    def origins(self) -> list[str]:
        """Where it must say that it is ready."""
        return [self.origin, self.admin]

    def reload(self) -> None:
        """SIGHUP: it replaces its processes, one after the other."""
        os.kill(self.pid, signal.SIGHUP)


class DrainProgram(Program):
    """`clickedge drain`: one drain process that stores partitions of the stream."""

    def __init__(self, number: int, directory: Path, env: Mapping[str, str], admin_port: int = 0) -> None:
        """`number` is only its name's."""
        super().__init__(f"drain {number}", directory, env, admin_port)
        self._env = {**env, "EDGE_ADMIN_PORT": str(self.admin_port), "EDGE_DATA_DIR": str(self.data_dir)}

    @property
    def arguments(self) -> list[str]:
        """Of the command."""
        return ["drain"]

    @property
    def expected(self) -> dict[str, int]:
        """How many processes of each role it must have."""
        return {"drain": 1}


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float, fault: str, every_s: float = 0.1) -> float:
    """Until `check` says yes; how long that took. SoakFailed with `fault` after `timeout_s`."""
    began_s = time.monotonic()
    while not await check():
        if time.monotonic() - began_s > timeout_s:
            raise SoakFailed(f"{fault} after {timeout_s:.0f} s")
        await asyncio.sleep(every_s)
    return time.monotonic() - began_s
