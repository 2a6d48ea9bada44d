"""`python -m tests.fuzz [TARGET [SECONDS]]`: guided by coverage, until something breaks or the time is over.

Without a target: its names, one a line. A broken input is left in the current folder as `crash-…`; its exit code is not 0.
What reached new code is kept in `corpus/TARGET` there, and is where the next run goes on.
"""

import importlib
import sys
from pathlib import Path

from tests.fuzz.harness import MAX_BYTES, TARGETS

MODULES = ("fuzz_requests", "fuzz_records", "fuzz_files")


def load() -> None:
    """Import all harnesses."""
    for name in MODULES:
        importlib.import_module(f"tests.fuzz.{name}")


def main() -> None:
    """List the targets, or run one of them."""
    if len(sys.argv) < 2:
        load()
        sys.stdout.write("\n".join(TARGETS) + "\n")
        return
    import atheris

    with atheris.instrument_imports(include=["edge", "storage"]):
        load()
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    corpus = Path("corpus", name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / str(number)).write_bytes(seed)
    flags = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=5", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], TARGETS[name].check)
    atheris.Fuzz()


main()
