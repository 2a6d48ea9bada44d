"""Backups taken under load, then a loss: what was answered is there, once, by the very commands that docs/backups.md has."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from storage.postgres.cluster import find_binaries
from storage.postgres.connection import connect
from tests.faults.arrivals import faults_in, wait_until_stored, wait_until_told
from tests.faults.load import Say
from tests.faults.offers import catalog_text
from tests.faults.traffic import Ledger, Traffic
from tests.node import COMMAND, Node, eventually, is_running
from tests.partners import LOOPBACK, PartnerServer

PAGE = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()
SETTINGS = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32", "EDGE_POSTBACK_ALLOW": LOOPBACK, "EDGE_POSTBACK_TIMEOUT": "2s",
    "EDGE_POSTBACK_RETRY": "1s",
}  # fmt: skip
SEED = 20_261_122


@pytest.fixture
async def partners() -> AsyncIterator[PartnerServer]:
    """Where all partners listen."""
    async with PartnerServer().listening() as partners:
        yield partners


@pytest.fixture
def catalog(tmp_path: Path, partners: PartnerServer) -> Path:
    """The load's catalog, whose partners all hear."""
    path = tmp_path / "catalog.toml"
    path.write_text(catalog_text(partners.origin))
    return path


def recipe(words: str) -> str:
    """The page's block of commands in which these words are."""
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if words in block]
    return str(block)


async def follow(block: str, node: Node, directory: Path) -> None:
    """Run a block of the page as a user would, in `directory`."""
    places = {"DATA_DIR": str(node.data_dir), "BACKUP": str(directory / "base")}
    programs = os.pathsep.join([str(COMMAND.parent), str(find_binaries()), os.environ["PATH"]])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-eu", "-c", block], cwd=directory, env={**environ, **places, "PATH": programs},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def loading(node: Node, traffic: Traffic) -> AsyncIterator[None]:
    """The mixed load, from before this block until a moment after it."""
    stop = asyncio.Event()
    running = asyncio.create_task(traffic.run(stop))
    await asyncio.sleep(1.0)  # the load's own length, nothing is awaited by it
    try:
        yield
        await asyncio.sleep(1.0)
    finally:
        stop.set()
        await running


async def count(node: Node, ledger: Ledger, partners: PartnerServer) -> list[str]:
    """What is not as it was answered, once all is stored and told."""
    await wait_until_stored(node)
    await wait_until_told(node)
    conn = await connect(node.database_url)
    try:
        return await faults_in(conn, ledger, {one.query["id"] for one in partners.heard})
    finally:
        await conn.close()


async def delivered(node: Node) -> set[str]:
    """The conversions whose partners' answers are in the database."""
    rows = await node.fetch("SELECT conversion_id FROM postback_outbox WHERE state = 'delivered'")
    return {row[0].hex for row in rows}


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_restore_under_load_loses_and_doubles_nothing(
    make_node: Callable[..., Node], catalog: Path, partners: PartnerServer, tmp_path: Path, say: Say
) -> None:
    """Backup amid the load, more load, restore amid the load: every request is answered, and everything is there once.

    Partners hear twice only what was delivered after the backup began.
    """
    node = await make_node(catalog=catalog, **SETTINGS).start()
    ledger = Ledger()
    traffic = Traffic(node.port, ledger, SEED)
    async with loading(node, traffic):
        before = await delivered(node)
        await follow(recipe("clickedge backup"), node, tmp_path)
    sent = ledger.sent
    async with loading(node, traffic):
        await follow(recipe("clickedge restore"), node, tmp_path)
    assert await count(node, ledger, partners) == []
    heard = Counter(one.query["id"] for one in partners.heard)
    twice = {one for one, times in heard.items() if times > 1}
    say(
        f"{ledger.sent} requests ({ledger.unanswered} unanswered), {sent} before the restore; {len(heard)} told, {len(twice)} twice"
    )
    assert twice.isdisjoint(before)
    assert ledger.unanswered == 0
    assert await node.stop() == 0


async def lose_machine(node: Node, tmp_path: Path) -> Node:
    """The disk is gone but for the journals; a new machine restores the backup beside these."""
    lost = node.data_dir.rename(node.data_dir.with_name(f"{node.data_dir.name}-lost"))
    node.data_dir.mkdir(mode=0o711)
    shutil.copytree(lost / "journal", node.data_dir / "journal")
    await follow(recipe("clickedge restore"), node, tmp_path)
    assert (node.data_dir / "secret").read_bytes() == (lost / "secret").read_bytes()
    shutil.rmtree(lost)
    return node


async def lose_database(node: Node, tmp_path: Path) -> Node:
    """The cluster is broken; the base backup takes its place, beside the journals."""
    await follow(recipe("cluster.broken"), node, tmp_path)
    return node


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("taking", "losing"),
    [("clickedge backup", lose_machine), ("pg_basebackup --host", lose_database)],
    ids=["new_machine", "base_backup"],
)
async def test_a_killed_node_comes_back_from_a_backup_and_its_journals(
    make_node: Callable[..., Node],
    catalog: Path,
    partners: PartnerServer,
    tmp_path: Path,
    taking: str,
    losing: Callable[[Node, Path], Awaitable[Node]],
) -> None:
    """Backup amid the load, kill -9 of everything after it: all that was answered is there once, and new ids are new."""
    node = await make_node(catalog=catalog, **SETTINGS).start()
    ledger = Ledger()
    traffic = Traffic(node.port, ledger, SEED)
    async with loading(node, traffic):
        await follow(recipe(taking), node, tmp_path)
    family = node.family()
    await node.stop(signal.SIGKILL)
    await eventually(lambda: all_gone(family), 60)
    restored = await losing(node, tmp_path)
    await restored.start()
    async with loading(restored, traffic):
        pass
    assert await count(restored, ledger, partners) == []
    ids = [click_id for click_id in ledger.clicks.values() if click_id]
    assert len(ids) == len(set(ids)) > 0
    assert await restored.stop() == 0


async def all_gone(pids: list[int]) -> bool:
    """Whether none of these processes runs any more."""
    return not any(map(is_running, pids))
