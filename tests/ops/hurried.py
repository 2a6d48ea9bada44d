"""The rules of deploy/prometheus with hours made seconds, so that a living node raises the patient ones within a test."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.prometheus import DEPLOYED, Prometheus

SECONDS = {
    "1m": 1, "2m": 2, "5m": 4, "10m": 5, "15m": 6, "30m": 8, "1h": 12, "2h": 15, "3h": 16, "6h": 20, "1d": 30, "3d": 45,
    "1w": 60, "30d": 90,
}  # fmt: skip
"""What each duration of the rules becomes: their order is kept, and four scrapes fit the shortest range of a rate."""
LIMITS = {"> 60": "> 1", "> 300": "> 4", "> 3600": "> 12", "> 86400": "> 30", "> 45 * 86400": "> 60"}
"""The ages that expressions give in seconds. How far they look ahead stays: faults of seconds are small."""
_DURATION = re.compile(r"(?<=\[)\w+(?=\])|(?<=offset )\w+")
_LIMIT = re.compile("|".join(rf"{re.escape(one)}\b" for one in sorted(LIMITS, key=len, reverse=True)))


def hurried_prometheus(directory: Path, targets: Sequence[str]) -> Prometheus:
    """A server, below `directory`, whose rules are other in nothing else. KeyError: a duration that nobody has shortened."""
    own = directory / "hurried"
    shutil.copytree(DEPLOYED, own / "deployed")
    for path in (own / "deployed" / "rules").glob("*.yml"):
        path.write_bytes(msgspec.yaml.encode(_hurry_rules(msgspec.yaml.decode(path.read_bytes()))))
    return Prometheus(own, targets, deployed=own / "deployed")


def _hurry_rules(file: dict[str, Any]) -> dict[str, Any]:
    for rule in (rule for group in file["groups"] for rule in group["rules"]):
        rule["expr"] = hurry_expression(rule["expr"])
        if "for" in rule:
            rule["for"] = _shorten(rule["for"])
    return file


def hurry_expression(expression: str) -> str:
    """Ranges, offsets and ages."""
    shortened = _DURATION.sub(lambda found: _shorten(found[0]), expression)
    return _LIMIT.sub(lambda found: LIMITS[found[0]], shortened)


def _shorten(duration: str) -> str:
    return f"{SECONDS[duration]}s"
