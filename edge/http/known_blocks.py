"""What the header lines of a request say, remembered: browsers of one kind, balancers and servers send the same again.

A block is everything from the end of the request line to the empty line. It is known once llhttp has accepted a request
with it, so that of a request with a known block only the first line is to be looked at.
"""

import re

import msgspec

from edge.tracking.headers import (
    MAX_LANGUAGE_CHARS,
    MAX_REFERRER_CHARS,
    MAX_USER_AGENT_CHARS,
    PREFETCH_NAMES,
    Headers,
    read_headers,
    share,
)

MAX_KNOWN = 1024
MAX_KNOWN_BYTES = 2048
_TAB = ord("\t")
_RARE_NAMES = (
    "cookie",
    "authorization",
    "sec-gpc",
    "dnt",
    "expect",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-proto",
    *PREFETCH_NAMES,
)
_RARE = re.compile(f"\n(?:{'|'.join(_RARE_NAMES)}):".encode()).search


class Block(msgspec.Struct, frozen=True, gc=False):
    """The header lines, read. The forwarding headers are joined with commas, as sent."""

    headers: Headers
    is_hot: bool
    """Whether nothing in it needs more than the lane does: no body, no `Expect`, no upgrade."""
    is_last: bool
    """Whether the client wants the connection closed."""
    has_one_host: bool
    forwarded_for: str
    forwarded_proto: str


def read_block(sent: bytes, *, is_hot: bool, is_last: bool) -> Block:
    """The facts in a block that llhttp has accepted: no folded lines, no bare line feeds, names without spaces."""
    lower = sent.lower()
    if _RARE(lower) or lower.count(b"\nhost:") != 1 or _TAB in sent or not sent.isascii():
        return _read_lines(sent, is_hot=is_hot, is_last=is_last)
    # What most requests send: three values at most, nothing to clean: 5.3 us instead of 8.7 line by line.
    headers = Headers(
        share(_find_value(sent, lower, b"\nuser-agent:", MAX_USER_AGENT_CHARS)),
        _find_value(sent, lower, b"\nreferer:", MAX_REFERRER_CHARS),
        _find_value(sent, lower, b"\naccept-language:", MAX_LANGUAGE_CHARS),
    )
    return Block(headers, is_hot, is_last, True, "", "")


def _find_value(sent: bytes, lower: bytes, needle: bytes, max_chars: int) -> str:
    start = lower.find(needle)
    if start < 0:
        return ""
    start += len(needle)
    return sent[start : sent.find(b"\r", start)].strip(b" ")[:max_chars].decode("ascii")


def _read_lines(sent: bytes, *, is_hot: bool, is_last: bool) -> Block:
    lines = sent.decode("utf-8", "surrogateescape").split("\r\n")
    pairs = []
    hosts, forwarded_for, forwarded_proto = 0, [], ""
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        pairs.append((name, value))
        if name == "host":
            hosts += 1
        elif name in ("expect", "upgrade"):
            is_hot = False
        elif name == "x-forwarded-for":
            forwarded_for.append(value)
        elif name == "x-forwarded-proto":
            forwarded_proto = forwarded_proto or value
    return Block(read_headers(pairs), is_hot, is_last, hosts == 1, ",".join(forwarded_for), forwarded_proto)


class KnownBlocks:
    """The blocks seen last: a bounded memory, emptied when it is full, since the common ones are soon back."""

    __slots__ = ("_by_bytes", "find")

    def __init__(self) -> None:
        self._by_bytes: dict[bytes, Block] = {}
        self.find = self._by_bytes.get
        """The block, if its bytes are known."""

    def add(self, sent: bytes, block: Block) -> None:
        """Know `block` by its bytes, if it is hot, of a common size, and names nobody: that one hardly comes again."""
        is_personal = block.headers.cookie or block.headers.authorization or block.forwarded_for
        if block.is_hot and block.has_one_host and not is_personal and len(sent) <= MAX_KNOWN_BYTES:
            if len(self._by_bytes) >= MAX_KNOWN:
                self._by_bytes.clear()
            self._by_bytes[sent] = block
