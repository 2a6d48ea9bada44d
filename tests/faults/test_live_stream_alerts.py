"""The stream's panels and alerts against a living node that has one, before and while its server is gone."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from benchmarks.prometheus import Prometheus
from tests.faults.load import Say
from tests.faults.test_live_alerts import empty, missing_operands
from tests.faults.traffic import Ledger, Traffic
from tests.faults.watching import SEEN_S, Watch, stopped
from tests.node import Node, eventually
from tests.ops.deployed import RULE_FILES, RuleFile
from tests.ops.hurried import hurried_prometheus
from tests.streams import StreamServer

pytestmark = [pytest.mark.faults, pytest.mark.debian("prometheus"), pytest.mark.timeout(180)]

RAISED = ("EdgeStreamDown", "EdgeDrainUnstreamed", "EdgeReplicationFallback", "EdgeUnshippedGrowing")


@pytest.fixture
async def node(make_gated: Callable[..., Node], stream_server: StreamServer, nats_url: str) -> Node:
    """One worker, its shipper and a drain, and conversions that wait for the stream."""
    return await make_gated(
        EDGE_STREAM_URL=nats_url,
        EDGE_STREAM_REPLICAS="1",
        EDGE_STREAM_MAX_BYTES="1GiB",
        EDGE_JOURNAL_MAX_BYTES="6MiB",
        EDGE_STREAM_MONITOR_PORT=str(stream_server.monitor_port),
        EDGE_CONVERSION_DURABILITY="replicated",
    ).start()


async def test_every_panel_of_the_stream_has_data_and_a_lost_server_raises_the_alerts(
    node: Node, stream_server: StreamServer, tmp_path: Path, say: Say
) -> None:
    """All is quiet while it and the shipper are there; when it comes back, everything that was answered meanwhile is stored."""
    stop, ledger, targets = asyncio.Event(), Ledger(), [node.admin.removeprefix("http://")]
    with Prometheus(tmp_path, targets) as prometheus, hurried_prometheus(tmp_path, targets) as hurried:
        watch = Watch(prometheus, hurried)
        traffic = asyncio.create_task(Traffic(node.port, ledger, seed=7, clients=4).run(stop))

        def missing() -> list[str]:
            return empty(prometheus, of_a_stream=True) + missing_operands(prometheus, of_a_stream=True)

        async def has_data() -> bool:
            return not await asyncio.to_thread(missing)

        try:
            await eventually(has_data, SEEN_S, lambda: str(missing()))
            assert not {alert.name for alert in prometheus.alerts()} & of_the_stream()
            async with watch.looking():
                with stopped(node.pids("shipper")):
                    await watch.sees_fired("EdgeShippingLate")
                stream_server.kill()
                await watch.sees(*RAISED, within_s=60)
                stream_server.start()
        finally:
            stop.set()
            await traffic
    say(f"fired: {sorted(watch.fired & of_the_stream())}")

    async def is_all_shipped() -> bool:
        return await node.metric("edge_ship_unshipped_bytes") == 0 and await node.metric("edge_stream_pending_messages") == 0

    await eventually(is_all_shipped, SEEN_S, node.describe)
    assert ledger.faults == []


def of_the_stream() -> set[str]:
    """The alerts of its file of rules."""
    [path] = (path for path in RULE_FILES if path.name == "stream.yml")
    return {rule.alert for group in msgspec.yaml.decode(path.read_bytes(), type=RuleFile).groups for rule in group.rules}
