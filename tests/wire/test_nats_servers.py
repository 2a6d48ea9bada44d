"""The NATS servers that tests and measurements use: real ones, that keep what they acknowledged."""

from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from benchmarks.nats import NatsCluster, NatsFailed


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
