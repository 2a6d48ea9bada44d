"""Memory of every process and the backlog, once a second, from /proc and the journals: no fault can take them away."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.node import SoakNode

INTERVAL_S = 1.0


@dataclass
class Life:
    """One process from its first sample to its last. `seconds` are Unix time, `kib` is resident memory of its own:
    without shared memory, which is PostgreSQL's buffers and as large as they are set."""

    pid: int
    name: str
    seconds: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)


@dataclass
class Watch:
    """What was sampled so far."""

    node: SoakNode
    lives: dict[int, Life] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    backlog_bytes: list[int] = field(default_factory=list)
    """What is in the journals and not yet in PostgreSQL, in whole segments."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began_s = time.monotonic()
            self._sample(*await asyncio.to_thread(self._look))
            await asyncio.sleep(max(0.0, began_s + INTERVAL_S - time.monotonic()))

    def _look(self) -> tuple[float, dict[int, tuple[str, int]], int]:
        found = {}
        for pid, name in self.node.processes().items():
            with suppress(OSError, IndexError):
                found[pid] = name, own_kib(pid)
        return time.time(), found, self.node.undrained_bytes()

    def _sample(self, at_s: float, found: dict[int, tuple[str, int]], backlog_bytes: int) -> None:
        self.seconds.append(at_s)
        self.backlog_bytes.append(backlog_bytes)
        for pid, (name, kib) in found.items():
            life = self.lives.setdefault(pid, Life(pid, name))
            life.name = name
            life.seconds.append(at_s)
            life.kib.append(kib)


def own_kib(pid: int) -> int:
    """Resident memory without shared memory. OSError, IndexError: the process is gone, or about to be."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, shared = (int(status.partition(f"{name}:")[2].split()[0]) for name in ("VmRSS", "RssShmem"))
    return resident - shared
