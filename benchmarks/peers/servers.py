"""The servers beside ours: what each does, how it is started, and the CPU it uses."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.serving import SERVER_CPU, Cpu, Node, cpu_of_family, free_port, start, wait_until_answers

HERE = Path(__file__).parent
PEERS_VENV = HERE.parent.parent / ".venv-peers"
PEERS_PYTHON = PEERS_VENV / "bin" / "python"
PATIENCE_S = 5.0
JOURNAL_MAX_BYTES = "1000GiB"
"""Nothing is drained while clicks are counted, and none may be dropped for want of room."""


class Target(NamedTuple):
    """A server that runs: where it answers, and the process that does (its children are counted with it)."""

    origin: str
    pid: int

    def cpu(self) -> Cpu:
        """What it has used so far."""
        return cpu_of_family(self.pid)


class Peer(NamedTuple):
    """A server to compare with. `command` gets a port and a directory of its own for its files."""

    does: str
    command: Callable[[int, Path], list[str]]


def _nginx(access_log: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise RuntimeError("nginx is missing; as root: make system")
        text = (HERE / "nginx.conf").read_text(encoding="utf-8")
        conf = directory / "nginx.conf"
        conf.write_text(text.replace("@PORT@", str(port)).replace("@ACCESS_LOG@", access_log), encoding="utf-8")
        return [program, "-p", str(directory), "-e", "stderr", "-c", str(conf)]

    return command


def _app(name: str, python: Path = PEERS_PYTHON) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        if not python.exists():
            raise RuntimeError("not installed; make setup-peers")
        return [str(python), str(HERE / "apps" / f"{name}.py"), str(port)]

    return command


_OURS = Path(sys.executable)
_REDIRECTS = "redirects, records nothing"
PEERS = {
    "nginx + log": Peer("redirects, writes a buffered access log", _nginx("access.log combined buffer=64k flush=1s")),
    "aiohttp": Peer(_REDIRECTS, _app("aiohttp_app", _OURS)),
    "nginx": Peer(_REDIRECTS, _nginx("off")),
    "BlackSheep + uvicorn": Peer(_REDIRECTS, _app("blacksheep_app")),
    "Sanic": Peer(_REDIRECTS, _app("sanic_app")),
    "Robyn": Peer(_REDIRECTS, _app("robyn_app")),
    "FastAPI + uvicorn": Peer(_REDIRECTS, _app("fastapi_app")),
    "constant bytes (uvloop)": Peer("parses nothing: what Python and the client can do", _app("constant_app", _OURS)),
}


@contextmanager
def running(peer: Peer, directory: Path) -> Iterator[Target]:
    """The peer, pinned to the first core; RuntimeError when it cannot be had."""
    directory.mkdir()
    port = free_port()
    process = start(peer.command(port, directory), cpu=SERVER_CPU)
    try:
        target = Target(f"http://127.0.0.1:{port}", process.pid)
        wait_until_answers(f"{target.origin}/aff_c?offer_id=17&aff_id=2", process)
        yield target
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:  # Robyn stays after SIGTERM
        process.kill()
        process.wait()


@contextmanager
def running_node(conversion_durability: str, directory: str, workers: int = 1) -> Iterator[Node]:
    """ClickEdge itself with its drain paused: it would run on the client's core, and is measured by itself."""
    with Node(
        directory=directory,
        EDGE_WORKERS=str(workers),
        EDGE_JOURNAL_MAX_BYTES=JOURNAL_MAX_BYTES,
        EDGE_CONVERSION_DURABILITY=conversion_durability,
    ) as node:
        node.pause("drain")
        try:
            yield node
        finally:
            node.resume("drain")
