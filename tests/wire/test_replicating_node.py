"""`replicated` in a real node, without a shipper and then with one: the test, which has no stream either."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import aiohttp
from yarl import URL

from edge.shipper.link import WorkerLinks
from storage.journal.reader import JournalReader
from storage.journal.segments import Position, list_journal_paths
from tests.node import Node, eventually, free_port


def end_of(data_dir: Path) -> tuple[UUID, Position]:
    """The worker's journal, and how far it can be read now."""
    [path] = list_journal_paths(data_dir / "journal")
    reader = JournalReader(path)
    try:
        return reader.journal_id, reader.read(1_000_000, 2**30).end
    finally:
        reader.close()


async def convert(session: aiohttp.ClientSession, node: Node, click_id: str) -> None:
    """A postback, and its answer."""
    async with session.get(f"{node.origin}/aff_lsr?transaction_id={click_id}") as answer:
        assert await answer.text() == "success=true;"


async def test_conversions_wait_for_the_stream_or_fall_back_while_nobody_knows_of_it(
    make_node: Callable[..., Node],
) -> None:
    """Without a shipper each is answered after an fsync; with one, after its acknowledgement. All are counted and told."""
    node = await make_node(
        EDGE_STREAM_URL=f"nats://127.0.0.1:{free_port()}", EDGE_SHIPPER="off", EDGE_CONVERSION_DURABILITY="replicated"
    ).start()
    links = WorkerLinks()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{node.origin}/aff_c?offer_id=17&aff_id=2", allow_redirects=False) as answer:
            click_id = URL(answer.headers["Location"]).query["clickid"]
        for _ in range(3):
            await convert(session, node, click_id)
        links.acknowledged(*end_of(node.data_dir))
        links.set_stream_up(True)
        await links.start(node.data_dir)
        await asyncio.wait_for(links.poked.wait(), 20)
        links.poked.clear()
        converting = asyncio.create_task(convert(session, node, click_id))
        await asyncio.wait_for(links.poked.wait(), 20)
        assert not converting.done()
        links.acknowledged(*end_of(node.data_dir))
        await asyncio.wait_for(converting, 20)

    async def are_counted() -> bool:
        fallbacks = await node.metric("edge_replication_fallbacks_total")
        return (fallbacks, await node.metric("edge_replicated_answers_total")) == (3, 1)

    await eventually(are_counted, 20, node.describe)
    await links.close()
    told = node.log_path.read_text()
    assert 0 < told.index("replication_fell_back") < told.index("replication_back")
    assert await node.stop() == 0, node.describe()
