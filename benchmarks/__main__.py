"""`python -m benchmarks`: all measurements with their defaults; `python -m benchmarks NAME …`: one of them."""

import argparse
import sys
from types import ModuleType

from benchmarks import drain

BENCHMARKS: dict[str, ModuleType] = {"drain": drain}
"""By name; each module has `SUMMARY`, `add_arguments(parser)` and `run(arguments)`."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Without a name: all of them.")
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    for name, module in BENCHMARKS.items():
        module.add_arguments(commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY))
    chosen = parser.parse_args().name
    for name in [chosen] if chosen else BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name].SUMMARY}")
        # For a name of its own the command line again, now with that benchmark's options; else its defaults.
        BENCHMARKS[name].run(parser.parse_args(sys.argv[1:] if chosen else [name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
