"""`doctor`'s look at a stream: real servers, real journals."""

import asyncio
import json
import os
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.doctor.findings import Finding
from edge.doctor.installation import Installation
from edge.doctor.stream import check_stream, check_undrained, check_unshipped
from storage.files import hold_lock
from storage.journal.retention import mark_drained
from storage.journal.segments import read_journal
from storage.stream.cutting import Cutter, write_progress
from tests.deploy.stream_servers import StreamServer, serving
from tests.doctoring import make_installation, said_by
from tests.node import COMMAND, free_port
from tests.postgres.drains import Scribe


async def said_of_stream(data_dir: Path, **settings: Any) -> list[str]:
    """What `check_stream` says; it has an event loop of its own."""
    return await asyncio.to_thread(said_by, check_stream, make_installation(data_dir, **settings))


def settings_for(server: StreamServer, **others: Any) -> dict[str, Any]:
    """A node's settings for that server."""
    url = f"nats://edge:pedge1@127.0.0.1:{server.port}"
    return {"stream_url": url, "stream_replicas": 1, "stream_monitor_port": server.monitor_port, **others}


def test_without_a_stream_nothing_is_said_of_one(tmp_path: Path) -> None:
    """Neither of servers nor of journals."""
    found = make_installation(tmp_path)
    Scribe(tmp_path).close()
    assert said_by(check_stream, found) + said_by(check_unshipped, found) == []


async def test_a_server_as_we_configure_it_is_ok_but_for_being_alone(tmp_path: Path) -> None:
    """It lets us in and syncs each message; one replica is a risk, more than there are servers a fault of the settings."""
    async with serving(tmp_path) as server:
        assert await said_of_stream(tmp_path, **settings_for(server)) == [
            "warn: each event on 1 of 1 servers: its disk's loss is a loss of events",
            "ok: every server syncs each message before it acknowledges it",
            "ok: all of 1 servers let us in",
        ]
        [replicas, *_] = await said_of_stream(tmp_path, **settings_for(server, stream_replicas=3))
        assert replicas == "warn: EDGE_STREAM_REPLICAS is 3, and 1 servers are named"


async def test_a_server_that_does_not_sync_fails_unless_that_is_allowed(tmp_path: Path) -> None:
    """With the interval that it has; so does one that does not say."""
    async with serving(tmp_path, sync_interval="'2m'") as server:
        [_, syncing, _] = await said_of_stream(tmp_path, **settings_for(server))
        assert syncing.startswith("fail: a power cut of theirs may lose acknowledged events: ")
        assert "has sync_interval 120 s" in syncing
        [_, syncing, _] = await said_of_stream(tmp_path, **settings_for(server, allow_unsynced_stream=True))
        assert syncing.startswith("warn: ")
        [_, syncing, _] = await said_of_stream(tmp_path, **settings_for(server, stream_monitor_port=free_port()))
        assert syncing.startswith("fail: ")
        assert "does not say" in syncing


async def test_a_minority_that_does_not_say_is_a_warning(tmp_path: Path) -> None:
    """Shippers and drains go on without it: the majority that acknowledges syncs."""
    async with serving(tmp_path) as server:
        hosts = [f"127.0.0.{last}:{server.port}" for last in (1, 2, 3)]
        elsewhere = settings_for(server, stream_url=f"nats://edge:pedge1@{hosts[0]},localhost:{server.port},{hosts[2]}")
        [_, syncing, *_] = await said_of_stream(tmp_path, **elsewhere)
        assert syncing.startswith("warn: ")
        assert syncing.count("does not say") == 1


async def test_servers_that_are_away_are_named(tmp_path: Path) -> None:
    """One of two is a warning, without its password; all of them are a fault."""
    away = f"127.0.0.1:{free_port()}"
    async with serving(tmp_path) as server:
        url = f"nats://edge:pedge1@127.0.0.1:{server.port},{away}"
        [*_, one] = await said_of_stream(tmp_path, **settings_for(server, stream_url=url))
        assert one.startswith(f"warn: {away}: nobody answers")
    [*_, alone] = await said_of_stream(tmp_path, stream_url=f"nats://edge:pedge1@{away}", stream_monitor_port=free_port())
    assert alone.startswith(f"fail: {away}: nobody answers")


async def test_a_wrong_password_is_told_and_not_repeated(tmp_path: Path) -> None:
    """By the command, as an operator has it."""
    async with serving(tmp_path) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "EDGE_STREAM_URL": f"nats://edge:wrong-one@127.0.0.1:{server.port}",
            "EDGE_STREAM_MONITOR_PORT": str(server.monitor_port),
        }
        command = [COMMAND, "doctor", "--json", "--data-dir", tmp_path / "data", "--port", "0", "--admin-port", "0"]
        doctor = await asyncio.create_subprocess_exec(*map(str, command), env=environment, stdout=PIPE, stderr=PIPE)
        printed, complaints = await doctor.communicate()
    findings = {one["name"]: one for one in json.loads(printed)["findings"]}
    assert findings["stream"]["state"] == "fail"
    assert "authorization" in findings["stream"]["found"].lower()
    assert b"wrong-one" not in printed + complaints


@pytest.fixture
def streamed(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """A data dir with a journal that goes to a stream and one that does not: what is said of them."""
    scribes = [Scribe(tmp_path, partitions=4), Scribe(tmp_path)]
    for scribe in scribes:
        scribe.click()

    def said(*, serve_pid: int | None = None, **settings: Any) -> list[str]:
        found: Installation = make_installation(tmp_path, **settings)
        return said_by(check_unshipped, found._replace(serve_pid=serve_pid))

    yield said
    for scribe in scribes:
        scribe.close()


def test_journals_that_nobody_ships_are_told(streamed: Callable[..., list[str]], tmp_path: Path) -> None:
    """A fault where the stream was switched off or the shipper is missing; well with a shipper, and when all is shipped."""
    [off] = streamed()
    assert off.startswith("fail: ")
    assert "of 1 journals are not shipped yet, EDGE_STREAM_URL is empty, and no drain of this machine" in off
    url = "nats://127.0.0.1:1"
    assert [one[:5] for one in (*streamed(stream_url=url, serve_pid=0), *streamed(stream_url=url))] == ["fail:", "warn:"]
    lock = hold_lock(tmp_path / "ship.lock")
    assert lock is not None
    assert streamed(stream_url=url)[0].endswith("of 1 journals are not shipped yet, and a shipper works on them")
    os.close(lock)
    [path] = [one.parent for one in (tmp_path / "journal").glob("*/stream")]
    cutter = Cutter(read_journal(path), None)
    cutter.opening()
    cutter.closing()
    write_progress(path, cutter.progress)
    assert streamed(stream_url=url) == ["ok: every journal that goes to the stream is shipped"]
    assert streamed() == []


def test_journals_that_nobody_drains_are_told(tmp_path: Path) -> None:
    """With a stream: those from before it are a fault where EDGE_DRAINS is 0, and told where a drain works on them."""
    scribes = [Scribe(tmp_path, partitions=4), Scribe(tmp_path)]
    for scribe in scribes:
        scribe.click()
        scribe.close()
    said = "1 journals were begun without a stream and are not wholly stored"
    [none, one] = (make_installation(tmp_path, stream_url="nats://127.0.0.1:1", drains=drains) for drains in (0, 1))
    assert said_by(check_undrained, none) == [f"fail: {said}, and EDGE_DRAINS is 0"]
    assert said_by(check_undrained, one) == [f"ok: {said}: keep a drain here (EDGE_DRAINS above 0) until they are"]
    assert said_by(check_undrained, make_installation(tmp_path)) == []
    mark_drained(scribes[1].writer.directory, 1, now_s=time.time())
    assert said_by(check_undrained, none) == [
        "ok: no journal of this machine needs a drain of its own"
    ]


def test_each_finding_that_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    """Advice is empty only where there is nothing to do."""
    found = make_installation(tmp_path, stream_url=f"nats://127.0.0.1:{free_port()}", stream_monitor_port=free_port())
    findings: list[Finding] = [*check_stream(found), *check_unshipped(found)]
    assert [one.name for one in findings if one.state != "ok" and not one.advice] == []
