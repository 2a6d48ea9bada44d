"""How connections of the public port end: at a worker's end, and before they have begun."""

import asyncio
from pathlib import Path

import pytest

from edge.http import port as public_port
from tests.wire.port import Port, serving
from tests.wire.test_clicks import GatedDisk
from tests.wire.test_tls import server


async def test_what_is_handed_over_is_answered_before_the_end(tmp_path: Path) -> None:
    """N7: an answer does not say that it is the last while a request behind it waits for aiohttp."""
    disk = GatedDisk()
    port: Port
    async with serving(tmp_path, disk=disk) as port:
        click_id = await port.click()
        disk.gate.clear()
        async with port.wire() as wire:
            wire.get(f"/aff_lsr?transaction_id={click_id}")
            wire.get("/livez")
            assert await wire.is_silent(0.1)
            retiring = asyncio.create_task(port.public.retire(0))
            await asyncio.sleep(0)
            disk.gate.set()
            said = [dict((await wire.reply()).headers).get("connection", "") for _ in range(2)]
            assert said == ["", "close"]
            assert await wire.is_closed()
            await retiring


async def test_who_does_not_shake_hands_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds by default, as for a head: the deadlines of connections begin only after the handshake."""
    assert public_port.HANDSHAKE_S == 10
    monkeypatch.setattr(public_port, "HANDSHAKE_S", 0.3)
    async with serving(tmp_path, tls=server()) as port, port.wire() as silent, asyncio.timeout(5):
        assert await silent.is_closed()
