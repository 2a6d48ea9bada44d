"""`python -m benchmarks`: all measurements with their defaults; `python -m benchmarks NAME …`: one of them."""

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path

from benchmarks import report

BENCHMARKS: dict[str, str] = {
    "peers": "benchmarks.peers.compare",
    "handlers": "benchmarks.handlers",
    "workers": "benchmarks.workers",
    "latency": "benchmarks.latency",
    "drain": "benchmarks.drain",
    "sustained": "benchmarks.sustained",
    "growth": "benchmarks.growth",
    "reports": "benchmarks.reports",
    "sessions": "benchmarks.session_memory",
    "locust": "benchmarks.mixed_load",
    "cluster": "benchmarks.cluster.costs",
    "capacity": "benchmarks.capacity",
    "guard": "benchmarks.guard",
}
"""By name; each module has `SUMMARY`, `add_arguments(parser)` and `run(arguments)`, and is imported when it is run."""


def main() -> int:
    """Run what the command line asks for; 1 when a measurement failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Without a name: all of them, with their defaults."
    )
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--results", type=Path, help="keep figures and plots there instead of in benchmarks/results")
    parser.add_argument("name", nargs="?", metavar="NAME", choices=BENCHMARKS, help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="…", help="of that one; NAME --help lists them")
    arguments = parser.parse_args()
    if arguments.results:
        report.RESULTS = arguments.results
    if arguments.list:
        for name, module in BENCHMARKS.items():
            print(f"{name:<10} {import_module(module).SUMMARY}")
        return 0
    if arguments.name:
        _run(arguments.name, arguments.options)
        return 0
    return _run_all()


def _run(name: str, options: list[str]) -> None:
    module = import_module(BENCHMARKS[name])
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.SUMMARY)
    module.add_arguments(parser)
    chosen = parser.parse_args(options)
    print(f"== {name}: {module.SUMMARY}", flush=True)
    module.run(chosen)


def _run_all() -> int:
    """One that fails does not keep the others from their turn."""
    failed = []
    for name in BENCHMARKS:
        try:
            _run(name, [])
        except (Exception, SystemExit):
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
