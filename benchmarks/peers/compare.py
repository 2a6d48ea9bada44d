"""Requests per second of ClickEdge and its peers, each alone on the first core, wrk on the second, rounds taking turns.

wrk waits for each answer before it asks again (a closed loop), so its latencies tell how long 64 connections queue for one
core, not how fast an answer is.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.loads import LOADS, Account, Sample, measure, write_postbacks
from benchmarks.peers.servers import PEERS, PEERS_VENV, Target, running, running_node
from benchmarks.peers.table import Figures, draw, markdown, rewrite_readme, summarise
from benchmarks.report import publish, surroundings
from benchmarks.serving import Node, run_wrk

SUMMARY = "requests/s of the whole click and postback beside nginx, aiohttp, BlackSheep, Sanic, Robyn and FastAPI"
OURS, OURS_ON_DISK = "ClickEdge", "ClickEdge, conversions on disk"
PEER_PACKAGES = ("blacksheep", "fastapi", "httptools", "robyn", "sanic", "uvicorn", "uvloop")
POSTBACKS = 20_000
WARM_UP_S = 1
_WHOLE = "the whole click: in the journal before the answer"


class Row(NamedTuple):
    """What is measured: a server under a load."""

    server: str
    load: str
    does: str

    @property
    def name(self) -> str:
        return f"{self.server}: {self.load}"


CLIENT = "constant bytes (uvloop)"
ROWS = (
    Row(OURS_ON_DISK, "postbacks", "the same, and an fsync before the answer"),
    Row(OURS, "postbacks", "finds its click in memory; in the journal before the answer"),
    Row(OURS, "impressions", "a GIF; in the journal before the answer"),
    *(
        Row(name, "clicks", does)
        for name, does in ((OURS, _WHOLE), *((name, peer.does) for name, peer in PEERS.items()))
    ),
    Row(OURS, "varied clicks", _WHOLE),
    *(Row(name, "varied clicks", PEERS[name].does) for name in ("nginx + log", "aiohttp", CLIENT)),
)
"""In the order of a round: what is compared with each other stands together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5, help="of all rows in turn (default: 5)")
    parser.add_argument("--seconds", type=int, default=5, help="a row and round (default: 5)")
    parser.add_argument("--connections", type=int, default=64, help="kept alive, one request each (default: 64)")
    parser.add_argument("--servers", nargs="*", metavar="NAME", help="only those whose name begins so")
    parser.add_argument("--directory", default="/var/tmp", help="for journals and logs: on a real disk")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, keep the result and the plot, and put the table into the page beside them."""
    facts = surroundings()
    root = Path(tempfile.mkdtemp(prefix="clickedge-peers-", dir=arguments.directory))
    root.chmod(0o711)  # nginx's worker is another user
    try:
        with _Bench.started(arguments, root) as bench:
            bench.measure_rounds()
            journals = bench.check_journals()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows = summarise(bench.samples, {row.name: row for row in ROWS})
    publish("peers", {**facts, **_settings(arguments), "rows": _plain(rows), "left_out": bench.absent, **journals})
    draw(rows)
    table = markdown(rows, bench.absent, facts, arguments)
    print(table)
    rewrite_readme(table)


@dataclass
class _Bench:
    """All servers, running, and what was measured of them. Only one has anything to do at a time."""

    arguments: argparse.Namespace
    paths: Path
    targets: dict[str, Target] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def started(cls, arguments: argparse.Namespace, root: Path) -> "Iterator[_Bench]":
        """Everything that can be had; `absent` says why the rest cannot."""
        bench = cls(arguments, root / "postbacks.txt")
        with ExitStack() as stack:
            for server, durability in ((OURS, "process"), (OURS_ON_DISK, "disk")):
                if bench.is_wanted(server):
                    bench._adopt(server, stack.enter_context(running_node(durability, arguments.directory)))
            for number, (server, peer) in enumerate(PEERS.items()):
                if bench.is_wanted(server):
                    try:
                        bench.targets[server] = stack.enter_context(running(peer, root / f"peer-{number}"))
                    except RuntimeError as error:
                        bench.absent[server] = str(error)
            yield bench

    def is_wanted(self, server: str) -> bool:
        """Whether the command line asks for it."""
        chosen = self.arguments.servers
        return not chosen or any(server.startswith(name) for name in chosen)

    def measure_rounds(self) -> None:
        """Rounds over all rows, every second one backwards, so that none always follows the same other."""
        rows = [row for row in ROWS if row.server in self.targets]
        for server in dict.fromkeys(row.server for row in rows):
            with self._unless_peer_fails(server):
                run_wrk(self.targets[server].origin + LOADS["clicks"].path, seconds=WARM_UP_S)
        for number in range(self.arguments.rounds):
            print(f"round {number + 1} of {self.arguments.rounds}")
            for row in rows if number % 2 == 0 else reversed(rows):
                self._measure(row)

    def check_journals(self) -> dict[str, Any]:
        """What our nodes answered and journalled; RuntimeError unless all of it is there."""
        return {"journal": {server: account.check_journal() for server, account in self.accounts.items()}}

    def _adopt(self, server: str, node: Node) -> None:
        self.nodes[server] = node
        self.targets[server] = Target(node.origin, node.pids("worker")[0])
        self.accounts[server] = Account(node)

    def _measure(self, row: Row) -> None:
        if row.server in self.absent:
            return
        with self._unless_peer_fails(row.server):
            sample = self._sample(row)
            self.samples.setdefault(row.name, []).append(sample)
            print(f"  {row.name:<46} {sample.rate_per_s:>9,.0f}/s  {sample.failures} failures")

    @contextmanager
    def _unless_peer_fails(self, server: str) -> Iterator[None]:
        """A peer that fails is asked no more, and named in the table; when we fail, so does the run."""
        try:
            yield
        except (OSError, HTTPException, subprocess.CalledProcessError, ZeroDivisionError) as error:
            if server in self.nodes:
                raise
            self.absent[server] = f"failed under load: {error}"

    def _sample(self, row: Row) -> Sample:
        load, node = LOADS[row.load], self.nodes.get(row.server)
        if node and load.kind == "postback":
            write_postbacks(node, POSTBACKS, self.paths)

        def measured() -> Sample:
            return measure(
                self.targets[row.server],
                load,
                self.paths,
                seconds=self.arguments.seconds,
                connections=self.arguments.connections,
            )

        if not node:
            return measured()
        return self.accounts[row.server].check_round(load, self.arguments.connections, measured)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "connections": arguments.connections,
        "peers": _peer_versions(),
    }


def _peer_versions() -> dict[str, str]:
    found = distributions(path=[str(path) for path in PEERS_VENV.glob("lib/python*/site-packages")])
    programs = {"nginx": _version("nginx", "/usr/sbin"), "wrk": _version("wrk")}
    return programs | {one.name: one.version for one in found if one.name in PEER_PACKAGES}


def _version(program: str, *directories: str) -> str:
    """What it says to -v, of which the first number counts: nginx says it on stderr, wrk with a usage page and code 1."""
    place = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *directories]))
    if place is None:
        return "missing"
    said = subprocess.run([place, "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.[\d.]+", said.stdout + said.stderr)
    return found[0] if found else "unknown"


def _plain(rows: dict[str, Figures]) -> dict[str, dict[str, Any]]:
    return {name: figures._asdict() for name, figures in rows.items()}
