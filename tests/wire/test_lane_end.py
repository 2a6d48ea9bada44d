"""How connections of the public port end: at a worker's end, and before they have begun."""

import asyncio
import socket
import tracemalloc
from pathlib import Path

import pytest

from edge.http import port as public_port
from tests.node import eventually
from tests.wire.port import Port, logged, serving
from tests.wire.test_clicks import GatedDisk
from tests.wire.test_tls import server


async def test_open_requests_are_answered_before_the_end(tmp_path: Path) -> None:
    """A shutdown waits for them; idle connections are closed at once."""
    disk = GatedDisk()
    port: Port
    async with serving(tmp_path, disk=disk) as port:
        click_id = await port.click()
        disk.gate.clear()
        async with port.wire() as idle, port.wire() as wire:
            wire.get(f"/aff_lsr?transaction_id={click_id}")
            assert await wire.is_silent(0.1)
            ending = asyncio.create_task(port.public.shutdown(10))
            assert await idle.is_closed()
            disk.gate.set()
            assert (await wire.reply()).status == 200
            assert await wire.is_closed()
            await ending


async def test_before_the_end_each_connection_hears_that_its_next_answer_is_the_last(tmp_path: Path) -> None:
    """N7: a kept connection is closed after an answer that says so; new ones are taken meanwhile, for one request each."""
    port: Port
    async with serving(tmp_path) as port, port.wire() as kept, port.wire() as fresh:
        kept.get("/aff_c?offer_id=17&aff_id=2")
        assert "connection" not in dict((await kept.reply()).headers)
        retiring = asyncio.create_task(port.public.retire(0))
        await asyncio.sleep(0)
        for wire in (kept, fresh):
            wire.get("/aff_c?offer_id=17&aff_id=2")
            reply = await wire.reply()
            assert (reply.status, dict(reply.headers)["connection"]) == (302, "close")
            assert await wire.is_closed()
        async with port.wire() as new:
            new.get("/aff_c?offer_id=17&aff_id=2")
            assert dict((await new.reply()).headers)["connection"] == "close"
        await retiring


async def test_a_pipeline_is_answered_whole_before_the_end(tmp_path: Path) -> None:
    """N7: only the last of the requests that have come says that it is the last."""
    port: Port
    async with serving(tmp_path) as port, port.wire() as wire:
        retiring = asyncio.create_task(port.public.retire(0))
        await asyncio.sleep(0)
        wire.send(b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\nHost: edge.example\r\n\r\n" * 3)
        said = [dict((await wire.reply()).headers).get("connection", "") for _ in range(3)]
        assert said == ["", "", "close"]
        assert await wire.is_closed()
        await retiring


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


@pytest.mark.both_loops
async def test_what_is_handed_over_waits_until_its_peer_reads(tmp_path: Path) -> None:
    """N3, N4: aiohttp is told of no pause that it knows nothing about; until then the lane's deadline holds."""
    disk = GatedDisk()
    loop = asyncio.get_running_loop()
    with socket.socket() as client, logged() as lines:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        async with serving(tmp_path, disk=disk) as port:
            click_id = await port.click()
            lanes = port.public._lane.connections
            lanes.clear()
            disk.gate.clear()
            await loop.sock_connect(client, ("127.0.0.1", port.number))
            await loop.sock_sendall(client, f"GET /aff_lsr?transaction_id={click_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

            async def is_asked() -> bool:
                return any(one._queue for one in lanes)

            await eventually(is_asked, 5)
            [lane] = lanes
            lane._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            long = f"GET /aff_c?offer_id=17&aff_id=2&aff_sub={'x' * 8000} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            await loop.sock_sendall(client, long * 20 + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")

            async def is_handed_over() -> bool:
                return bool(lane._handover)

            await eventually(is_handed_over, 5)
            disk.gate.set()

            async def is_held_up() -> bool:
                return lane._is_write_paused and not lane._queue

            await eventually(is_held_up, 5)
            assert lane in lanes
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
            said = b""
            while part := await loop.sock_recv(client, 65_536):
                said += part
    assert (said.count(b"HTTP/1.1 "), said.endswith(b"\r\nok\n"), lines) == (22, True, [])


async def test_what_comes_behind_the_last_request_is_not_kept(tmp_path: Path) -> None:
    """While its answer waits for a slow disk, a client that goes on talking fills no memory."""
    disk = GatedDisk()
    async with serving(tmp_path, disk=disk) as port:
        click_id = await port.click()
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
        disk.gate.clear()
        tracemalloc.start()
        try:
            writer.write(f"GET /aff_lsr?transaction_id={click_id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            for _ in range(400):
                writer.write(b"x" * 65_536)
                await writer.drain()
            assert tracemalloc.get_traced_memory()[0] < 4_000_000
        finally:
            tracemalloc.stop()
            disk.gate.set()
        assert (await reader.readuntil(b"success=true;")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.both_loops
@pytest.mark.parametrize("is_lane_on", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_says_that_he_asks_no_more_is_answered(tmp_path: Path, is_lane_on: bool, method: str) -> None:
    """A postback that was recorded must not look like one that failed: it would be sent again. Half a body is no request."""
    async with serving(tmp_path, is_lane_on=is_lane_on) as port:
        fields = f"transaction_id={await port.click()}"
        target, body = ("/aff_lsr", fields) if method == "POST" else (f"/aff_lsr?{fields}", "")
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        assert (await said_before_the_end(port, head + body)).endswith("success=true;")
        if body:
            assert await said_before_the_end(port, head + body[:-1]) == ""
        assert len(port.events()) == 2


async def said_before_the_end(port: Port, request: str) -> str:
    """All that comes back to a client that ends its half of the connection right behind the request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    try:
        writer.write(request.encode())
        writer.write_eof()
        async with asyncio.timeout(5):
            return (await reader.read()).decode()
    finally:
        writer.close()


async def test_who_does_not_shake_hands_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds by default, as for a head: the deadlines of connections begin only after the handshake."""
    assert public_port.HANDSHAKE_S == 10
    monkeypatch.setattr(public_port, "HANDSHAKE_S", 0.3)
    async with serving(tmp_path, tls=server()) as port, port.wire() as silent:
        assert await silent.is_closed()
