"""The README's first command in an empty clone, as root and as an ordinary user. Installs from PyPI: takes a minute."""

import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.node import free_port

ROOT = Path(__file__).parents[2]
INSTALL_S = 480
START_S = 90
UP = re.compile(
    r"^  click +(?P<click>http\S+)\n  postback +(?P<postback>http\S+)\n.*\n"
    r"  explain +(?P<explain>.+) TRANSACTION_ID --data-dir (?P<data_dir>.+)\n",
    re.MULTILINE,
)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(INSTALL_S + 120)]


class Newcomer:
    """Somebody with a clone. `user` None: whoever runs the tests."""

    def __init__(self, clone: Path, home: Path, user: str | None) -> None:
        self.clone = clone
        self._home = home
        self._user = user
        self._runs: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str | Path, **variables: object) -> tuple["subprocess.Popen[bytes]", Path]:
        """Run `make …` in another folder; the process and the file with all that it prints."""
        output = self.clone.with_name(f"{self.clone.name}-{len(self._runs)}.log")
        given = [f"{name}={value}" for name, value in variables.items()]
        with output.open("wb") as log:
            run = subprocess.Popen(
                [*command, *given], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._surroundings()
            )
        self._runs.append(run)
        return run, output

    def run(self, *command: str) -> str:
        """What a command prints; also when it fails."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **self._surroundings()
        )
        return done.stdout + done.stderr

    def processes(self) -> list[int]:
        """Whatever runs out of the clone or on a data dir in it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.fsencode(self.clone) in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    def _surroundings(self) -> dict[str, Any]:
        # What a `make faults` around us says to its own children is none of this make's business.
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("EDGE_", "MAKE", "MFLAGS", "VIRTUAL_ENV"))
        }
        if self._user is None:
            return {"env": env, "cwd": "/"}
        env |= {"HOME": str(self._home), "USER": self._user, "LOGNAME": self._user}
        return {"env": env, "cwd": "/", "user": self._user, "group": self._user, "extra_groups": []}


@pytest.fixture
def ordinary_user(short_directory: Path) -> Iterator[tuple[str, Path]]:
    """A user made for the test, and the home."""
    name = f"ce-test-{uuid.uuid4().hex[:8]}"
    home = short_directory / name
    subprocess.run(["useradd", "--create-home", "--home-dir", home, "--user-group", name], check=True)
    yield name, home
    subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture(params=["as whoever runs the tests", pytest.param("as an ordinary user", marks=pytest.mark.root)])
def newcomer(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[Newcomer]:
    """Somebody with a fresh clone of HEAD; afterwards nothing of theirs is left."""
    user, home = None, short_directory / uuid.uuid4().hex[:8]
    if "ordinary" in request.param:
        user, home = request.getfixturevalue("ordinary_user")
    clone = home / "clickedge"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    if user:
        subprocess.run(["chown", "-R", f"{user}:", home], check=True)
    newcomer = Newcomer(clone, home, user)
    yield newcomer
    for pid in newcomer.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until_up(run: "subprocess.Popen[bytes]", output: Path, timeout_s: float) -> re.Match[str]:
    """What `serve` prints for the user to try."""
    deadline = time.monotonic() + timeout_s
    while not (found := UP.search(output.read_text())):
        assert run.poll() is None, output.read_text()[-4000:]
        assert time.monotonic() < deadline, output.read_text()[-4000:]
        time.sleep(0.2)
    return found


def get(url: str) -> tuple[int, str, str]:
    """Status, `Location` and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", ""), answer.read().decode()
    finally:
        connection.close()


def try_out(newcomer: Newcomer, up: re.Match[str]) -> None:
    """Do what the printed lines propose: click, postback, explain; and look into the database."""
    status, location, _ = get(up["click"])
    found = re.search("clickid=([0-9a-f]{32})", location)
    assert (status, bool(found)) == (302, True)
    click_id = found[1] if found else ""
    assert get(up["postback"].replace("TRANSACTION_ID", click_id))[2] == "success=true;"
    explain = [*shlex.split(up["explain"]), click_id, "--data-dir", *shlex.split(up["data_dir"])]
    deadline = time.monotonic() + 30
    while "approved" not in (story := newcomer.run(*explain)):
        assert time.monotonic() < deadline, story
        time.sleep(0.2)
    assert re.search(r"aff_sub1 +hello\n", story)
    count = "SELECT (SELECT count(*) FROM clicks), (SELECT count(*) FROM conversions WHERE status = 'approved')"
    command = [explain[0], "psql", "--data-dir", explain[-1], "-XAt", "-c", count]
    assert newcomer.run(*command) == "1|1\n"


def test_make_run_in_an_empty_clone_ends_with_an_approved_conversion(newcomer: Newcomer) -> None:
    """`make -C` with its own data dir, beside it `make -f` with another; SIGTERM: exit code 0, no process left."""
    run, output = newcomer.start(
        "make", "--no-print-directory", "-C", newcomer.clone, "run", PORT=free_port(), ADMIN_PORT=free_port()
    )
    up = wait_until_up(run, output, INSTALL_S)
    own_data_dir = Path(shlex.split(up["data_dir"])[0])
    try:
        beside, beside_output = newcomer.start(
            "make", "-f", newcomer.clone / "Makefile", "run",
            PORT=free_port(), ADMIN_PORT=free_port(), DATA_DIR=newcomer.clone.parent / "second data",
        )  # fmt: skip
        try_out(newcomer, up)
        try_out(newcomer, wait_until_up(beside, beside_output, START_S))
        for each in (run, beside):
            [supervisor] = children(each.pid)
            os.kill(supervisor, signal.SIGTERM)
            assert each.wait(60) == 0
        assert newcomer.processes() == []
    finally:
        if own_data_dir.parent == Path("/var/lib/clickedge"):
            for pid in newcomer.processes():
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(own_data_dir)


def children(parent: int) -> list[int]:
    """Processes whose parent that is."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
