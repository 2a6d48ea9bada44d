"""The machine and the Python: parsers in C, processors, memory, descriptors, the kernel's network settings."""

import resource
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psutil

from edge.doctor.findings import Finding, fail, format_bytes, ok, skipped, warn
from edge.doctor.installation import Installation, processors

BACKLOG = 4096
"""Connections that each public socket lets wait."""
LEAST_DESCRIPTORS = 512
"""Below this a worker's journal, lease and catalog leave hardly any for connections."""
FEW_DESCRIPTORS = 8192
SESSION_BYTES, VISIT_BYTES = 300, 53
_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_parsers(found: Installation) -> Iterator[Finding]:
    """Whether what must be fast is the compiled kind."""
    missing = []
    for module, name in (
        ("aiohttp._http_parser", "HttpRequestParser"),
        ("httptools", "HttpRequestParser"),
        ("uvloop", "Loop"),
    ):
        try:
            getattr(import_module(module), name)
        except (ImportError, AttributeError):
            missing.append(module)
    if missing:
        yield fail(
            "parsers", f"not compiled or not there: {', '.join(missing)}", "install the locked wheels: make setup"
        )
    else:
        yield ok("parsers", "aiohttp's, httptools and uvloop are compiled")


def check_processors(found: Installation) -> Iterator[Finding]:
    """Whether workers share a core."""
    count, workers = processors(), found.settings.workers
    if workers > count:
        yield warn(
            "processors", f"{workers} workers on {count} cores: longer tails", f"set EDGE_WORKERS to {count} at most"
        )
    else:
        yield ok("processors", f"{count} for {workers} workers")


def check_memory(found: Installation) -> Iterator[Finding]:
    """What sessions and visits may grow to, against what there is."""
    settings = found.settings
    sessions = settings.workers * settings.session_capacity * SESSION_BYTES
    visits = settings.drains * settings.unique_capacity * VISIT_BYTES if settings.unique_hours else 0
    total = _memory()
    said = f"{format_bytes(sessions + visits)} of {format_bytes(total)} when sessions and visits are full"
    if sessions + visits > total // 2:
        yield warn("memory", said, "set EDGE_UNIQUE_CAPACITY or EDGE_SESSION_CAPACITY lower, or add memory")
    else:
        yield ok("memory", said)


def check_descriptors(found: Installation) -> Iterator[Finding]:
    """How many connections a worker can hold: serve raises its limit as far as it may."""
    try:
        _, most = resource.prlimit(found.serve_pid or 0, resource.RLIMIT_NOFILE)
    except OSError:
        yield skipped("descriptors", "the running serve's limit is not shown to this user")
        return
    whose = "the running serve" if found.serve_pid else "a serve started from here"
    said = f"{whose} may open {most} files in each process"
    advice = "raise it: LimitNOFILE=1048576 in the systemd unit, ulimit -Hn, or --ulimit nofile for a container"
    if most != resource.RLIM_INFINITY and most < LEAST_DESCRIPTORS:
        yield fail("descriptors", said, advice)
    elif most != resource.RLIM_INFINITY and most < FEW_DESCRIPTORS:
        yield warn("descriptors", f"{said}: more connections than that are refused", advice)
    else:
        yield ok("descriptors", said)


def check_kernel(found: Installation) -> Iterator[Finding]:
    """Queues of connections, and whether several sockets may share the public port."""
    if not _can_share_port():
        yield fail("kernel", "SO_REUSEPORT does not work here", "use a Linux kernel of 3.9 or later")
    queue = _read_number(_SOMAXCONN)
    if queue is not None and queue < BACKLOG:
        yield warn(
            "kernel",
            f"net.core.somaxconn is {queue}: in a burst more connections than that are refused",
            f"sysctl -w net.core.somaxconn={BACKLOG}, and in /etc/sysctl.d",
        )
        return
    migrates = {None: "not in this kernel", 0: "off", 1: "on"}.get(_read_number(_MIGRATE), "?")
    yield ok(
        "kernel", f"somaxconn {queue}, SO_REUSEPORT works, tcp_migrate_req {migrates} (serve's sockets outlive workers)"
    )


def _can_share_port() -> bool:
    try:
        with socket.socket() as first, socket.socket() as second:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            first.bind(("127.0.0.1", 0))
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            second.bind(first.getsockname())
    except OSError:
        return False
    return True


def _memory() -> int:
    limit = _read_number(_CGROUP_LIMIT)
    total = int(psutil.virtual_memory().total)
    return min(total, limit) if limit else total


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
