"""The NATS servers that tests and measurements use: real ones, that keep what they acknowledged."""

from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from benchmarks.nats import NatsCluster, NatsFailed
from edge.settings import Settings
from edge.stream_settings import is_synced
from storage.stream.servers import StreamAway
from tests.node import eventually


async def test_a_server_keeps_what_it_acknowledged_over_a_kill(tmp_path: Path) -> None:
    """It syncs each message, its monitoring port says so, and after kill -9 the same server has them all."""
    cluster = NatsCluster(tmp_path, 1)
    [server] = cluster.servers
    cluster.launch()
    try:
        assert await cluster.wait_ready() == "n1"
        assert (await server.monitor("varz"))["jetstream"]["config"]["sync_always"]
        await publish(cluster, 10)
        server.kill()
        with pytest.raises(NatsFailed, match="does not run"):
            _ = server.pid
        server.launch()
        assert await cluster.wait_ready("EVENTS") == "n1"
        assert await publish(cluster, 1) == 11
    finally:
        cluster.stop()


async def test_a_server_that_is_away_stops_no_shipper(tmp_path: Path) -> None:
    """Two of three servers say that they sync each message: that will do; one of three will not."""
    cluster = NatsCluster(tmp_path, 3)
    first, second, _ = cluster.servers
    settings = Settings(data_dir=str(tmp_path), stream_url=cluster.url, stream_monitor_port=cluster.monitor_port)

    async def both_say() -> bool:
        pages = [await server.monitor("varz") for server in (first, second)]
        return all(page.get("jetstream", {}).get("config") for page in pages)

    first.launch()
    second.launch()
    try:
        await eventually(both_say, 20, first.last_words)
        assert await is_synced(settings)
        second.kill()
        with pytest.raises(StreamAway, match=r"127\.0\.0\.2.*127\.0\.0\.3"):
            await is_synced(settings)
    finally:
        cluster.stop()


async def publish(cluster: NatsCluster, count: int) -> int:
    """The last one's sequence, acknowledged."""
    client = await nats.connect(cluster.url.split(","))
    try:
        stream = client.jetstream()
        await stream.add_stream(StreamConfig(name="EVENTS", subjects=["events"], num_replicas=len(cluster.servers)))
        acknowledged = [await stream.publish("events", b"one") for _ in range(count)]
    finally:
        await client.close()
    return acknowledged[-1].seq
