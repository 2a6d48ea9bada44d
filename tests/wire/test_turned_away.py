"""Connections that a worker has no descriptor for: closed at once, and counted."""

from pathlib import Path

from edge.counters import cell
from tests.node import eventually
from tests.wire.port import serving

REFUSED = cell("edge_connections_refused_total")


async def test_who_finds_no_descriptor_is_counted_and_not_held_open(tmp_path: Path) -> None:
    """Each once; those within the limit are open until they go."""
    async with serving(tmp_path, max_connections=2) as port:
        async with port.wire() as first, port.wire() as second:
            for wire in (first, second):
                wire.get("/aff_c?offer_id=17&aff_id=2")
                assert (await wire.reply()).status == 302
            assert port.public.connection_count == 2
            for _ in range(3):
                async with port.wire() as other:
                    assert await other.is_closed()
        assert port.state.counters.cells[REFUSED] == 3

        async def are_gone() -> bool:
            return port.public.connection_count == 0

        await eventually(are_gone, 10)
