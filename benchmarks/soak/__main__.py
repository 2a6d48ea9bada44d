"""`python -m benchmarks.soak`: exit code 1 when anything was lost, doubled, wrong, slow to heal or growing."""

import argparse
import asyncio
import random
import resource
import shutil
import sys
from pathlib import Path

from benchmarks import report as reports
from benchmarks.soak.figures import judge, summarize
from benchmarks.soak.node import SoakFailed
from benchmarks.soak.plan import FAULTS
from benchmarks.soak.report import write_report
from benchmarks.soak.run import soak

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Soak, say what came of it, judge."""
    arguments = _parse()
    _raise_descriptor_limit()
    seed = arguments.seed or random.SystemRandom().randrange(1, 2**31)
    facts = {**reports.surroundings(), "minutes": arguments.minutes, "seed": seed}
    print(f"soaking for {arguments.minutes:g} minutes at {arguments.rate} requests/s, seed {seed}", flush=True)
    try:
        found, node = asyncio.run(soak(arguments.minutes, arguments.rate, seed, arguments.directory, arguments.only))
    except SoakFailed as error:
        print(f"cannot soak: {error}", file=sys.stderr)
        return 2
    faults = judge(found)
    figures = {**facts, **summarize(found), "faults": faults}
    write_report(figures, found, arguments.results, is_published=arguments.publish)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    if faults:
        print(f"the node's log, its ledgers and its data are in {node.directory}", file=sys.stderr)
        return 1
    shutil.rmtree(node.directory, ignore_errors=True)
    print("0 lost, 0 doubled, memory flat")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Mixed load and a fault every minute.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30); shorter: faults come closer together")
    parser.add_argument("--rate", type=int, default=400, help="requests a second (400)")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0: another one each time (0)")
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", action="append", choices=names, help="this fault; several times: these (all)")
    parser.add_argument("--directory", default="/var/tmp", help="for the database and journals: on a real disk (/var/tmp)")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "soak", help="for the report (build/soak)")
    parser.add_argument("--publish", action="store_true", help="into docs/soak.md and benchmarks/results too")
    return parser.parse_args()


def _raise_descriptor_limit() -> None:
    """A thousand connections and as many as the load has."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
