"""Each parser's harness for a moment, without coverage: `make fuzz` runs the same ones for as long as one likes."""

import random
import time

import pytest

from tests.fuzz import fuzz_files, fuzz_records, fuzz_requests
from tests.fuzz.harness import TARGETS, Target

ROUNDS = 250
MAX_CPU_S = 5.0
"""As `make fuzz` has it: a parser that goes astray takes minutes, and what a good one takes differs by the machine."""
PIECES = [b"\0", b"\r\n", b"%", b"%00", b"&", b"=", b",", b";", b"\xff", b"9" * 30, b"-1", b"[[", b'"', b"\\", b"{", b"\x7f", b"\xe2\x80\xa8"]
MODULES = [fuzz_files, fuzz_records, fuzz_requests]
"""Imported, they register their harnesses."""


def changed(seed: bytes, chance: random.Random) -> bytes:
    """`seed` with a few pieces put in, taken out, doubled or flipped."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        place = chance.randint(0, len(data))
        kind = chance.randrange(5)
        if kind == 0:
            data[place:place] = chance.choice(PIECES)
        elif kind == 1:
            del data[place : place + chance.randint(1, 8)]
        elif kind == 2:
            data[place:place] = data[place : place + chance.randint(1, 40)]
        elif kind == 3 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        else:
            data[place:place] = chance.randbytes(chance.randint(1, 4))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_parser(name: str) -> None:
    """Good inputs as they are, and changed: nothing is raised but the module's own faults, and each takes little time."""
    tried: Target = TARGETS[name]
    chance = random.Random(name)
    inputs = [b"", *tried.seeds]
    inputs += [changed(chance.choice(tried.seeds), chance) for _ in range(ROUNDS)]
    inputs += [chance.randbytes(chance.randint(0, 60)) for _ in range(ROUNDS // 5)]
    for data in inputs:
        began_s = time.thread_time()
        tried.check(data)
        assert time.thread_time() - began_s < MAX_CPU_S, data
