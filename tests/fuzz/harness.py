"""What fuzzes a parser: a function of bytes that raises only where a promise is broken, and inputs to begin with.

Guided by coverage: `python -m tests.fuzz TARGET SECONDS` (atheris, see `make fuzz`). Short, without it:
tests/fuzz/test_short_fuzzing.py.
"""

from collections.abc import Callable
from typing import NamedTuple

MAX_BYTES = 4096

Check = Callable[[bytes], None]


class Target(NamedTuple):
    """One parser's harness."""

    check: Check
    seeds: tuple[bytes, ...]


TARGETS: dict[str, Target] = {}
"""By name, once the modules of this folder are imported."""


def target(*seeds: bytes) -> Callable[[Check], Check]:
    """Registers a harness under its own name; `seeds`: good inputs, to be changed."""

    def register(check: Check) -> Check:
        TARGETS[check.__name__] = Target(check, seeds)
        return check

    return register


def as_text(data: bytes) -> str:
    """Any text that a request may carry, lone surrogates too."""
    return data.decode("utf-8", "surrogateescape")
