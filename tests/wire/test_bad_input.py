"""What no well-behaved client sends: a short plain answer, nothing echoed, nothing logged, nothing lost."""

import asyncio
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edge.tracking.parameters import clean
from edge.tracking.urls import host_of
from storage.journal.events import Click, Conversion, Heartbeat
from tests.wire.client import Reply
from tests.wire.edge_state import CATALOG, HOSTS
from tests.wire.port import Port, logged, serving, session_of

both_loops = pytest.mark.both_loops

HEADERS = {
    "content-type", "content-length", "cache-control", "server", "date", "connection", "location", "set-cookie", "allow",
    "retry-after", "x-content-type-options", "access-control-allow-origin",
}  # fmt: skip
"""All that an answer may have."""

HEAD = b"Host: edge.example\r\n"
CLICK = b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\n"
POST = b"POST /aff_lsr HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
SMUGGLED = b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\nHost: x\r\n\r\n"


def assert_harmless(reply: Reply, *, max_body_bytes: int = 200) -> None:
    """One of our own answers, whatever was asked."""
    assert reply.status < 500 or reply.status in (501, 503, 505)
    names = [name for name, _ in reply.headers]
    assert set(names) <= HEADERS
    assert len(names) == len(set(names))
    assert len(reply.body) < max_body_bytes
    location = reply.get("location")
    assert bool(location) == (reply.status == 302)
    if location:
        assert location.isascii()
        assert location.isprintable()
        assert host_of(location) in HOSTS
    for _, value in reply.headers:
        assert value.isprintable()


def assert_clean(port: Port) -> None:
    """Every event decodes, and no text in it has a control byte or a lone surrogate."""
    for event in port.events():
        assert not isinstance(event, Heartbeat)
        texts = [*event.params, *event.params.values(), event.referrer]
        if isinstance(event, Conversion):
            texts += [event.transaction_id, event.user_agent, event.ip]
        else:
            texts += [event.alias, event.language, session_of(event).user_agent, session_of(event).contact_id]
        assert [text for text in texts if clean(text) != text] == []


@both_loops
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("aff_sub=%", "%25"),
        ("aff_sub=%zz%4", "%25zz%254"),
        ("aff_sub=%ff%C3", "%EF%BF%BD%EF%BF%BD"),
        ("aff_sub=%ED%A0%80x", "%EF%BF%BD%EF%BF%BD%EF%BF%BDx"),
        ("aff_sub=a%00b", "ab"),
        ("aff_sub=%0D%0ASet-Cookie:%20x=y", "Set-Cookie%3A%20x%3Dy"),
        ("aff_sub=a&aff_sub=b", "b"),
        ("aff_sub=a&aff_sub=", "a"),
        ("aff_sub1=a&aff_sub=b", "b"),
        ("&&=&=x&aff_sub=y&&", "y"),
        ("aff_sub=a?b=c#d", "a%3Fb%3Dc%23d"),
        ("aff_sub=" + "x" * 7000, "x" * 7000),
        ("&".join(["a=1"] * 3) + "&aff_sub=z", "z"),
        ("aff_id=2147483648", ""),
        ("aff_id=-1", ""),
    ],
)
async def test_a_malformed_query_is_still_a_click(tmp_path: Path, query: str, expected: str) -> None:
    """The visitor gets to the offer; what cannot be read becomes U+FFFD, what must not be there is gone."""
    async with serving(tmp_path) as port:
        with logged() as lines:
            reply = await port.get(f"/aff_c?offer_id=17&{query}")
            assert_harmless(reply)
            assert reply.get("location").rpartition("&s=")[2] == expected
            assert_clean(port)
            assert session_of(port.last(Click)).aff_id == 0
        assert lines == []


MALFORMED = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 300,
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET /livez HTTP/1.2\r\n" + HEAD + b"\r\n",
    "an unknown method": b"FOO /aff_c?offer_id=17 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a very long method": b"F" * 500 + b" / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "no Host": CLICK + b"\r\n",
    "two Hosts": CLICK + HEAD + HEAD + b"\r\n",
    "bare LF": CLICK.replace(b"\r", b"") + b"Host: x\n\n",
    "a folded header": CLICK + HEAD + b"A: b\r\n  c\r\n\r\n",
    "a blank before the colon": CLICK + b"Host : x\r\n\r\n",
    "NUL in the target": b"GET /aff_c?offer_id=17\0 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "raw bytes in the target": b"GET /aff_c?offer_id=17&aff_sub=\xff\xe4 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a blank in the target": b"GET /aff_c?offer_id=17&aff_sub=a b HTTP/1.1\r\n" + HEAD + b"\r\n",
    "NUL in a header": CLICK + HEAD + b"User-Agent: a\0b\r\n\r\n",
    "a control byte in a header": CLICK + HEAD + b"User-Agent: a\x01b\r\n\r\n",
    "CL and TE": POST + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE and CL": POST + HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": POST + HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + SMUGGLED,
    "a negative length": POST + HEAD + b"Content-Length: -3\r\n\r\nabc",
    "a length in words": POST + HEAD + b"Content-Length: three\r\n\r\nabc",
    "an unknown transfer coding": POST + HEAD + b"Transfer-Encoding: nonsense\r\n\r\nabc",
    "chunked twice": POST + HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": POST + HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n",
    "a click with a chunk of no size": CLICK + HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n",
}


@both_loops
@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.reliability(number=19)
async def test_what_is_no_proper_request_gets_one_plain_refusal_and_a_close(
    tmp_path: Path, request_bytes: bytes
) -> None:
    """400 (or 505) and nothing after it: no second request is found in what follows, none is recorded, nothing is logged."""
    async with serving(tmp_path) as port:
        with logged() as lines:
            async with port.wire() as wire:
                wire.send(request_bytes)
                reply = await wire.reply()
                assert_harmless(reply)
                assert (reply.status, reply.body) in ((400, b"bad request\n"), (505, b"HTTP/1.1, please\n"))
                assert await wire.is_closed()
            assert (await port.get("/livez")).body == b"ok\n"
        assert (port.events(), lines) == ([], [])


@both_loops
async def test_a_body_that_turns_bad_on_its_way_is_refused_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning was fine and is being read already."""
    monkeypatch.setattr("edge.http.routes.BODY_S", 1.0)
    async with serving(tmp_path) as port:
        for head in (POST, CLICK):
            with logged() as lines:
                async with port.wire() as wire:
                    wire.send(head + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                    if head is CLICK:  # is answered without its body
                        assert (await wire.reply()).status == 302
                    assert await wire.is_silent(0.05)
                    wire.send(b"ZZ\r\n")
                    if head is POST:  # aiohttp does not tell who waits for it; its deadline does
                        assert (await wire.reply()).status == 408
                assert (await port.get("/livez")).status == 200
            assert lines == []


@both_loops
@pytest.mark.parametrize(
    "request_bytes",
    [
        CLICK + HEAD + b"Cookie: ce_17=x\r\n\r\n",
        CLICK + HEAD + b"Content-Length: 10\r\n\r\n0123456789",
        POST + HEAD + b"Content-Length: 20\r\n\r\ntransaction_id=abcde",
        POST + HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ],
)
async def test_a_request_cut_anywhere_disturbs_nobody(tmp_path: Path, request_bytes: bytes) -> None:
    """The sender goes away in the middle, at every byte: no log line, and the next one is served."""
    async with serving(tmp_path) as port:
        with logged() as lines:
            for cut in range(1, len(request_bytes)):
                async with port.wire() as wire:
                    wire.send(request_bytes[:cut])
                    if cut % 8 == 0:  # let the port begin with it
                        assert (await port.get("/livez")).status == 200
            assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
        assert lines == []
        assert_clean(port)


@both_loops
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://edge.example/aff_c?offer_id=17&aff_id=2", 302),
        ("HTTPS://edge.example:443/aff_c?offer_id=17&aff_id=2", 302),
        ("http://edge.example", 404),
        ("http://edge.example?offer_id=17", 404),
        ("ftp://edge.example/aff_c?offer_id=17", 404),
    ],
)
async def test_a_target_may_be_absolute(tmp_path: Path, target: str, status: int) -> None:
    """RFC 9112 3.2.2: a server must accept it."""
    async with serving(tmp_path) as port:
        reply = await port.get(target)
        assert_harmless(reply)
        assert (reply.status, len(port.events())) == (status, status == 302)


@both_loops
@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HEAD,
        b"OPTIONS * HTTP/1.1\r\n" + HEAD,
        CLICK + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        CLICK + HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ],
)
async def test_nobody_is_upgraded_or_connected(tmp_path: Path, head: bytes) -> None:
    """Such a request is what it is without the wish, and the last of its connection."""
    async with serving(tmp_path) as port:
        with logged() as lines:
            async with port.wire() as wire:
                wire.send(head + b"\r\n")
                reply = await wire.reply()
                assert_harmless(reply)
                assert reply.status in (302, 404)
                assert reply.get("connection") == "close"
                assert await wire.is_closed()
        assert lines == []


@both_loops
async def test_http_1_0_is_answered_and_closed(tmp_path: Path) -> None:
    """Old health checks and mail proxies speak it, without a Host."""
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.send(b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.0\r\n\r\n")
        assert (await wire.reply()).status == 302
        assert await wire.is_closed()


@both_loops
async def test_a_fault_of_ours_is_logged_and_costs_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is for what clients do: a bug of ours is 500 with a traceback, and the port serves on."""

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    async with serving(tmp_path) as port:
        with capture_logs() as lines, monkeypatch.context() as patch:
            patch.setattr("edge.http.tracker.dispatch", fail)
            assert (await port.get("/aff_c?offer_id=17")).status == 500
        assert [(line["event"], line["exc_info"]) for line in lines] == [("request_failed", True)]
        assert (await port.get("/aff_c?offer_id=17")).status == 302


@contextmanager
def fuzzed(catalog: str = CATALOG) -> Iterator[tuple[Port, Callable[[bytes], Reply]]]:
    """A port for a whole hypothesis run, and how to put bytes on its wire: the first answer to them."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        context = serving(Path(directory), catalog=catalog)
        port = runner.run(context.__aenter__())

        async def exchange(data: bytes) -> Reply:
            async with port.wire() as wire:
                wire.send(data)
                return await wire.reply(has_body=not data.startswith(b"HEAD"))

        with logged() as lines:
            yield port, lambda data: runner.run(exchange(data))
        assert lines == []
        assert_clean(port)
        runner.run(context.__aexit__(None, None, None))


_NAMES = ["offer_id", "aff_id", "aff_sub", "aff_sub2", "url", "url_id", "file_id", "source", "transaction_id", "goal_id",
          "goal_name", "a", "format", "contact_id", "x"]  # fmt: skip
_ESCAPED = st.binary(max_size=12).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw))
_VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
_VALUES = st.one_of(st.sampled_from(["17", "18", "20", "24", "2", "1", "lsr", "l", "js", "json"]), _ESCAPED, _VISIBLE)
_PAIRS = st.tuples(st.one_of(st.sampled_from(_NAMES), _ESCAPED, _VISIBLE), _VALUES).map("=".join)
_QUERIES = st.one_of(_VISIBLE, st.lists(_PAIRS, max_size=8).map("&".join))
_PATHS = st.sampled_from(["/aff_c", "/aff_i", "/aff_lsr", "/aff_goal", "/aff_l", "/SL2", "/PX1", "/GP1", "/", "/x"])
_HEADER_NAMES = st.sampled_from(
    ["User-Agent", "Referer", "Cookie", "Accept-Language", "Sec-GPC", "Purpose", "X-Forwarded-For", "X-Forwarded-Proto",
     "Content-Type", "Accept", "Range", "If-Modified-Since", "Origin", "X"]
)  # fmt: skip
_HEADER_VALUES = st.one_of(
    st.binary(max_size=40).map(lambda raw: re.sub(rb"[\x00-\x1f\x7f]", b"", raw)),
    st.sampled_from([b"1", b"prefetch", b"https", b"127.0.0.1", b"ce_17=0.0", b"bytes=0-1"]),
)
_HEADERS = st.lists(st.tuples(_HEADER_NAMES, _HEADER_VALUES), max_size=5)


@pytest.mark.reliability(number=24)
def test_no_query_and_no_header_does_harm() -> None:
    """Never 5xx, never a Location beyond the catalog's hosts, never a header or control byte too many."""
    with fuzzed() as (port, exchange):

        @settings(max_examples=400, deadline=None)
        @given(_PATHS, _QUERIES, _HEADERS, st.sampled_from(["GET", "GET", "HEAD", "OPTIONS"]))
        def check(path: str, query: str, headers: list[tuple[str, bytes]], method: str) -> None:
            lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers)
            reply = exchange(
                f"{method} {path}?{query} HTTP/1.1\r\n".encode() + HEAD + lines + b"Connection: close\r\n\r\n"
            )
            assert_harmless(reply)
            assert reply.status in (200, 302, 400, 404, 405)

        check()
        assert len(port.events()) > 50


def test_no_body_does_harm() -> None:
    """Any bytes, under any content type."""
    types = ["application/x-www-form-urlencoded", "application/json", "text/plain", "multipart/form-data", "\x80;=", ""]
    bodies = st.one_of(st.binary(max_size=300), _QUERIES.map(str.encode), st.text(max_size=100).map(str.encode))

    with fuzzed() as (_, exchange):

        @settings(max_examples=200, deadline=None)
        @given(bodies, st.sampled_from(types))
        def check(body: bytes, content_type: str) -> None:
            head = f"POST /aff_lsr HTTP/1.1\r\nContent-Length: {len(body)}\r\n".encode() + HEAD
            reply = exchange(head + b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body)
            assert_harmless(reply)
            # A contact is enough, whatever it is.
            assert b"Invalid Trans. ID #" in reply.body or reply.status == 400 or b"contact_id" in body

        check()


def test_no_bytes_at_all_do_harm() -> None:
    """Noise on the socket: refused or not, the port answers the next one."""
    with fuzzed() as (_, exchange):

        @settings(max_examples=200, deadline=None)
        @given(st.binary(min_size=1, max_size=200))
        def check(noise: bytes) -> None:
            assert_harmless(exchange(b"GET /" + noise + b"\r\n\r\n\r\n"))
            assert exchange(b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n").body == b"ok\n"

        check()
