"""`python -m benchmarks.cluster.faults`: exit code 1 when anything was lost, doubled, wrong or slow to heal."""

import argparse
import asyncio
import json
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cluster.faults.plan import NAMES, chosen
from benchmarks.cluster.faults.run import Run, costs, judge, run
from benchmarks.report import surroundings

ROOT = Path(__file__).parents[3]


def main() -> int:
    """Run the modes one after the other; say what came of each; judge."""
    arguments = _parse()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seed = arguments.seed or random.SystemRandom().randrange(1, 2**31)
    figures: dict[str, Any] = {**surroundings(), "rate_per_s": arguments.rate, "seed": seed, "modes": {}}
    # Not mkdtemp's 0700: as root PostgreSQL runs as another user, who must get there.
    directory = Path(tempfile.mkdtemp(prefix="clickedge-cluster-", dir=arguments.directory))
    directory.chmod(0o711)
    faults = []
    for mode in chosen(arguments.only):
        print(f"== {mode.name}: {arguments.rate} requests/s to two edges, seed {seed}", flush=True)
        (directory / mode.name).mkdir(mode=0o711)
        found = asyncio.run(run(mode, directory / mode.name, arguments.rate, seed))
        faults += [f"{mode.name}: {line}" for line in judge(found)]
        figures["modes"][mode.name] = summarize(found)
    _write({**figures, "faults": faults}, arguments.results)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    if faults:
        print(f"logs, ledgers and data are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    print("0 lost, 0 doubled, roll-ups equal")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.faults", description="Two edges under load, and every part hurt.")
    parser.add_argument("--only", action="append", choices=NAMES, help="this fault; several times: these (all)")
    parser.add_argument("--rate", type=int, default=120, help="requests a second to both edges together (120)")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0: another one each time (0)")
    parser.add_argument("--directory", default="/var/tmp", help="for all data: on a real disk (/var/tmp)")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "cluster-faults", help="for the report (build/cluster-faults)")
    return parser.parse_args()


def summarize(found: Run) -> dict[str, Any]:
    """One mode's part of the report."""
    by_fault = costs(found)
    return {
        "seconds": round(found.seconds),
        "faults": [
            {
                "name": one.fault.name,
                "does": one.fault.does,
                "took_s": round(one.well_s - one.began_s, 1),
                "saw": one.failure or one.saw,
                **by_fault.get(one.fault.name, {}),
            }
            for one in found.struck
        ],
        "without_a_fault": by_fault.get("without a fault", {}),
        "counts": {kind: asdict(count) for kind, count in found.reckoning.counts.items()},
        "partners_told_again": found.reckoning.told_again,
        "all_stored_after_s": found.reckoning.stored_after_s,
        "stream": found.stream.splitlines(),
    }


def _write(figures: Mapping[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "faults.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    tables = "\n".join(_table(name, mode) for name, mode in figures["modes"].items())
    (directory / "faults.md").write_text(tables, encoding="utf-8")
    print(f"\n{tables}\nthe report is in {directory}")


def _table(name: str, mode: Mapping[str, Any]) -> str:
    """In Markdown."""
    lines = [
        f"### {name}, {mode['seconds']} s",
        "",
        "| fault | took s | requests | unanswered | p50, p99, max ms | seen |",
        "|---|---|---|---|---|---|",
    ]
    quiet = {"name": "no fault", "took_s": "", "saw": "", **mode["without_a_fault"]}
    for one in [*mode["faults"], quiet]:
        times = ", ".join(str(one.get(key, "")) for key in ("p50_ms", "p99_ms", "max_ms"))
        lines.append(f"| {one['name']} | {one['took_s']} | {one.get('requests', 0)} | {one.get('unanswered', 0)} | {times} | {one['saw']} |")
    lines += ["", "| kind | sent | answered | stored | lost | doubled |", "|---|---|---|---|---|---|"]
    for kind, count in mode["counts"].items():
        lines.append(f"| {kind} | {count['sent']} | {count['answered']} | {count['stored']} | {count['lost'] + count['dropped']} | {count['doubled']} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
