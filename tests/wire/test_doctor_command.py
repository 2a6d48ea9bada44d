"""`clickedge doctor` as a user types it: beside a running node, after its end, with settings that are wrong."""

import asyncio
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import COMMAND, Node


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node for all tests of this file; the last one stops it."""
    node = Node(short_directory / f"doctor-{uuid.uuid4().hex[:8]}")
    try:
        asyncio.run(node.start())
        yield node
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def run(node: Node, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command with the node's ports and data dir."""
    place = ["--data-dir", str(node.data_dir), "--port", str(node.port), "--admin-port", str(node.admin_port)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    done = subprocess.run(
        [COMMAND, "doctor", *place, "--host", "127.0.0.1", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**environ, **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, Any]]]:
    """Of `--json`, by subject."""
    said: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout)["findings"]:
        said.setdefault(finding["name"], []).append(finding)
    return said


def test_a_running_node_is_looked_at_whole(node: Node) -> None:
    """Nothing fails or is left out; ports, limits and the room of the journal are the running node's; no secret is shown."""
    done = run(node, "--json")
    assert done.returncode == 0, done.stdout
    said = findings(done)
    counts = json.loads(done.stdout)["counts"]
    assert (counts["fail"], counts["skipped"]) == (0, 0)
    assert said["serve"][0]["found"].endswith(f"(process {node.pid})")
    assert [one["found"].partition(" is ")[2] for one in said["ports"]] == ["held by the running serve"] * 2
    assert said["descriptors"][0]["found"].startswith("the running serve")
    assert said["partitions"][0]["state"] == said["node lease"][0]["state"] == "ok"
    assert "hours: room for" in said["time without PostgreSQL"][0]["found"]
    for name in ("secret", "admin.token"):
        assert (node.data_dir / name).read_text().strip() not in done.stdout
    assert node.database_url.partition("@")[0].rpartition(":")[2] not in done.stdout


def test_warnings_fail_only_a_strict_look(node: Node) -> None:
    """The example's offers are open to anybody: told in words with what to do, and exit code 1 with --strict."""
    done = run(node)
    assert done.returncode == 0
    assert "offers whose postbacks need neither token nor address" in done.stdout
    assert "→ give their advertisers a security_token" in done.stdout
    assert run(node, "--strict").returncode == 1


def test_a_fault_ends_with_one_and_bad_settings_with_two(node: Node, tmp_path: Path) -> None:
    """A geo database that is not there; then faults that serve would refuse, all of them, a line each."""
    done = run(node, env={"EDGE_GEOIP_DB": str(tmp_path / "nowhere.mmdb")})
    assert done.returncode == 1
    assert "nowhere.mmdb" in done.stdout
    done = run(node, env={"EDGE_WORKERS": "99", "EDGE_SECRET": "hunter22", "EDGE_WROKERS": "1"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert "hunter22" not in done.stderr


def test_a_stopped_node_is_looked_at_without_its_database(node: Node) -> None:
    """Its files are, its database is left out and says so; nothing in the data dir changes."""
    assert asyncio.run(node.stop()) == 0
    before = listing(node.data_dir)
    done = run(node, "--json")
    assert done.returncode == 0, done.stdout
    said = findings(done)
    assert [one["state"] for one in said["database"]] == ["skipped"]
    assert said["serve"][0]["found"].startswith("none runs on")
    assert [one["found"].partition(" is ")[2] for one in said["ports"]] == ["free", "free"]
    assert said["id lease"][0]["found"].startswith("1, behind the clock")
    assert listing(node.data_dir) == before


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and time."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }
