"""deploy/cluster/nats.conf on a real server: what each user needs works, and nothing beside it."""

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig

from storage.stream.shipments import RESEND, STREAM, SUBJECT, subject_of
from tests.deploy.stream_servers import CONFIG, NATS_SERVER, StreamServer, environment_of, serving
from tests.node import eventually

CONFIGURED = StreamConfig(
    name=STREAM, subjects=[f"{SUBJECT}.*"], storage=StorageType.FILE, discard=DiscardPolicy.NEW, max_bytes=2**20
)
READER = ConsumerConfig(
    name="reader",
    ack_policy=AckPolicy.NONE,
    deliver_policy=DeliverPolicy.ALL,
    filter_subjects=[subject_of(0), subject_of(3)],
    mem_storage=True,
    inactive_threshold=30.0,
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StreamServer]:
    """One, with a stream made by an edge and a message in it."""
    async with serving(tmp_path) as server:
        refused: list[str] = []
        async with server.connected("edge", refused) as edge:
            await edge.jetstream().add_stream(CONFIGURED)
            await edge.jetstream().publish(subject_of(3), b"first")
        assert refused == []
        yield server


def test_nats_takes_the_configuration(tmp_path: Path) -> None:
    """Three servers' own check of the file, with the routes as the examples give them."""
    environment = environment_of(tmp_path, '["nats://route:p1@nats-0:6222", "nats://route:p1@nats-1:6222"]')
    done = subprocess.run([NATS_SERVER, "--config", CONFIG, "-t"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_each_message_is_synced_and_the_monitoring_port_says_so(server: StreamServer) -> None:
    """Where edges look it up before they trust a server."""
    address = f"http://127.0.0.1:{server.monitor_port}/varz"
    said = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(address, timeout=5)))
    assert said["jetstream"]["config"]["sync_always"] is True


async def test_an_edge_may_do_what_a_shipper_does(server: StreamServer) -> None:
    """Make and change the stream, ask for it, publish in every partition, hear requests."""
    refused: list[str] = []
    async with server.connected("edge", refused) as edge:
        stream = edge.jetstream()
        await stream.update_stream(CONFIGURED.evolve(max_bytes=2**21))
        assert (await stream.publish(subject_of(255), b"second")).seq == 2
        assert (await stream.stream_info(STREAM)).state.messages == 2
        asked = await edge.subscribe(RESEND)
        await edge.flush()
        async with server.connected("drain", refused) as drain:
            await drain.publish(RESEND, b"from there")
            assert (await asked.next_msg(timeout=5)).data == b"from there"
    assert refused == []


async def test_a_drain_may_do_what_a_drain_does(server: StreamServer) -> None:
    """Ask for the stream, read its partitions by a consumer of its own, with a name and without, and purge what is stored."""
    refused: list[str] = []
    async with server.connected("drain", refused) as drain:
        stream = drain.jetstream()
        for config in (READER, READER.evolve(name=None), READER.evolve(filter_subjects=None, filter_subject=subject_of(3))):
            made = await stream.add_consumer(STREAM, config)
            reading = await stream.pull_subscribe_bind(made.name, STREAM)
            assert [message.data for message in await reading.fetch(1, timeout=5)] == [b"first"]
            assert (await stream.consumer_info(STREAM, made.name)).num_pending == 0
            await stream.delete_consumer(STREAM, made.name)
        await stream.purge_stream(STREAM, seq=2)
        assert (await stream.stream_info(STREAM)).state.messages == 0
    assert refused == []


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("edge", "$JS.API.CONSUMER.CREATE.CLICKEDGE"),
        ("edge", "$JS.API.STREAM.MSG.GET.CLICKEDGE"),
        ("edge", "$JS.API.DIRECT.GET.CLICKEDGE"),
        ("edge", "$JS.API.STREAM.PURGE.CLICKEDGE"),
        ("edge", "$JS.API.STREAM.DELETE.CLICKEDGE"),
        ("edge", "$JS.API.STREAM.CREATE.ANOTHER"),
        ("edge", "clickedge.resend"),
        ("drain", "clickedge.events.0"),
        ("drain", "$JS.API.STREAM.CREATE.CLICKEDGE"),
        ("drain", "$JS.API.STREAM.UPDATE.CLICKEDGE"),
        ("drain", "$JS.API.STREAM.DELETE.CLICKEDGE"),
        ("drain", "$JS.API.STREAM.MSG.DELETE.CLICKEDGE"),
        ("drain", "$SYS.REQ.SERVER.PING"),
    ],
)
async def test_nobody_may_publish_what_is_not_theirs(server: StreamServer, user: str, subject: str) -> None:
    """The server says so, and the stream is as it was."""
    refused: list[str] = []
    async with server.connected(user, refused) as client:
        with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
            await client.request(subject, b"", timeout=0.05)

        async def is_refused() -> bool:
            return len(refused) == 1

        await eventually(is_refused, 5.0)
        assert f'permissions violation for publish to "{subject.lower()}"' in refused[0].lower()
    async with server.connected("edge", []) as edge:
        assert (await edge.jetstream().stream_info(STREAM)).state.messages == 1


@pytest.mark.parametrize(("user", "subject"), [("edge", "clickedge.events.*"), ("edge", ">"), ("drain", ">"), ("drain", RESEND)])
async def test_nobody_may_listen_to_what_is_not_theirs(server: StreamServer, user: str, subject: str) -> None:
    """Events as they pass, and everything."""
    refused: list[str] = []
    async with server.connected(user, refused) as client:
        await client.subscribe(subject)
        await client.flush()

        async def is_refused() -> bool:
            return len(refused) == 1

        await eventually(is_refused, 5.0)
        assert "permissions violation for subscription" in refused[0].lower()


@pytest.mark.parametrize("said", [{}, {"user": "edge"}, {"user": "edge", "pass": "pdrain1"}, {"user": "root", "pass": ""}])
async def test_without_a_password_of_theirs_nobody_comes_in(server: StreamServer, said: dict[str, str]) -> None:
    """Nameless, without a password, with another's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        assert (await reader.readline()).startswith(b"INFO ")
        writer.write(b"CONNECT " + json.dumps({"verbose": False, "pedantic": False, **said}).encode() + b"\r\nPING\r\n")
        assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
        assert await reader.read() == b""
    finally:
        writer.close()
