"""Servers and streams that might lose what they acknowledge, and servers that refuse us: told clearly, or mended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StreamConfig

from edge.stream_settings import is_synced
from storage.stream.connection import StreamConnection, connect_stream
from storage.stream.servers import StreamAway, StreamOptions, StreamUnusable
from storage.stream.shipments import STREAM, SUBJECT
from tests.node import eventually
from tests.streams import StreamServer
from tests.wire.shippers import SOON_S, Running, make_scribe, make_settings, shipping, until_shipped, write_some


@asynccontextmanager
async def unsynced_server(directory: Path) -> AsyncIterator[StreamServer]:
    """One that acknowledges before it syncs, as by default."""
    server = StreamServer(directory, syncs=False)
    server.start()
    await (await server.connect()).close()
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.reliability(number=17)
async def test_servers_that_may_lose_what_they_acknowledge_are_refused(short_directory: Path, data_dir: Path) -> None:
    """With what to change, unless that is allowed; a server that does not say may only be away."""
    async with unsynced_server(short_directory) as server:
        settings = make_settings(server, data_dir)
        with pytest.raises(StreamUnusable, match=r"sync_interval 120 s.*sync_interval: always.*--allow-unsynced-stream"):
            await is_synced(settings)
        running = Running(settings)
        with pytest.raises(StreamUnusable, match="sync_interval"):
            await running.ends()
        assert await is_synced(make_settings(server, data_dir, allow_unsynced_stream=True)) is False
        scribe = make_scribe(data_dir)
        write_some(scribe, 10)
        async with shipping(make_settings(server, data_dir, allow_unsynced_stream=True)) as running:
            await until_shipped(server, scribe)
            assert running.count("edge_stream_unsynced") == 1
    with pytest.raises(StreamAway, match="does not say"):
        await is_synced(settings)


async def test_a_stream_that_would_forget_is_mended(stream_server: StreamServer, nats_url: str) -> None:
    """Somebody made it before us, with an age or number of messages; what cannot be mended is refused."""
    connection = await stream_server.connect()
    jetstream = connection.jetstream
    for wrong in ({"max_age": 60}, {"max_msgs": 10}, {"max_msgs_per_subject": 1}, {"discard": DiscardPolicy.OLD}):
        await jetstream.delete_stream(STREAM)
        await jetstream.add_stream(StreamConfig(name=STREAM, subjects=[f"{SUBJECT}.*"], num_replicas=1, **wrong))
        await connection.ensure_stream(stream_server.options)
        config = (await jetstream.stream_info(STREAM)).config
        assert (config.max_age, config.max_msgs, config.max_msgs_per_subject) == (0, -1, -1)
        assert config.discard == DiscardPolicy.NEW
    await jetstream.delete_stream(STREAM)
    queue = StreamConfig(name=STREAM, subjects=[f"{SUBJECT}.*"], retention=RetentionPolicy.WORK_QUEUE)
    await jetstream.add_stream(queue)
    try:
        with pytest.raises(StreamUnusable, match="retention"):
            await connection.ensure_stream(stream_server.options)
    finally:
        await jetstream.delete_stream(STREAM)
        await connection.close()


async def test_more_replicas_than_servers_is_a_clear_error(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """It names the setting; what the server said is in it."""
    connection = await connect_stream(stream_server.options, "test")
    options: StreamOptions = stream_server.options._replace(replicas=3)
    with pytest.raises(StreamUnusable, match="EDGE_STREAM_REPLICAS=3"):
        await connection.ensure_stream(options)
    await connection.close()


async def test_wrong_credentials_are_a_clear_error(short_directory: Path) -> None:
    """Nobody waits for a server that will never let us in."""
    server = StreamServer(short_directory, users="users = [{ user: edge, password: right }]")
    server.start()
    try:

        async def refuses() -> bool:
            try:
                await connect_stream(server.options, "test")
            except StreamUnusable:
                return True
            except StreamAway:
                return False
            raise AssertionError("it let us in")

        await eventually(refuses, SOON_S)
        url = server.url.replace("nats://", "nats://edge:right@")
        connection: StreamConnection = await connect_stream(server.options._replace(url=url), "test")
        await connection.close()
    finally:
        server.kill()
