"""Signed postbacks through a real node, made as docs/trust.md says: by Python and by a shell with openssl and curl."""

import asyncio
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import EXAMPLE_CATALOG, Node
from tests.wire.test_commands import click, run, until

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
SECRET = "shared with Outletforce"


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """A node whose advertiser 1 signs."""
    catalog = short_directory / f"signing-{uuid.uuid4().hex[:8]}.toml"
    catalog.write_text(
        EXAMPLE_CATALOG.read_text().replace("[[advertisers]]\nid = 1\n", f'[[advertisers]]\nid = 1\nsigning_secret = "{SECRET}"\n')
    )
    node = Node(short_directory / f"signed-{uuid.uuid4().hex[:8]}", catalog=catalog)
    try:
        asyncio.run(node.start())
        yield node
        assert asyncio.run(node.stop()) == 0
    finally:
        asyncio.run(node.stop(signal.SIGKILL))


def recipe(language: str) -> str:
    """The page's example in that language."""
    [code] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def verdicts(node: Node, click_id: str) -> list[tuple[str, str]]:
    rows = asyncio.run(
        node.fetch("SELECT status, reason FROM conversions WHERE transaction_id = $1 ORDER BY received_at", click_id)
    )
    return [tuple(row) for row in rows]


def test_the_python_recipe_signs_and_a_replay_is_refused(node: Node) -> None:
    """Sent twice, approved once; without a signature refused."""
    click_id = click(node)
    program = f"transaction_id, origin, secret = {click_id!r}, {node.origin!r}, {SECRET!r}\n{recipe('python')}\nprint(url)"
    url = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=20).stdout.decode().strip()
    for address in (url, url, f"{node.origin}/aff_lsr?transaction_id={click_id}"):
        told = subprocess.run(["curl", "-s", address], capture_output=True, check=True, timeout=20).stdout
        assert told.startswith(b"success=true;")
    until(node, lambda: len(verdicts(node, click_id)) == 3)
    assert verdicts(node, click_id) == [("approved", ""), ("rejected", "replayed"), ("rejected", "bad_signature")]
    assert "signature" in run("explain", "--data-dir", node.data_dir, click_id)


def test_the_shell_recipe_signs(node: Node) -> None:
    """With nothing but openssl and curl."""
    click_id = click(node)
    environ = {"TRANSACTION_ID": click_id, "SECRET": SECRET, "ORIGIN": node.origin, "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-ec", recipe("sh")], env=environ, check=True, timeout=20, capture_output=True)
    until(node, lambda: bool(verdicts(node, click_id)))
    assert verdicts(node, click_id) == [("approved", "")]


def test_no_secret_is_shown_by_apply(node: Node, tmp_path: Path) -> None:
    """A changed signing secret is said to be changed."""
    file = tmp_path / "catalog.toml"
    file.write_text(EXAMPLE_CATALOG.read_text().replace("id = 1\n", 'id = 1\nsigning_secret = "another one"\n', 1))
    told = run("apply", "--dry-run", "--data-dir", node.data_dir, file)
    assert "~ advertisers[1].signing_secret: changed" in told
    assert "another one" not in told
    assert SECRET not in told
