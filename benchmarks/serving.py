"""Servers under measurement: started, pinned to a core, asked for the CPU they used, ended; and wrk, which loads them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

SERVER_CPU, REST_CPU = 0, 1
"""The measured process alone on the first core; clients and everything else on the second."""
EXAMPLE_CATALOG = Path(__file__).parent.parent / "examples" / "catalog.toml"
READY_S = 60.0
STOP_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Cpu(NamedTuple):
    """Seconds of CPU a process has used, its ended threads included."""

    user_s: float
    system_s: float


class Load(NamedTuple):
    """What wrk saw in one run: a closed loop, so its latencies say how long the queue was, not how slow the server."""

    requests: int
    rate_per_s: float
    p50_us: float
    p99_us: float
    failures: int


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_of(pid: int) -> Cpu:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Cpu(int(fields[11]) / _TICKS_PER_S, int(fields[12]) / _TICKS_PER_S)


def cpu_of_family(pid: int) -> Cpu:
    """What the process and those it started have used so far."""
    used = [cpu_of(member) for member in [pid, *_descendants(pid)]]
    return Cpu(sum(one.user_s for one in used), sum(one.system_s for one in used))


def pin(pid: int, cpu: int) -> None:
    """Put every thread of the process on that core; on a machine with one core there is nothing to choose."""
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})


def start(command: Sequence[str], *, cpu: int, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A server, pinned from its first instruction; what it says goes to stderr."""
    return subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=lambda: pin(os.getpid(), cpu),  # noqa: PLW1509 - one thread, before exec
    )


def wait_until_answers(url: str, process: subprocess.Popen[bytes], timeout_s: float = READY_S) -> None:
    """Until a GET of `url` is answered, whatever the status; RuntimeError when the server ends or is too slow."""
    opener = urllib.request.build_opener(_NoRedirect)
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
        try:
            opener.open(url, timeout=2).close()
        except urllib.request.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{url} is not answered within {timeout_s:.0f} s")


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Signal the server and wait for its end."""
    with suppress(ProcessLookupError):
        process.send_signal(number)
    process.wait(STOP_S)


def run_wrk(
    url: str,
    *,
    seconds: int,
    connections: int = 64,
    script: Path | None = None,
    arguments: Sequence[str] = (),
    cpu: int | None = REST_CPU,
) -> Load:
    """Load `url` with one wrk thread, on any core if `cpu` is None; `arguments` go to the script.

    RuntimeError without wrk (Debian's package), CalledProcessError when it fails.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is missing; as root: make system")
    command = [
        program,
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        *(["-s", str(script)] if script else []),
        url,
        "--",
        *arguments,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=None if cpu is None else lambda: pin(os.getpid(), cpu),
    )
    return _read_wrk(done.stdout)


def _read_wrk(said: str) -> Load:
    failures = sum(map(int, re.findall(r"(?:connect|read|write|timeout|Non-2xx or 3xx responses:?) (\d+)", said)))
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    shares = {
        share: float(value) * _MICROSECONDS[unit]
        for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", said)
    }
    return Load(requests, rate, shares["50"], shares["99"], failures)


class Node:
    """One `clickedge serve` in a directory of its own: workers alone on a core each, everything else on the last."""

    def __init__(self, *, catalog: Path = EXAMPLE_CATALOG, directory: str = "/var/tmp", **env: str) -> None:
        # Not mkdtemp's 0700: as root the server runs as another user, who must get there.
        self.directory = Path(tempfile.mkdtemp(prefix="clickedge-bench-", dir=directory))
        self.directory.chmod(0o711)
        self.data_dir = self.directory / "data"
        self.catalog = catalog
        self.port, self.admin_port = free_port(), free_port()
        self.origin, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self._env = env

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("clickedge")), "serve", "--host", "127.0.0.1",
                "--port", str(self.port), "--admin-port", str(self.admin_port),
                "--data-dir", str(self.data_dir), "--apply", str(self.catalog),
            ],
            env={**kept, **self._env}, stdin=subprocess.DEVNULL,
            stdout=(self.directory / "log").open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_until_answers(f"{self.admin}/readyz", self.process)
            wait_until_answers(f"{self.origin}/readyz", self.process)
            self.pin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def database_url(self) -> str:
        """The embedded database."""
        return (self.data_dir / "database.url").read_text().strip()

    def pids(self, role: str) -> list[int]:
        """Running processes of a role: worker, drain, admin or postgres (its server and all backends)."""
        family = _descendants(self.process.pid)
        if role == "postgres":
            return [pid for pid in family if b"postgres" in _command(pid)]
        return [pid for pid in family if b"edge.child\0" + role.encode() in _command(pid)]

    def pin(self) -> None:
        """Each worker on a core of its own as far as there are any, the others on the last one."""
        cores = sorted(os.sched_getaffinity(0))
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            pin(pid, cores[-1])
        for index, pid in enumerate(self.pids("worker")):
            pin(pid, cores[index % len(cores)])

    def pause(self, role: str) -> None:
        """Stop a role's processes: the drain shares a core with the client, and is measured by itself."""
        for pid in self.pids(role):
            os.kill(pid, signal.SIGSTOP)

    def resume(self, role: str) -> None:
        """Let them go on."""
        for pid in self.pids(role):
            os.kill(pid, signal.SIGCONT)

    def metric(self, name: str, **labels: str) -> float:
        """A sum from the admin page, as `metric_of`."""
        return metric_of(self.admin, name, **labels)


def metric_of(admin: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples on the admin page that have these labels; 0 where there is none."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if re.split(r"[{ ]", line, maxsplit=1)[0] == name and all(pair in line for pair in wanted)
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _descendants(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    children.append(int(entry.name))
    return [*children, *(pid for child in children for pid in _descendants(child))]
