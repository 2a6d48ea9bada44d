"""edge/tracking/headers.py and edge/http/known_blocks.py: what a request's header lines say, read once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http import known_blocks
from edge.http.known_blocks import Block, KnownBlocks, read_block
from edge.tracking.headers import DNT, GPC, MAX_USER_AGENT_CHARS, Headers, read_headers

SENT = (
    b"\r\nHost: edge.example\r\nUSER-agent:\t Mozilla/5.0 \r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n"
    b"X-Forwarded-Proto: https\r\nReferer: https://blog.example/\xc3\xbc\r\nEmpty:\r\n\r\n"
)


def read(sent: bytes, *, is_hot: bool = True) -> Block:
    return read_block(sent, is_hot=is_hot, is_last=False)


def test_a_header_is_cut_and_cleaned() -> None:
    """Bytes that are no UTF-8 and control characters do not reach an event; the first of a name counts."""
    headers = read_headers(
        [("USER-Agent", "Mozilla\udcff\x01/5.0"), ("user-agent", "other"), ("Referer", "r" * 2000), ("X", "y")]
    )
    assert headers == Headers(user_agent="Mozilla\ufffd/5.0", referrer="r" * 1024)
    assert len(read_headers([("user-agent", "x" * 999)]).user_agent) == MAX_USER_AGENT_CHARS
    assert read_headers([]) == Headers()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cOOkie", "a=b", Headers(cookie="a=b")),
        ("Sec-GPC", "1", Headers(opts_out=GPC)),
        ("DNT", "1", Headers(opts_out=DNT)),
        ("DNT", "0", Headers()),
        ("Sec-GPC", "0", Headers()),
        ("Purpose", "prefetch", Headers(is_prefetch=True)),
        ("Sec-Purpose", "Prefetch;prerender", Headers(is_prefetch=True)),
        ("X-Purpose", "preview", Headers(is_prefetch=True)),
        ("X-Moz", "prefetch", Headers(is_prefetch=True)),
        ("Purpose", "navigate", Headers()),
        ("Accept-Language", "de-DE", Headers(language="de-DE")),
    ],
)
def test_a_header_says_what_it_says(name: str, value: str, expected: Headers) -> None:
    """Whatever the case of its name."""
    assert read_headers([(name, value)]) == expected


def test_a_block_is_read_line_by_line() -> None:
    """Without the space around a value; forwarding headers all of them, as a proxy appends its own."""
    block = read(SENT)
    assert block.headers == Headers(user_agent="Mozilla/5.0", referrer="https://blog.example/ü")
    assert (block.forwarded_for, block.forwarded_proto) == ("1.1.1.1,2.2.2.2", "https")
    assert (block.is_hot, block.is_last, block.has_one_host) == (True, False, True)


@pytest.mark.parametrize("line", [b"Expect: 100-continue", b"UPGRADE: h2c"])
def test_what_the_lane_does_not_do_is_not_hot(line: bytes) -> None:
    """aiohttp sees to it."""
    assert not read(b"\r\nHost: x\r\n" + line + b"\r\n\r\n").is_hot


@pytest.mark.parametrize(("hosts", "is_one"), [(0, False), (1, True), (2, False)])
def test_a_request_has_one_host(hosts: int, is_one: bool) -> None:
    """None or two are refused."""
    assert read(b"\r\n" + b"Host: x\r\n" * hosts + b"\r\n").has_one_host == is_one


def test_only_hot_blocks_of_a_common_size_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that names a visitor, and no more than there is room for: then all are forgotten, the common ones come back."""
    monkeypatch.setattr(known_blocks, "MAX_KNOWN", 2)
    known = KnownBlocks()
    common, large = b"\r\nHost: x\r\n\r\n", b"\r\nHost: " + b"x" * 4000 + b"\r\n\r\n"
    cookie, address = (b"\r\nHost: x\r\n" + line + b"\r\n\r\n" for line in (b"Cookie: a=b", b"X-Forwarded-For: 1.1.1.1"))
    cold = b"\r\nHost: cold\r\n\r\n"
    for sent, is_hot in [(large, True), (cold, False), (b"\r\n\r\n", True), (cookie, True), (address, True)]:
        known.add(sent, read(sent, is_hot=is_hot))
        assert known.find(sent) is None
    known.add(common, read(common))
    known.add(b"\r\nHost: z\r\n\r\n", read(common))
    assert known.find(common) is not None
    known.add(b"\r\nHost: y\r\n\r\n", read(common))
    assert known.find(common) is None
    assert known.find(b"\r\nHost: y\r\n\r\n") is not None


LINE = st.sampled_from(
    [
        b"User-Agent: Mozilla/5.0", b"user-agent:  x ", b"Referer: https://blog.example/" + b"r" * 1100, b"REFERER:",
        b"Accept-Language: en-US,en;q=0.9", b"Accept:\ta", b"Cookie: a=b", b"Sec-GPC: 1", b"Purpose: prefetch",
        b"X-Moz: none", b"Host: x", b"Expect: 100-continue", b"Upgrade: h2c", b"X-Forwarded-For: 1.1.1.1",
        b"x-forwarded-proto: https", b"Referer: \xc3\xbc", b"X-Purpose:", b"X: user-agent: y",
    ]
)  # fmt: skip


@given(st.lists(LINE, max_size=6), st.booleans())
def test_the_short_way_reads_what_the_long_way_reads(lines: list[bytes], has_host: bool) -> None:
    """Of the blocks that most requests send, three values are looked up instead of all lines read."""
    sent = b"".join(b"\r\n" + line for line in [b"Host: edge.example"] * has_host + lines) + b"\r\n\r\n"
    assert read(sent) == known_blocks._read_lines(sent, is_hot=True, is_last=False)


def test_sessions_of_one_browser_share_its_user_agent() -> None:
    """Whatever else their requests say, and whichever way these are read."""
    blocks = [b"\r\nHost: x\r\nUser-Agent: Mozilla/5.0 (X11)\r\nReferer: https://%d.example/\r\n\r\n" % n for n in (1, 2)]
    first, second = (read(sent).headers.user_agent for sent in blocks)
    assert first is second
    assert read_headers([("User-Agent", "Mozilla/5.0 " + "(X11)")]).user_agent is first
