"""deploy/cluster/nats.conf on a real server: what each user needs works, and nothing beside it."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from storage.stream.connection import connect_stream
from storage.stream.reading import StreamReader
from storage.stream.resending import Resends, ask_to_resend
from storage.stream.servers import StreamAway, StreamOptions, StreamUnusable, unsynced_servers
from storage.stream.shipments import EVERYBODY, RESEND, STREAM, Resend, subject_of
from tests.deploy.stream_servers import CONFIG, NATS_SERVER, StreamServer, environment_of, serving, serving_three
from tests.node import eventually

READER = ConsumerConfig(
    name="reader",
    ack_policy=AckPolicy.NONE,
    deliver_policy=DeliverPolicy.ALL,
    filter_subjects=[subject_of(0), subject_of(3), EVERYBODY],
    mem_storage=True,
    inactive_threshold=30.0,
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StreamServer]:
    """One, with a stream made by an edge and a message in it."""
    async with serving(tmp_path) as server:
        edge = await connect_stream(server.options("edge"), "edge", inboxes="edge")
        await edge.ensure_stream(server.options("edge"))
        await edge.jetstream.publish(subject_of(3), b"first")
        await edge.close()
        yield server


def test_nats_takes_the_configuration(tmp_path: Path) -> None:
    """Three servers' own check of the file, with the routes as the examples give them."""
    environment = environment_of(tmp_path, '["nats://route:p1@nats-0:6222", "nats://route:p1@nats-1:6222"]')
    done = subprocess.run([NATS_SERVER, "--config", CONFIG, "-t"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_each_message_is_synced_and_the_monitoring_port_says_so(server: StreamServer) -> None:
    """Where edges and drains look it up before they trust a server."""
    assert await unsynced_servers(server.options("edge")) == []


async def test_an_edge_may_do_what_a_shipper_does(server: StreamServer) -> None:
    """Make the stream and change its limit, publish in every partition and to all, hear requests."""
    edge = await connect_stream(server.options("edge"), "edge", inboxes="edge")
    try:
        made = await edge.ensure_stream(server.options("edge"))
        assert await edge.ensure_stream(server.options("edge", max_bytes=2**21)) == made
        assert (await edge.jetstream.publish(subject_of(255), b"second")).seq == 2
        assert (await edge.jetstream.publish(EVERYBODY, b"third")).seq == 3
        heard = asyncio.Event()
        requests = await Resends.listen(edge, heard.set)
        await edge.client.flush()
        drain = await connect_stream(server.options("drain"), "drain", inboxes="drain")
        await ask_to_resend(drain, Resend(bytes(16), 3, (1, 0)))
        await asyncio.wait_for(heard.wait(), 20)
        await drain.close()
        assert [request.partition for request in requests.take()] == [3]
        assert not edge.closed.is_set()
    finally:
        await edge.close()


async def test_a_drain_may_do_what_a_drain_does(server: StreamServer) -> None:
    """Find the stream that an edge made, read its partitions by a consumer, begin anew, purge what is stored."""
    drain = await connect_stream(server.options("drain"), "drain", inboxes="drain")
    try:
        await drain.ensure_stream(server.options("drain"))
        reader = StreamReader(drain)
        for _ in range(2):
            await reader.open([0, 3], 0)
            assert [message.data for message in await reader.take(5.0)] == [b"first"]
            assert await reader.take(0.01) == []
        await reader.purge(1)
        assert (await reader.state()).messages == 0
        await reader.close()
        assert not drain.closed.is_set()
    finally:
        await drain.close()


async def test_a_drain_may_look_after_its_consumer(server: StreamServer) -> None:
    """With a name and without: made, asked about, deleted."""
    refused: list[str] = []
    async with server.connected("drain", refused) as drain:
        stream = drain.jetstream()
        for config in (READER, READER.evolve(name=None)):
            made = await stream.add_consumer(STREAM, config)
            assert (await stream.consumer_info(STREAM, made.name)).num_pending == 1
            await stream.delete_consumer(STREAM, made.name)
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

        await eventually(is_refused, 20.0)
        assert f'permissions violation for publish to "{subject.lower()}"' in refused[0].lower()
    async with server.connected("edge", []) as edge:
        assert (await edge.jetstream().stream_info(STREAM)).state.messages == 1


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("edge", "clickedge.events.*"),
        ("edge", "_INBOX.drain.>"),
        ("edge", "_INBOX.>"),
        ("edge", ">"),
        ("drain", "_INBOX.edge.>"),
        ("drain", ">"),
        ("drain", RESEND),
    ],
)
async def test_nobody_may_listen_to_what_is_not_theirs(server: StreamServer, user: str, subject: str) -> None:
    """Events as they pass, what drains fetch, and everything."""
    refused: list[str] = []
    async with server.connected(user, refused) as client:
        await client.subscribe(subject)
        await client.flush()

        async def is_refused() -> bool:
            return len(refused) == 1

        await eventually(is_refused, 20.0)
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


@pytest.mark.faults
async def test_three_servers_find_each_other_and_keep_three_copies(tmp_path: Path) -> None:
    """By the routes of the environment, with their password; the stream is made with a replica on each."""
    async with serving_three(tmp_path) as addresses:
        options = StreamOptions(f"nats://edge:pedge1@{addresses}", replicas=3)

        async def is_made() -> bool:
            try:
                edge = await connect_stream(options, "edge", inboxes="edge")
            except StreamAway:
                return False
            try:
                await edge.ensure_stream(options)
                info = await edge.jetstream.stream_info(STREAM)
                return info.cluster is not None and len(info.cluster.replicas or ()) == 2
            except (StreamAway, StreamUnusable, nats.errors.Error):
                return False
            finally:
                await edge.close()

        await eventually(is_made, 30.0)
