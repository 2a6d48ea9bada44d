"""The catalog replaced under load."""

import asyncio
import sys
from pathlib import Path

from benchmarks.scraping import Page, read_page
from benchmarks.soak.catalog import catalog_text
from benchmarks.soak.node import SoakFailed, eventually
from benchmarks.soak.scene import Scene

EDITIONS = 4
TAKEN_S = 30.0
COMMAND = Path(sys.executable).with_name("clickedge")


async def reload(scene: Scene) -> str:
    """Every offer is changed each time; every worker must take the last revision."""
    before = _revisions(await asyncio.to_thread(read_page, scene.node))
    for _ in range(EDITIONS):
        await _apply(scene)
        await asyncio.sleep(scene.hold_s / (2 * EDITIONS))
    wanted = max(before) + EDITIONS

    async def is_taken() -> bool:
        return min(_revisions(await asyncio.to_thread(read_page, scene.node))) >= wanted

    await eventually(is_taken, TAKEN_S, f"not every worker has revision {wanted:.0f}")
    return f"revision {max(before):.0f} became {wanted:.0f} in both workers"


async def _apply(scene: Scene) -> None:
    scene.edition += 1
    path = scene.directory / "edition.toml"
    path.write_text(catalog_text([one.origin for one in scene.partners], scene.edition), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "apply", "--database", scene.node.database_url, str(path),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode:
        raise SoakFailed(f"clickedge apply ended with code {process.returncode}: {said.decode()[-500:]}")


def _revisions(page: Page) -> list[float]:
    return [one for name, one in page.items() if name.startswith("edge_catalog_revision{") and 'role="worker"' in name]
