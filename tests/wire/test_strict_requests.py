"""Requests that RFC 9112 lets a server refuse, one by one, and whole ones in whatever pieces they come."""

import asyncio
from pathlib import Path

import pytest

from tests.wire.port import logged, serving

HOST = b"Host: edge.example\r\n"
CLICK = b"GET /aff_c?offer_id=17&aff_id=2 HTTP/1.1\r\n"
POST = b"POST /aff_lsr HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"

FOURTEEN = {
    "length and chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + LAST_CHUNK,
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length with a plus": POST + b"Content-Length: +5\r\n\r\nabcde",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + LAST_CHUNK,
    "bare LF after the line": CLICK[:-2] + b"\n" + HOST + b"\r\n",
    "bare LF after a header": CLICK + b"Host: edge.example\nX: y\r\n\r\n",
    "a folded header": CLICK + HOST + b"X: a\r\n b\r\n\r\n",
    "a blank before the colon": CLICK + HOST + b"X : a\r\n\r\n",
    "NUL": CLICK + HOST + b"X: a\0b\r\n\r\n",
    "no Host": CLICK + b"\r\n",
    "two Hosts": CLICK + HOST + HOST + b"\r\n",
    "a line of 9,000 bytes": b"GET /aff_c?offer_id=17&aff_sub=" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "200 headers": CLICK + HOST + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n",
    "HTTP/2.0": CLICK.replace(b"1.1", b"2.0") + HOST + b"\r\n",
}

STRICT = {
    # The request line.
    "a method in lower case": CLICK.replace(b"GET", b"get") + HOST + b"\r\n",
    "a method with a dash before": b"-" + CLICK + HOST + b"\r\n",
    "a method of another protocol": b"DESCRIBE /aff_c HTTP/1.1\r\n" + HOST + b"\r\n",
    "RTSP": b"GET /aff_c RTSP/1.0\r\n" + HOST + b"\r\n",
    "ICE": b"SOURCE /aff_c ICE/1.0\r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks before the target": CLICK.replace(b"GET ", b"GET  ") + HOST + b"\r\n",
    "a tab before the target": CLICK.replace(b"GET ", b"GET\t") + HOST + b"\r\n",
    "two blanks before the version": CLICK.replace(b" HTTP", b"  HTTP") + HOST + b"\r\n",
    "a blank after the version": CLICK.replace(b"1.1\r\n", b"1.1 \r\n") + HOST + b"\r\n",
    "a version in lower case": CLICK.replace(b"HTTP", b"http") + HOST + b"\r\n",
    "no minor version": CLICK.replace(b"1.1", b"1") + HOST + b"\r\n",
    "a version of two digits": CLICK.replace(b"1.1", b"01.1") + HOST + b"\r\n",
    "a version with a letter": CLICK.replace(b"1.1", b"1.x") + HOST + b"\r\n",
    "HTTP/0.9": CLICK.replace(b"1.1", b"0.9") + HOST + b"\r\n",
    "HTTP/3.0": CLICK.replace(b"1.1", b"3.0") + HOST + b"\r\n",
    "HTTP/1.9": CLICK.replace(b"1.1", b"1.9") + HOST + b"\r\n",
    "a relative target": CLICK.replace(b"/aff_c", b"aff_c") + HOST + b"\r\n",
    "a fragment that has control bytes": CLICK.replace(b"aff_id", b"#\x07") + HOST + b"\r\n",
    "DEL in the target": CLICK.replace(b"aff_id", b"\x7f") + HOST + b"\r\n",
    "CR in the target": CLICK.replace(b"aff_id", b"\r") + HOST + b"\r\n",
    "CONNECT without an authority": b"CONNECT /aff_c HTTP/1.1\r\n" + HOST + b"\r\n",
    "a response": b"HTTP/1.1 200 OK\r\n" + HOST + b"\r\n",
    "a prefix of garbage": b"\x01\x02" + CLICK + HOST + b"\r\n",
    # Header lines.
    "a header without a colon": CLICK + HOST + b"X\r\n\r\n",
    "a header without a name": CLICK + HOST + b": x\r\n\r\n",
    "a blank in a name": CLICK + HOST + b"X Y: z\r\n\r\n",
    "a tab before the colon": CLICK + HOST + b"X\t: y\r\n\r\n",
    "a blank before the first name": CLICK + b" " + HOST + b"\r\n",
    "a name in brackets": CLICK + HOST + b"[X]: y\r\n\r\n",
    "a name with a slash": CLICK + HOST + b"X/Y: z\r\n\r\n",
    "a name of other bytes": CLICK + HOST + b"\xc3\xbc: y\r\n\r\n",
    "CR alone in a value": CLICK + HOST + b"X: a\rb\r\n\r\n",
    "CR alone as the end": CLICK + HOST + b"X: a\r\r\n\r\n",
    "a control byte in a value": CLICK + HOST + b"X: \x02\r\n\r\n",
    "DEL in a value": CLICK + HOST + b"X: \x7f\r\n\r\n",
    "LF before CR LF": CLICK + HOST + b"X: a\n\r\n\r\n",
    "a bare LF as the end": CLICK + HOST + b"\n",
    # Lengths and chunks.
    "a length that overflows": POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    "a length below zero": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "a length with a comma": POST + b"Content-Length: 5, 5\r\n\r\nabcde",
    "a length with a blank within": POST + b"Content-Length: 4 2\r\n\r\n",
    "a length that is empty": POST + b"Content-Length:\r\n\r\n",
    "a length in other digits": POST + "Content-Length: \u0665\r\n\r\nabcde".encode(),
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "chunks, then a length": POST + CHUNKED + b"Content-Length: 5\r\n\r\n" + LAST_CHUNK,
    "chunked, but not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST_CHUNK,
    "a coding before the chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST_CHUNK,
    "a coding on a line before": POST + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n" + LAST_CHUNK,
    "a click in another coding": CLICK + HOST + b"Transfer-Encoding: deflate, chunked\r\n\r\n" + LAST_CHUNK,
    "chunks twice over": POST + CHUNKED + CHUNKED + b"\r\n" + LAST_CHUNK,
    "chunked with a quote": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + LAST_CHUNK,
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + LAST_CHUNK,
    "a chunk's size with a plus": POST + CHUNKED + b"\r\n+1\r\na\r\n" + LAST_CHUNK,
    "a chunk's size below zero": POST + CHUNKED + b"\r\n-1\r\na\r\n" + LAST_CHUNK,
    "a chunk's size with 0x": POST + CHUNKED + b"\r\n0x1\r\na\r\n" + LAST_CHUNK,
    "a chunk's size that overflows": POST + CHUNKED + b"\r\nfffffffffffffffff\r\na\r\n" + LAST_CHUNK,
    "a chunk longer than its size": POST + CHUNKED + b"\r\n1\r\nab\r\n" + LAST_CHUNK,
    "a chunk's size ended by a bare LF": POST + CHUNKED + b"\r\n1\na\r\n" + LAST_CHUNK,
    "a chunk ended by a bare LF": POST + CHUNKED + b"\r\n1\r\na\n" + LAST_CHUNK,
    "a blank in front of a chunk's size": POST + CHUNKED + b"\r\n 1\r\na\r\n" + LAST_CHUNK,
    "a chunk extension with a control byte": POST + CHUNKED + b"\r\n1;\x01\r\na\r\n" + LAST_CHUNK,
}


async def refused(tmp_path: Path, data: bytes) -> int:
    """The status of the one answer to it, after which the connection ends; nothing is recorded or logged."""
    async with serving(tmp_path) as port:
        with logged() as lines:
            async with port.wire() as wire:
                wire.send(data)
                reply = await wire.reply()
                assert await wire.is_closed()
        assert (port.events(), lines) == ([], [])
        return reply.status


@pytest.mark.reliability(number=19)
@pytest.mark.both_loops
@pytest.mark.parametrize("data", FOURTEEN.values(), ids=FOURTEEN.keys())
async def test_each_of_fourteen_malformed_requests_is_refused(tmp_path: Path, data: bytes) -> None:
    """A 4xx (505 for another version), a close, no record."""
    assert await refused(tmp_path, data) in (400, 413, 431, 501, 505)


@pytest.mark.reliability(number=20)
@pytest.mark.parametrize("data", STRICT.values(), ids=STRICT.keys())
async def test_what_a_strict_parser_refuses_is_refused(tmp_path: Path, data: bytes) -> None:
    """The families of llhttp's own tests: methods, targets, versions, names, values, lengths, chunks."""
    assert await refused(tmp_path, data) in (400, 404, 405, 501, 505)


WHOLE = CLICK + HOST + b"User-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"
BODY = b"transaction_id=no-such-click&amount=1"
POSTED = POST + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
IN_CHUNKS = (
    POST + b"Content-Type: application/x-www-form-urlencoded\r\n" + CHUNKED + b"\r\n"
    b"f\r\ntransaction_id=\r\n00D;x=y\r\nno-such-click\r\n9\r\n&amount=1\r\n" + LAST_CHUNK
)  # fmt: skip
ACCEPTED = {
    "all at once": (WHOLE, 302),
    "blanks around a value": (CLICK + b"Host: \t edge.example \t\r\nX:\t y\t\r\n\r\n", 302),
    "no blank before a value": (CLICK + b"Host:edge.example\r\n\r\n", 302),
    "an empty value": (CLICK + HOST + b"X:\r\nY: \r\n\r\n", 302),
    "names in any case": (CLICK + b"hOsT: edge.example\r\nACCEPT: */*\r\n\r\n", 302),
    "every character that a name may have": (CLICK + HOST + b"!#$%&'*+-.^_`|~09AZaz: x\r\n\r\n", 302),
    "other bytes in a value": (CLICK + HOST + b"X: \xc3\xbc \xff\r\n\r\n", 302),
    "an empty line before it": (b"\r\n" + WHOLE, 302),
    "a body of its length": (POSTED, 200),
    "a body in chunks": (IN_CHUNKS, 200),
    "a wish to be asked first": (CLICK + HOST + b"Expect: 100-continue\r\n\r\n", 302),
    "an unknown header": (CLICK + HOST + b'X-Anything: at all; really="yes"\r\n\r\n', 302),
    "an empty body": (POST + b"Content-Length: 0\r\n\r\n", 200),
}  # fmt: skip


@pytest.mark.reliability(number=20)
@pytest.mark.both_loops
@pytest.mark.parametrize(("data", "status"), ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_what_a_strict_parser_takes_is_taken(tmp_path: Path, data: bytes, status: int) -> None:
    """Strictness refuses nobody who keeps to RFC 9112."""
    async with serving(tmp_path) as port, port.wire() as wire:
        wire.send(data)
        assert (await wire.reply()).status == status


@pytest.mark.reliability(number=20)
@pytest.mark.parametrize(("data", "status"), [(WHOLE, 302), (POSTED, 200), (IN_CHUNKS, 200)], ids=["head", "body", "chunks"])
async def test_a_request_may_come_in_any_two_pieces(tmp_path: Path, data: bytes, status: int) -> None:
    """Cut at every byte: method, target, version, name, value, line ends, body; the answer is the same."""
    async with serving(tmp_path) as port:

        async def ask(cut: int) -> int:
            async with port.wire() as wire:
                wire.send(data[:cut])
                assert await wire.is_silent(0.005)
                wire.send(data[cut:])
                return (await wire.reply()).status

        assert set(await asyncio.gather(*map(ask, range(1, len(data))))) == {status}
