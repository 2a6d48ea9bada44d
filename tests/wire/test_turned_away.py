"""Connections that a worker, or their client, has no place for: closed at once, and counted."""

from pathlib import Path

import pytest

from edge.counters import cell
from tests.node import eventually
from tests.unit.test_proxy_protocol import proxied
from tests.wire.client import Wire
from tests.wire.port import serving

FULL, CLIENT = (cell("edge_connections_refused_total", reason) for reason in ("full", "client"))


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
        assert [port.state.counters.cells[place] for place in (FULL, CLIENT)] == [3, 0]

        async def are_gone() -> bool:
            return port.public.connection_count == 0

        await eventually(are_gone, 10)


@pytest.mark.parametrize("has_proxy", [False, True])
async def test_one_too_many_of_a_client_is_told_from_a_full_port(tmp_path: Path, has_proxy: bool) -> None:
    """Whoever is on call is woken by a port that is full, and not by one client that wants too much."""

    def ask(wire: Wire) -> None:
        wire.send(proxied("203.0.113.9") if has_proxy else b"")
        wire.get("/aff_c?offer_id=17&aff_id=2")

    async with serving(tmp_path, client_connections=1, has_proxy=has_proxy) as port, port.wire() as first:
        ask(first)
        assert (await first.reply()).status == 302
        async with port.wire() as second:
            ask(second)
            assert await second.is_closed()
        assert [port.state.counters.cells[place] for place in (FULL, CLIENT)] == [0, 1]
