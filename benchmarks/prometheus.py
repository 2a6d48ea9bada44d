"""A real Prometheus server over deploy/prometheus: its rules, its intervals and targets as a run needs them."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from benchmarks.serving import free_port

DEPLOYED = Path(__file__).parent.parent / "deploy" / "prometheus"
JOB = "clickedge"
READY_S = 30.0
STOP_S = 30.0


class Series(NamedTuple):
    """Labels, and points: seconds and values."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Alert(NamedTuple):
    """One that is `pending` or `firing`, with its templates filled."""

    name: str
    state: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Prometheus:
    """The server within a `with`: scrapes `targets` (host:port) and evaluates the rules of `deployed` every `interval_s`."""

    def __init__(
        self, directory: Path, targets: Sequence[str], interval_s: int = 1, *, deployed: Path = DEPLOYED
    ) -> None:
        self._directory = directory
        self._deployed = deployed
        self._targets = list(targets)
        self._interval = f"{interval_s}s"
        self.origin = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        program = shutil.which("prometheus")
        if program is None:
            raise RuntimeError("prometheus is missing; as root: make system")
        config = self._directory / "prometheus.json"
        config.write_text(json.dumps(self._config()), encoding="utf-8")
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program, f"--config.file={config}", f"--storage.tsdb.path={self._directory / 'tsdb'}",
                    f"--web.listen-address={self.origin.removeprefix('http://')}", "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(STOP_S)

    def _config(self) -> dict[str, Any]:
        """prometheus.yml, which JSON is too, with other intervals and targets."""
        config: dict[str, Any] = msgspec.yaml.decode((self._deployed / "prometheus.yml").read_bytes())
        config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), self._interval)
        config["rule_files"] = [str(self._deployed / pattern) for pattern in config["rule_files"]]
        [job] = config["scrape_configs"]
        job["static_configs"] = [{"targets": self._targets}]
        return config

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.origin}/-/ready", timeout=2).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError((self._directory / "prometheus.log").read_text())

    def query(self, expression: str) -> list[Series]:
        """What it is now; ValueError says what is wrong with the expression."""
        return [
            Series(one["metric"], [(float(one["value"][0]), float(one["value"][1]))])
            for one in self._ask("query", query=expression)["result"]
        ]

    def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """What it was, between two Unix times."""
        found = self._ask("query_range", query=expression, start=start_s, end=end_s, step=step_s)["result"]
        return [
            Series(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in found
        ]

    def rule_errors(self) -> list[str]:
        """What the last evaluation of each rule complained of."""
        groups = self._ask("rules")["groups"]
        return [f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")]

    def alerts(self) -> list[Alert]:
        """Those that are pending or firing."""
        return [
            Alert(one["labels"]["alertname"], one["state"], one["labels"], one["annotations"])
            for one in self._ask("alerts")["alerts"]
        ]

    def _ask(self, what: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters).encode()
        url = f"{self.origin}/api/v1/{what}"
        try:
            with urllib.request.urlopen(f"{url}?{query.decode()}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from None


def fill(expression: str, *, rate_interval: str) -> str:
    """An expression of the dashboard as Grafana sends it: all nodes of our job."""
    return (
        expression.replace("$job", JOB).replace("$instance", ".+").replace("$__rate_interval", rate_interval)
    )
