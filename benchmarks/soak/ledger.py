"""What was sent and what was answered, line by line in files that only grow: one file for each sender.

L1  A request's line is in the kernel before its first byte is sent, an answer's as soon as it is there: whatever the
    load or its machine does, nothing that was sent is unknown.
L2  A request has a mark of its own, which is in its row: `aff_sub4` of clicks and impressions, `adv_sub4` of conversions.

    > mark kind seconds family        sent; family: the click and goal that a conversion is of, else -
    < mark outcome seconds milliseconds id   answered; id: the click's, else -

Seconds are Unix time of a clock that no fault touches.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

OK, REFUSED, WRONG, UNANSWERED = "ok", "refused", "wrong", "unanswered"
"""Outcomes: as it must be; 503 with Retry-After; any other answer; none."""
_NONE = "-"


class Writer:
    """Appends to one file; each call is one write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def sent(self, mark: str, kind: str, at_s: float, family: str = "") -> None:
        """Before the request goes out."""
        self._append(f"> {mark} {kind.replace(' ', '_')} {at_s:.3f} {family or _NONE}\n")

    def answered(self, mark: str, outcome: str, at_s: float, took_ms: float, click_id: str = "") -> None:
        """As soon as the outcome is known."""
        self._append(f"< {mark} {outcome} {at_s:.3f} {took_ms:.3f} {click_id or _NONE}\n")

    def _append(self, line: str) -> None:
        os.write(self._descriptor, line.encode())


@dataclass(slots=True)
class Entry:
    """One request. `took_ms` is NaN and `outcome` `unanswered` where no answer was written down."""

    kind: str
    sent_s: float
    family: str
    outcome: str = UNANSWERED
    answered_s: float = float("nan")
    took_ms: float = float("nan")
    click_id: str = ""


def read(paths: Iterable[Path]) -> dict[str, Entry]:
    """All entries by mark. ValueError: a mark was used twice, or an answer has no request."""
    entries: dict[str, Entry] = {}
    for sign, mark, *rest in _lines(paths):
        if sign == ">":
            kind, sent_s, family = rest
            if mark in entries:
                raise ValueError(f"mark {mark} was sent twice")
            entries[mark] = Entry(kind.replace("_", " "), float(sent_s), "" if family == _NONE else family)
        elif (entry := entries.get(mark)) is None:
            raise ValueError(f"mark {mark} was answered and never sent")
        else:
            outcome, answered_s, took_ms, click_id = rest
            entry.outcome, entry.answered_s, entry.took_ms = outcome, float(answered_s), float(took_ms)
            entry.click_id = "" if click_id == _NONE else click_id
    return entries


def _lines(paths: Iterable[Path]) -> Iterator[list[str]]:
    for path in paths:
        with path.open(encoding="ascii") as file:
            yield from (line.split() for line in file)
