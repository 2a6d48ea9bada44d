"""Clicks with every control byte in them, encoded and raw: the Location is the catalog's, byte for byte, or there is none."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edge.tracking.parameters import clean
from tests.wire.port import logged, serving

CONTROLS = [*range(0x20), 0x7F]
PREFIX = re.compile(r"https://shop\.example\.com/landing\?clickid=[0-9a-f]{32}&p=2&s=")
BATCH = 32
RAW_SHARE = 64
"""One in so many is sent raw: it costs a connection."""


def values(count: int) -> Iterator[bytes]:
    """Bytes of all kinds, with at least one control byte, each of them in turn."""
    chance = random.Random(24)
    for number in range(count):
        value = bytearray(chance.randbytes(chance.randrange(10)))
        value.insert(chance.randrange(len(value) + 1), CONTROLS[number % len(CONTROLS)])
        yield bytes(value)


def request(value: bytes) -> bytes:
    """A click with it, percent-encoded."""
    sent = "".join(f"%{byte:02X}" for byte in value)
    return f"GET /aff_c?offer_id=17&aff_id=2&aff_sub={sent} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.mark.reliability(number=24)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [5000, pytest.param(100_000, marks=pytest.mark.faults)])
async def test_no_control_byte_reaches_a_location(tmp_path: Path, count: int) -> None:
    """Encoded: 302 with the approved bytes and no header too many. Raw: 400. An answer each time, no log line."""
    names: set[str] = set()
    every = list(values(count))
    async with serving(tmp_path) as port:
        with logged() as lines:
            for start in range(0, count, BATCH):
                batch = every[start : start + BATCH]
                async with port.wire() as wire:
                    wire.send(b"".join(map(request, batch)))
                    for value in batch:
                        reply = await wire.reply()
                        location = reply.get("location")
                        expected = quote(clean(value.decode("utf-8", "replace")), safe="-._~")
                        assert (reply.status, PREFIX.sub("", location)) == (302, expected), value
                        assert not any(ord(letter) in CONTROLS for letter in location)
                        names.update(name for name, _ in reply.headers)
            for value in every[::RAW_SHARE]:
                async with port.wire() as wire:
                    wire.send(b"GET /aff_c?offer_id=17&aff_sub=" + value.replace(b"\n", b"\x01") + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert (await wire.reply()).status == 400, value
        assert lines == []
    assert names == {"content-length", "cache-control", "server", "date", "location", "set-cookie"}
