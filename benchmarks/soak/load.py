"""Locust, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from benchmarks.soak.node import SoakFailed, SoakNode

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
ENDS_S = 120.0
PER_USER_PER_S = 8
"""Requests of a user, over one connection of its own and one for its bad requests."""


class Load:
    """Runs within a `with`; at its end every request in hand is answered or given up."""

    def __init__(self, node: SoakNode, directory: Path, rate_per_s: int, seed: int) -> None:
        self._directory = directory
        self._log = directory / "load.log"
        self._command = [
            sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--loglevel", "WARNING", "--only-summary",
            "--host", node.origin,
        ]  # fmt: skip
        self._env = {
            **os.environ,
            "SOAK_DIRECTORY": str(directory),
            "SOAK_CATALOG": str(node.catalog),
            "SOAK_RATE": str(rate_per_s),
            "SOAK_SEED": str(seed),
        }

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=LOCUSTFILE.parents[2], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        (self._directory / "stop").touch()
        try:
            self._process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise SoakFailed("the load did not end") from None

    def check(self) -> None:
        """SoakFailed when it has ended by itself."""
        if (code := self._process.poll()) is not None:
            raise SoakFailed(f"the load ended with code {code}: {self._log.read_text(errors='replace')[-2000:]}")
