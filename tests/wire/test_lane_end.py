"""How connections of the public port end: at a worker's end, and before they have begun."""

import asyncio
from pathlib import Path

from tests.wire.port import Port, serving
from tests.wire.test_clicks import GatedDisk


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
