"""TLS that ends on a node behind a balancer: the PROXY header in clear, then the handshake, then requests."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from storage.journal.events import Click, Conversion
from tests.unit.test_proxy_protocol import SSL, proxied
from tests.wire.port import Port, logged, serving, session_of
from tests.wire.test_tls import client, server

pytestmark = pytest.mark.both_loops

CLICK = b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CLIENT = client(ssl.TLSVersion.TLSv1_3)


async def asked(port: Port, header: list[bytes], request: bytes) -> bytes:
    """The answer to a request that leaves in one piece with the handshake's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = CLIENT.wrap_bio(incoming, outgoing, server_hostname="x")
    try:
        *pieces, first = header
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        is_done = False
        while not is_done:
            try:
                tls.do_handshake()
                tls.write(request)
                is_done = True
            except ssl.SSLWantReadError:
                pass
            writer.write(first + outgoing.read())
            first = b""
            if not is_done:
                incoming.write(await reader.read(65_536) or pytest.fail("closed before the handshake's end"))
        return await _read_all(reader, tls, incoming)
    finally:
        writer.close()


async def _read_all(reader: asyncio.StreamReader, tls: ssl.SSLObject, incoming: ssl.MemoryBIO) -> bytes:
    """All that is said until the other side ends the TLS."""
    answer = b""
    async with asyncio.timeout(10):
        while part := await reader.read(65_536):
            incoming.write(part)
            with suppress(ssl.SSLWantReadError):
                while plain := tls.read(65_536):
                    answer += plain
                return answer
    return answer


@pytest.mark.parametrize("cut", [None, 5, 16, 20])
@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1"])
async def test_a_client_s_handshake_follows_the_balancers_header(tmp_path: Path, address: str, cut: int | None) -> None:
    """In one piece with it or after it: the click is its client's, and was made over https."""
    header = proxied(address, extra=b"\x04\x00\x03abc")
    async with serving(tmp_path, tls=server(), has_proxy=True) as port:
        answer = await asked(port, [header[:cut], header[cut:]] if cut else [header], CLICK)
        assert answer.startswith(b"HTTP/1.1 302 ")
        assert b"SameSite=None; Secure" in answer
        assert session_of(port.last(Click)).ip == address


@pytest.mark.parametrize("is_lane_on", [True, False])
@pytest.mark.parametrize("extra", [SSL, b""])
async def test_a_click_over_tls_to_the_balancer_is_one_over_https(tmp_path: Path, extra: bytes, is_lane_on: bool) -> None:
    """Its cookie is one that browsers send from advertisers' pages, too."""
    async with serving(tmp_path, has_proxy=True, is_lane_on=is_lane_on) as port, port.wire() as wire:
        wire.send(proxied("203.0.113.9", extra=extra))
        wire.get("/aff_c?offer_id=17&aff_id=2")
        assert (await wire.reply()).get("set-cookie").endswith("; SameSite=None; Secure") == bool(extra)
        assert session_of(port.last(Click)).ip == "203.0.113.9"


async def test_a_postback_over_tls_has_its_senders_address(tmp_path: Path) -> None:
    """What the lane hands over too."""
    async with serving(tmp_path, tls=server(), has_proxy=True) as port:
        body = b"transaction_id=" + port.state.ids.mint(0).hex().encode()
        head = b"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        answer = await asked(port, [proxied("203.0.113.9")], head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.endswith(b"success=true;")
        assert port.last(Conversion).ip == "203.0.113.9"


@pytest.mark.parametrize("data", [CLICK, proxied("203.0.113.9") + CLICK, proxied("203.0.113.9", command=0x25)])
async def test_what_is_no_header_or_no_handshake_is_closed(tmp_path: Path, data: bytes) -> None:
    """No answer, no event, no log line; nothing is left of it."""
    async with serving(tmp_path, tls=server(), has_proxy=True) as port:
        with logged() as lines:
            async with port.wire() as wire:
                wire.send(data)
                assert await wire.is_closed() or await wire.is_closed()
        assert (port.events(), lines, port.public.connection_count) == ([], [], 0)


async def test_a_header_that_does_not_end_is_not_awaited_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline as for a head (10 s; here less)."""
    monkeypatch.setattr("edge.http.proxied_tls.HEAD_S", 0.1)
    async with serving(tmp_path, tls=server(), has_proxy=True) as port, port.wire() as wire:
        wire.send(proxied("203.0.113.9")[:20])
        assert await wire.is_closed()
