"""The lane beside aiohttp: the same answers and events either way; order, limits and deadlines of a connection."""

import asyncio
import gc
import re
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.http.lane import Lane
from edge.http.tls import load_tls
from edge.settings import Settings
from storage.journal.events import Click, Impression
from tests.node import eventually
from tests.unit.test_proxy_protocol import proxied
from tests.wire.client import Reply
from tests.wire.edge_state import CATALOG, DELIVERY
from tests.wire.port import Port, serving, session_of
from tests.wire.test_clicks import GatedDisk

UA = "User-Agent: Mozilla/5.0 (Windows NT 10.0) Chrome/120"
CORPUS = [
    ("GET", "/aff_c?offer_id=17&aff_id=2&aff_sub=a%20b+c&url_id=1", (UA, "Referer: https://blog.example/ü")),
    ("GET", "/aff_c?offer_id=18&aff_id=3&source=%ff%00x", ("Sec-GPC: 1", "Cookie: ce_18=x.y")),
    ("HEAD", "/aff_c?offer_id=17&aff_id=99&aff_sub=&aff_sub=last", ("Accept-Language: de-DE",)),
    ("GET", "/aff_c?offer_id=20&aff_id=2&url=https%3A%2F%2Fevil.example", ("Purpose: prefetch",)),
    ("GET", "/aff_c?offer_id=99999999999", ()),
    ("GET", "/aff_c", ()),
    ("POST", "/aff_c?offer_id=17", ("Content-Length: 0",)),
    ("GET", "/aff_i?offer_id=17&aff_id=2&file_id=5", (UA,)),
    ("GET", "/aff_l?offer_id=17&amount=5&format=js", ("Cookie: ce_17=a.b",)),
    ("GET", "/aff_lsr?transaction_id=forged&offer_id=17", ()),
    ("GET", "/aff_lsr?transaction_id=", ()),
    ("GET", "/aff_goal?a=x", ()),
    ("GET", "/SL2?aff_sub=mine&aff_sub2=two", (UA,)),
    ("GET", "/nothing/here?offer_id=17", ()),
    ("GET", "http://edge.example/aff_c?offer_id=17&aff_id=2", ()),
    ("DELETE", "/aff_c?offer_id=17", ()),
    *(
        (method, f"/aff_c?offer_id={offer_id}&aff_id=2&source={source}", (UA, "Accept-Language: fr-CA,en;q=0.5"))
        for method in ("GET", "HEAD")
        for offer_id in range(40, 45)
        for source in ("%22%3C%26", "away")
    ),
    *(
        ("GET", f"/aff_c?offer_id=41&aff_id=2&source={source}&aff_sub5=now&rule=9", (UA,))
        for source in ("other", "link", "away", "none")
    ),
    *(
        ("GET", f"/aff_c?offer_id={offer_id}&aff_id=2&url=https%3A%2F%2Fshop.example.com%2F%22%20{offer_id}", (UA,))
        for offer_id in range(40, 45)
    ),
    ("GET", "/aff_c?offer_id=40&aff_id=2&url_id=3", ("Sec-GPC: 1",)),
    ("GET", "/aff_c?offer_id=43&aff_id=2&url=https://shop.example.com/" + "x" * 6100, ()),
    ("GET", "/hop?u=aHR0cHM6Ly9ldmlsLmV4YW1wbGUv&s=0", ()),
    ("HEAD", "/hop", ()),
    ("POST", "/hop?u=x", ("Content-Length: 0",)),
]
# Ids differ from one run to the next, and so do links that are signed with one inside.
ID = re.compile("[0-9a-f]{32}")
HOP = re.compile(rb"u=[A-Za-z0-9_-]+&amp;s=[0-9a-f]{32}")


def essence(reply: Reply) -> tuple[Any, ...]:
    """What must not differ; ids, which do, are taken out."""
    cookies = [value.partition(";")[2] for name, value in reply.headers if name == "set-cookie"]
    body = ID.sub("ID", HOP.sub(b"HOP", reply.body).decode("latin-1"))
    named = [reply.get(name) for name in ("referrer-policy", "x-content-type-options", "cache-control")]
    # aiohttp leaves out the length of nothing where it answers HEAD.
    named.append(reply.get("content-length") or "0")
    return reply.status, ID.sub("ID", reply.get("location")), cookies, body, named


async def both_ways(directory: Path, method: str, target: str, headers: tuple[str, ...]) -> list[Any]:
    """What the lane makes of a request, and what aiohttp does."""
    outcomes = []
    for is_lane_on in (True, False):
        (directory / str(is_lane_on)).mkdir(exist_ok=True)
        async with serving(directory / str(is_lane_on), catalog=CATALOG + DELIVERY, is_lane_on=is_lane_on) as port:
            reply = await port.get(target, *headers, method=method)
            kinds = [type(event).__name__ for event in port.events()]
            fields = [msgspec.structs.asdict(event) for event in port.events()]
            for event in fields:
                for name in ("conversion_id", "received_ms", "session"):
                    event.pop(name, None)
            sessions = [
                msgspec.structs.astuple(session_of(event))[1:]
                for event in port.events()
                if isinstance(event, Click | Impression)
            ]
            outcomes.append((essence(reply), kinds, fields, sessions))
    return outcomes


@pytest.mark.parametrize(("method", "target", "headers"), CORPUS)
async def test_lane_and_aiohttp_answer_and_record_alike(
    tmp_path: Path, method: str, target: str, headers: tuple[str, ...]
) -> None:
    """Status, Location, body, cookies and event."""
    lane, aiohttp = await both_ways(tmp_path, method, target, headers)
    assert lane == aiohttp


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=80))
def test_any_query_is_read_alike(tmp_path_factory: pytest.TempPathFactory, query: str) -> None:
    """What a client writes behind the question mark."""
    directory = tmp_path_factory.mktemp("lane")
    lane, aiohttp = asyncio.run(both_ways(directory, "GET", f"/aff_c?offer_id=17&aff_id=2&{query}", (UA,)))
    assert lane == aiohttp


LINES = [
    *(b"GET /aff_c?offer_id=17&aff_id=2&aff_sub=a%cb HTTP/1.1" % code for code in range(1, 256) if code not in b"\r\n"),
    b"GET  /aff_c?offer_id=17 HTTP/1.1",
    b"GET /aff_c?offer_id=17  HTTP/1.1",
    b"GET /aff_c?offer_id=17 HTTP/1.1 ",
    b"GET /aff_c?offer_id=17",
    b"GET /aff_c?offer_id=17 HTTP/1.0",
    b"GET /aff_c?offer_id=17 HTTP/1.2",
    b"GET /aff_c?offer_id=17 HTTP/2.0",
    b"GET /aff_c?offer_id=17 http/1.1",
    b"get /aff_c?offer_id=17 HTTP/1.1",
    b"HEAD /aff_c?offer_id=17 HTTP/1.1",
    b"GETX /aff_c?offer_id=17 HTTP/1.1",
    b"GET aff_c?offer_id=17 HTTP/1.1",
    *(b"GET %cSL2 HTTP/1.1" % code for code in b"/x*\x01?#%"),
    b"GET /aff_c?" + b"x" * 8200 + b" HTTP/1.1",
    b" GET /aff_c?offer_id=17 HTTP/1.1",
    # Behind the last parameter that is kept.
    *(b"GET /aff_c?offer_id=17&aff_id=2" + b"&a=b" * 100 + b"&c=%cd HTTP/1.1" % code for code in (1, 10, 13, 127)),
]


async def ask(port: Port, line: bytes, block: bytes) -> tuple[Any, ...]:
    """A request on a connection of its own: the essence of its answer, and whether that ends the connection."""
    async with port.wire() as wire:
        wire.send(line + block)
        try:
            reply = await wire.reply(has_body=not line.startswith(b"HEAD"))
        except EOFError:
            return (0,)
        return (*essence(reply), reply.get("connection"))


async def test_known_header_lines_change_no_answer(tmp_path: Path) -> None:
    """Of a request whose block is known llhttp sees nothing: its first line is refused or taken all the same."""
    known = b"\r\nHost: x\r\n" + UA.encode() + b"\r\n\r\n"
    async with serving(tmp_path) as port:
        assert (await ask(port, b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1", known))[0] == 302
        for number, line in enumerate(LINES):
            new = b"\r\nHost: x\r\nX: %d\r\n" % number + UA.encode() + b"\r\n\r\n"
            assert await ask(port, line, known) == await ask(port, line, new), line


async def test_a_pipeline_is_answered_in_its_order_cold_requests_last(tmp_path: Path) -> None:
    """A postback waits for its fsync, the click behind it is ready sooner, the cold request ends the connection."""
    disk = GatedDisk()
    async with serving(tmp_path, disk=disk) as port:
        click_id = await port.click()
        disk.gate.clear()
        try:
            async with port.wire() as wire:
                wire.get(f"/aff_lsr?transaction_id={click_id}")
                wire.get("/aff_c?offer_id=17&aff_id=2")
                wire.get("/livez")
                assert await wire.is_silent(0.2)
                disk.gate.set()
                assert [(await wire.reply()).status for _ in range(3)] == [200, 302, 200]
                assert await wire.is_closed()
        finally:
            disk.gate.set()


@pytest.mark.reliability(number=22)
async def test_ten_thousand_pipelined_clicks_are_answered_and_recorded(tmp_path: Path) -> None:
    """At most 32 at a time; none is lost, doubled or out of order."""
    async with serving(tmp_path) as port, port.wire() as wire:
        count = 10_000
        for number in range(count):
            wire.get(f"/aff_c?offer_id=17&aff_id=2&aff_sub={number}")
        for number in range(count):
            assert (await wire.reply()).get("location").endswith(f"&s={number}")
        clicks = [event for event in port.events() if isinstance(event, Click)]
        assert [event.params["aff_sub1"] for event in clicks] == [str(number) for number in range(count)]


async def test_who_asks_for_the_close_gets_it(tmp_path: Path) -> None:
    """RFC 9112 9.6: after the answer, whether the header is new or known; what comes behind it is not looked at."""
    async with serving(tmp_path) as port:
        for _ in range(3):
            async with port.wire() as wire:
                wire.get("/aff_c?offer_id=17&aff_id=2")
                wire.get("/aff_c?offer_id=17&aff_id=2", "Connection: close")
                wire.get("/aff_c?offer_id=17&aff_id=2")
                assert (await wire.reply()).get("connection") == ""
                assert (await wire.reply()).get("connection") == "close"
                assert await wire.is_closed()
        assert len(port.events()) == 6


async def test_connections_beyond_the_limit_are_closed_at_once(tmp_path: Path) -> None:
    """So that a journal can still be rotated; who is in is served, and who leaves makes room."""
    async with serving(tmp_path, max_connections=2) as port:
        async with port.wire() as first, port.wire() as second:
            for wire in (first, second):
                wire.get("/aff_c?offer_id=17&aff_id=2")
                assert (await wire.reply()).status == 302
            async with port.wire() as third:
                assert await third.is_closed()
            first.get("/aff_c?offer_id=17&aff_id=2")
            assert (await first.reply()).status == 302

        async def has_room() -> bool:  # the server hears of the others' end a moment later
            return await port.try_get("/livez") == 200

        await eventually(has_room, 10)


@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8"])
async def test_a_client_has_so_many_connections_and_a_trusted_proxy_any_number(tmp_path: Path, trusted: str) -> None:
    """On the lane or handed over; the next one of its own is closed unanswered, and room is made by each that ends."""
    async with serving(tmp_path, client_connections=2, trusted=trusted) as port:
        async with port.wire() as first, port.wire() as second:
            first.get("/aff_c?offer_id=17&aff_id=2")
            second.send(b"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")  # aiohttp's, until its body is there
            assert (await first.reply()).status == 302
            for _ in range(3):
                assert bool(await port.try_get("/livez")) is bool(trusted)
            second.send(b"amount=10")
            assert (await second.reply()).status == 200

        async def has_room() -> bool:
            return await port.try_get("/livez") == 200

        await eventually(has_room, 10)


async def test_behind_a_balancer_the_clients_are_counted(tmp_path: Path) -> None:
    """By the PROXY protocol's header, not by the balancer's address."""
    async with serving(tmp_path, client_connections=1, has_proxy=True) as port, port.wire() as first:
        first.send(proxied("203.0.113.9"))
        first.get("/aff_c?offer_id=17&aff_id=2")
        assert (await first.reply()).status == 302
        for address, is_served in (("203.0.113.9", False), ("203.0.113.10", True)):
            async with port.wire() as wire:
                wire.send(proxied(address))
                wire.get("/aff_c?offer_id=17&aff_id=2")
                if is_served:
                    assert (await wire.reply()).status == 302
                else:
                    assert await wire.is_closed()
        assert len(port.events()) == 2


async def test_a_closed_connection_waits_for_no_collector(tmp_path: Path) -> None:
    """Answered here or handed over, it is gone when it is closed: memory does not wait for a full collection."""

    async def is_gone() -> bool:
        return not any(isinstance(one, Lane) for one in gc.get_objects())

    async with serving(tmp_path) as port:
        gc.collect()
        gc.disable()
        try:
            for target in ("/aff_c?offer_id=17&aff_id=2", "/livez", "/aff_c?%"):
                await port.get(target)
            await eventually(is_gone, 20)
        finally:
            gc.enable()


async def test_a_peer_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    """What it was sent fills the sockets, then its requests wait outside; once it reads, none is missing."""
    async with serving(tmp_path) as port, port.wire() as wire:
        request = b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\nHost: x\r\n\r\n"
        count = 60_000
        wire.send(request * count)
        recorded = -1
        while recorded != (recorded := len(port.events())):  # noqa: ASYNC110 - until nothing happens any more
            await asyncio.sleep(0.3)
        assert 32 <= recorded < count
        for _ in range(count):
            assert (await wire.reply()).status == 302
        assert len(port.events()) == count


@pytest.mark.parametrize("sent", [b"", b"GET /aff_c?offer_id=17 HTTP/1.1\r\nHost: x\r\n"])
async def test_half_a_head_is_not_awaited_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """408 and a close; a connection that says nothing is just closed."""
    monkeypatch.setattr("edge.http.deadlines.SWEEP_S", 0.01)  # ten seconds of the sweep's in a tenth of one
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.send(sent)
        if sent:
            assert (await wire.reply()).status == 408
        assert await wire.is_closed()
        assert (await port.get("/livez")).status == 200


async def test_a_slow_head_gains_no_time_by_its_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte a second does not put the deadline off."""
    monkeypatch.setattr("edge.http.deadlines.SWEEP_S", 0.05)
    async with serving(tmp_path) as port, port.wire() as wire:

        async def drip() -> None:
            wire.send(b"GET /aff_c?x=")
            while True:
                await asyncio.sleep(0.02)
                wire.send(b"x")

        dripping = asyncio.create_task(drip())
        assert (await wire.reply()).status == 408
        dripping.cancel()


@pytest.mark.parametrize("is_lane_on", [True, False])
async def test_a_balancers_client_is_who_clicked(tmp_path: Path, is_lane_on: bool) -> None:
    """By the PROXY protocol's header, on both ways; a connection without it is closed unanswered."""
    async with serving(tmp_path, is_lane_on=is_lane_on, has_proxy=True) as port:
        async with port.wire() as wire:
            wire.send(proxied("203.0.113.9"))
            wire.get("/aff_c?offer_id=17&aff_id=2")
            assert (await wire.reply()).status == 302
        assert session_of(port.last(Click)).ip == "203.0.113.9"
        async with port.wire() as wire:
            wire.get("/aff_c?offer_id=17&aff_id=2")
            assert await wire.is_closed()


@pytest.mark.both_loops
async def test_over_tls_hot_and_cold_requests_are_answered_alike(tmp_path: Path) -> None:
    """The lane keeps the connection, a body is handed over with its session's keys; cookies say Secure."""
    files = Path(__file__).parent / "tls"  # a key of the tests' own, good for nothing else
    server = load_tls(Settings(data_dir="", tls_cert=str(files / "cert.pem"), tls_key=str(files / "key.pem")))
    client = ssl.create_default_context(cafile=files / "cert.pem")
    client.check_hostname = False
    async with serving(tmp_path, tls=server) as port, port.wire(tls=client) as wire:
        for _ in range(2):
            wire.get("/aff_c?offer_id=17&aff_id=2")
            assert (await wire.reply()).get("set-cookie").endswith("; SameSite=None; Secure")
        click_id = session_of(port.last(Click)).click_id.hex()
        body = f"transaction_id={click_id}&note={'x' * 50_000}".encode()
        wire.post("/aff_lsr", body, "application/x-www-form-urlencoded")
        assert (await wire.reply()).body == b"success=true;"
        assert await wire.is_closed()
