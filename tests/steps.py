"""How much work a call is, counted in lines of Python: the same number on every machine, however busy."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_steps(work: Callable[[], Any]) -> int:
    """The lines that `work` runs, each time it runs them."""
    steps = 0

    def note(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps
