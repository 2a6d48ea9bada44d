"""What a check says: its subject, how it stands, what was found, and what to do about it."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

State = Literal["ok", "warn", "fail", "skipped"]


class Finding(msgspec.Struct, frozen=True):
    """`skipped`: could not be looked at, `found` says why. `advice` is empty only where there is nothing to do."""

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Finding:
    """It works, and will hurt under some circumstance."""
    return Finding(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Finding:
    """It does not work, or loses something."""
    return Finding(name, "fail", found, advice)


def skipped(name: str, why: str, advice: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(name, "skipped", why, advice)


def hide(findings: Iterable[Finding], secrets: Sequence[str]) -> list[Finding]:
    """The same without any of the secrets: an error's text may repeat what it was given."""

    def clean(text: str) -> str:
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    return [Finding(one.name, one.state, clean(one.found), clean(one.advice)) for one in findings]


def format_bytes(count: float) -> str:
    """Such as 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Such as 3.5 hours."""
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
