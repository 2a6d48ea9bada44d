"""The limits of the public port: at each of them, and one beyond."""

import asyncio
from pathlib import Path

import pytest

from storage.journal.events import Click, Conversion
from tests.wire.client import Reply
from tests.wire.port import Port, logged, serving, session_of

pytestmark = pytest.mark.both_loops

FORM = "application/x-www-form-urlencoded"


def line_of(size: int) -> bytes:
    """A click whose request line has that many bytes, without its CRLF."""
    start, end = b"GET /aff_c?offer_id=17&aff_id=2&source=", b" HTTP/1.1"
    return start + b"x" * (size - len(start) - len(end)) + end + b"\r\n"


async def exchange(port: Port, data: bytes) -> Reply:
    """The answer; a refusal is followed by a close."""
    async with port.wire() as wire:
        wire.send(data)
        reply = await wire.reply()
        if reply.status not in (200, 302):
            assert await wire.is_closed()
        return reply


async def test_a_request_line_has_8192_bytes(tmp_path: Path) -> None:
    """All of a longest line's parameters are journalled; one byte more is refused, and not recorded."""
    async with serving(tmp_path) as port:
        assert (await exchange(port, line_of(8192) + b"Host: x\r\n\r\n")).status == 302
        assert len(port.last(Click).params["source"]) > 8000
        with logged() as lines:
            for size in (8193, 8194, 8210, 9000, 100_000):
                reply = await exchange(port, line_of(size) + b"Host: x\r\n\r\n")
                assert 400 <= reply.status < 500, size
                assert len(reply.body) < 100
        assert (len(port.events()), lines) == (1, [])


async def test_an_endless_request_line_is_refused_before_it_ends(tmp_path: Path) -> None:
    """Nobody buffers what has no end."""
    async with serving(tmp_path) as port:
        assert (await exchange(port, b"GET /aff_c?" + b"x" * 100_000)).status == 431


async def test_a_request_has_100_headers(tmp_path: Path) -> None:
    """Host included."""
    async with serving(tmp_path) as port:
        head = line_of(200) + b"Host: x\r\n"
        assert (await exchange(port, head + b"A: b\r\n" * 99 + b"\r\n")).status == 302
        assert 400 <= (await exchange(port, head + b"A: b\r\n" * 100 + b"\r\n")).status < 500
        assert len(port.events()) == 1


async def test_a_head_has_32_kib(tmp_path: Path) -> None:
    """The lines together, their ends included."""
    async with serving(tmp_path) as port:
        start = line_of(200) + b"Host: x\r\n" + b"".join(b"X%02d: %s\r\n" % (n, b"y" * 993) for n in range(32))
        room = 32 * 1024 - len(start) - len(b"Z: \r\n\r\n")
        assert (await exchange(port, start + b"Z: " + b"z" * room + b"\r\n\r\n")).status == 302
        for excess in (1, 5000):
            assert (await exchange(port, start + b"Z: " + b"z" * (room + excess) + b"\r\n\r\n")).status == 431
        lines = b"".join(b"X%02d: %s\r\n" % (n, b"y" * 8000) for n in range(98))
        assert (await exchange(port, line_of(200) + b"Host: x\r\n" + lines + b"\r\n")).status == 431
        assert len(port.events()) == 1


@pytest.mark.parametrize("is_lane_on", [False, True])
async def test_one_header_may_be_nearly_all_of_the_head(tmp_path: Path, is_lane_on: bool) -> None:
    """A browser that knows many offers sends many cookies; whoever answers, the whole head is what counts."""
    async with serving(tmp_path, is_lane_on=is_lane_on) as port:
        field = b"Host: x\r\nCookie: " + b"y" * 31_000 + b"\r\n"
        assert (await exchange(port, line_of(200) + field + b"\r\n")).status == 302
        body = f"transaction_id={await port.click()}".encode()
        length = f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert (await exchange(port, b"POST /aff_lsr HTTP/1.1\r\n" + field + length + body)).status == 200


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_has_64_kib(tmp_path: Path, is_chunked: bool) -> None:
    """At the limit it is recorded, one byte more is 413; with and without a length."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        for size, status in ((65_536, 200), (65_537, 413)):
            start = f"transaction_id={click_id}&note=".encode()
            body = start + b"x" * (size - len(start))
            head = f"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n".encode()
            if is_chunked:
                data = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, body)
            else:
                data = b"Content-Length: %d\r\n\r\n%s" % (size, body)
            assert (await exchange(port, head + data)).status == status
        assert len(port.last(Conversion).params["note"]) == 65_536 - len(start)
        assert len(port.events()) == 2


async def test_the_largest_body_becomes_an_event_that_the_journal_takes(tmp_path: Path) -> None:
    """64 KiB of bytes that are no UTF-8 are three times as long when they are replaced."""
    async with serving(tmp_path) as port:
        click_id = await port.click()
        start = f"transaction_id={click_id}&note=".encode()
        query = "note2=" + "%ff" * 2500
        reply = await port.post(f"/aff_lsr?{query}", start + b"\xff" * (65_536 - len(start)), FORM)
        assert reply.body == b"success=true;"
        assert len(port.last(Conversion).params["note"].encode()) > 190_000


@pytest.mark.parametrize("start", [b"subid=%s&payout=", b"subid=%s&sub_id_1="])
async def test_the_largest_body_of_a_dialect_does_too(tmp_path: Path, start: bytes) -> None:
    """Also where one value of the vendor's has two names of ours."""
    async with serving(tmp_path) as port:
        head = start % (await port.click()).encode()
        reply = await port.post("/key/postback?x=" + "%ff" * 2500, head + b"\xff" * (65_536 - len(head)), FORM)
        assert reply.body == b"Success"
        assert port.count("edge_requests_total", "postback", "recorded") == 1


async def test_a_contact_of_any_length_is_recorded_and_none_too_long_is_remembered(tmp_path: Path) -> None:
    """A memory of two hundred thousand sessions has no room for long ones; the click is told and answered all the same."""
    async with serving(tmp_path) as port:
        await port.get("/aff_c?offer_id=17&aff_id=2&contact_id=" + "c" * 256)
        assert len(port.state.sessions) == 1
        await port.get("/aff_c?offer_id=17&aff_id=2&contact_id=" + "c" * 257)
        body = b"key=SL2&contact_id="
        reply = await port.post("/track/click", body + b"\xff" * (65_536 - len(body)), FORM)
        assert (reply.status, len(port.state.sessions)) == (200, 1)
        assert session_of(port.last(Click)).click_id.hex().encode() in reply.body
        assert port.count("edge_events_dropped_total") == 0


async def test_a_slow_body_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 once its time is over (30 s; here less), and nothing is recorded or logged."""
    monkeypatch.setattr("edge.http.routes.BODY_S", 0.1)
    async with serving(tmp_path) as port, port.wire() as wire:
        with logged() as lines:
            wire.get("/aff_lsr", f"Content-Type: {FORM}", "Content-Length: 100", method="POST")
            wire.send(b"transaction_id=")
            reply = await wire.reply()
            assert (reply.status, reply.get("connection")) == (408, "close")
        assert (port.events(), lines) == ([], [])


async def test_a_pipeline_is_answered_in_order(tmp_path: Path) -> None:
    """A thousand at once, each journalled once, ids growing, answers in the order of the requests."""
    async with serving(tmp_path) as port, port.wire() as wire:
        for number in range(1000):
            wire.get(f"/aff_c?offer_id=17&aff_id=2&aff_sub={number}")
        locations = [(await wire.reply()).get("location") for _ in range(1000)]
        clicks = [event for event in port.events() if isinstance(event, Click)]
        ids = [session_of(click).click_id.hex() for click in clicks]
        assert ids == sorted(set(ids))
        assert locations == [
            f"https://shop.example.com/landing?clickid={click_id}&p=2&s={number}" for number, click_id in enumerate(ids)
        ]
        assert [click.params["aff_sub1"] for click in clicks] == [str(number) for number in range(1000)]


async def test_a_bad_request_in_a_pipeline_ends_it(tmp_path: Path) -> None:
    """What came before it on the wire is answered; what comes after is not looked at."""
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.get("/aff_c?offer_id=17&aff_id=2")
        assert (await wire.reply()).status == 302
        wire.send(b"GARBAGE\r\n\r\n")
        wire.get("/aff_c?offer_id=17&aff_id=2")
        assert (await wire.reply()).status == 400
        assert await wire.is_closed()
        assert len(port.events()) == 1


async def test_one_turn_of_many_connections_is_one_write(tmp_path: Path) -> None:
    """Group commit: what arrives together is journalled together, and each client gets its own answer."""
    async with serving(tmp_path) as port:

        async def click(number: int) -> str:
            return (await port.get(f"/aff_c?offer_id=17&aff_id=2&aff_sub={number}")).get("location")

        locations = await asyncio.gather(*(click(number) for number in range(200)))
        clicks = {session_of(event).click_id.hex(): event for event in port.events() if isinstance(event, Click)}
        assert len(clicks) == 200
        for number, location in enumerate(locations):
            assert clicks[location.partition("clickid=")[2][:32]].params["aff_sub1"] == str(number)


async def test_health_pages_are_always_answered(tmp_path: Path) -> None:
    """`/livez` while the process lives; `/readyz` says whether it can answer clicks, and why not."""
    async with serving(tmp_path) as port:
        assert ((await port.get("/livez")).status, (await port.get("/livez")).body) == (200, b"ok\n")
        assert ((await port.get("/readyz")).status, (await port.get("/readyz")).body) == (200, b"ready\n")
        port.readiness = (503, "stopping")
        reply = await port.get("/readyz")
        assert (reply.status, reply.body) == (503, b"stopping\n")
        assert port.events() == []
