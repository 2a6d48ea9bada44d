"""The catalog on disk: written whole, refused when damaged, followed. S1-S3 are `storage.snapshot_file`'s."""

import asyncio
import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from edge.catalog_follower import CatalogFollower, read_snapshot
from edge.tracking.catalog import Catalog, CatalogBuilder, Stored
from storage.snapshot_file import SnapshotDamaged, open_snapshot, read_revision, write_snapshot
from tests.unit.test_published_state import without_descriptors

ITEMS = [("partners", str(number), b'{"id":%d,"name":"P"}' % number) for number in range(1, 601)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the snapshot is."""
    return tmp_path / "catalog.snapshot"


def follow(path: Path, taken: list[int], refused: list[Exception]) -> CatalogFollower:
    """A follower that notes what it is told."""
    return CatalogFollower(path, lambda catalog: taken.append(catalog.revision), refused.append)


async def test_what_is_written_is_read(path: Path) -> None:
    """Revision and items come back, several chunks of them; S3: nobody else may read the file."""
    write_snapshot(path, 7, ITEMS)
    catalog = await read_snapshot(path, Catalog.empty())
    partner = catalog.partner(600)
    assert partner is not None
    assert (catalog.revision, len(catalog.bodies("partners")), partner.id) == (7, 600, 600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_revision(path) == 7
    assert os.listdir(path.parent) == [path.name]


async def test_an_empty_catalog_is_a_snapshot_too(path: Path) -> None:
    """Nothing applied yet is a state a worker can start from."""
    write_snapshot(path, 0, [])
    assert (await read_snapshot(path, Catalog.empty())).revision == 0


def test_a_cut_at_any_byte_is_noticed(path: Path) -> None:
    """S2: whatever is missing at the end, the file is refused as a whole."""
    write_snapshot(path, 7, ITEMS[:3])
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SnapshotDamaged, match="delete it"):
            list(open_snapshot(path).chunks())
        assert read_revision(path) is None


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    """S2: whichever bit turns, the file is refused as a whole."""
    write_snapshot(path, 7, ITEMS[:2])
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(SnapshotDamaged):
            list(open_snapshot(path).chunks())


def test_a_failed_write_leaves_the_former_snapshot(path: Path) -> None:
    """S1: an error in the middle changes nothing and leaves nothing behind."""
    write_snapshot(path, 7, ITEMS)
    with pytest.raises(TypeError):
        write_snapshot(path, 8, [*ITEMS, ("partners", "9", object())])  # type: ignore[list-item]
    assert read_revision(path) == 7
    assert os.listdir(path.parent) == [path.name]


async def test_a_follower_waits_for_the_first_snapshot(path: Path) -> None:
    """Without a file there is no catalog; with one there is, and its revision."""
    taken: list[int] = []
    refused: list[Exception] = []
    follower = follow(path, taken, refused)
    assert not await follower.load()
    write_snapshot(path, 3, ITEMS)
    assert await follower.load()
    assert await follower.load()
    assert (follower.catalog.revision, taken, refused) == (3, [], [])


async def test_a_damaged_file_changes_nothing_and_is_told_once(path: Path) -> None:
    """The last good catalog stays, the next good file is taken."""
    write_snapshot(path, 3, ITEMS)
    taken: list[int] = []
    refused: list[Exception] = []
    follower = follow(path, taken, refused)
    await follower.load()
    path.write_bytes(path.read_bytes()[:-1])
    assert await follower.load()
    assert await follower.load()
    assert (follower.catalog.revision, len(refused)) == (3, 1)
    write_snapshot(path, 4, ITEMS)
    assert await follower.load()
    assert (follower.catalog.revision, taken) == (4, [])


async def test_a_catalog_that_could_not_be_read_for_a_moment_is_taken_later(path: Path) -> None:
    """Without a descriptor for it the former stays, which is told once; the file needs no change to be tried again."""
    write_snapshot(path, 3, ITEMS)
    refused: list[Exception] = []
    follower = follow(path, [], refused)
    await follower.load()
    write_snapshot(path, 4, ITEMS[:1])
    with without_descriptors():
        assert await follower.load()
        assert await follower.load()
    assert (follower.catalog.revision, len(refused)) == (3, 1)
    assert await follower.load()
    assert (follower.catalog.revision, len(refused)) == (4, 1)


async def test_a_deleted_file_changes_nothing(path: Path) -> None:
    """A worker that has a catalog goes on with it."""
    write_snapshot(path, 3, ITEMS)
    refused: list[Exception] = []
    follower = follow(path, [], refused)
    await follower.load()
    path.unlink()
    assert await follower.load()
    assert (follower.catalog.revision, refused) == (3, [])


async def test_a_running_follower_hands_over_each_new_catalog(path: Path) -> None:
    """A new file is in force within its check interval and told to the owner."""
    write_snapshot(path, 3, ITEMS)
    arrived = asyncio.Event()
    follower = CatalogFollower(path, lambda _: arrived.set(), lambda error: None)
    await follower.load()
    kept = follower.catalog.partner(1)
    task = asyncio.create_task(follower.run())
    write_snapshot(path, 4, ITEMS[:1])
    await asyncio.wait_for(arrived.wait(), 20)
    task.cancel()
    assert follower.catalog.revision == 4
    assert follower.catalog.partner(1) is kept
    assert follower.catalog.partner(2) is None


async def test_a_large_catalog_lets_the_loop_turn_while_it_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 offers and 20,000 partners: never more than 250 of them between two turns of the loop, when it loads and when it is the same again."""
    offer = b'{"id":%d,"advertiser_id":1,"name":"Offer","url":"https://shop.example.com/?c={transaction_id}"' + (
        b',"pad":"' + b"x" * 700 + b'"}'
    )
    items = [("offers", str(number), offer % number) for number in range(1, 10_001)]
    items += [("partners", str(number), b'{"id":%d,"name":"P"}' % number) for number in range(1, 20_001)]
    write_snapshot(path, 1, items)
    added_at = Counter[int]()
    turn, add = 0, CatalogBuilder.add

    def note(builder: CatalogBuilder, some: Iterable[Stored]) -> None:
        portion = list(some)
        added_at[turn] += len(portion)
        add(builder, portion)

    async def watch() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    monkeypatch.setattr(CatalogBuilder, "add", note)
    watcher = asyncio.create_task(watch())
    catalog = await read_snapshot(path, Catalog.empty())
    again = await read_snapshot(path, catalog)
    watcher.cancel()
    assert catalog.offer(10_000) is not None
    assert len(again.bodies("partners")) == 20_000
    assert added_at.total() == 2 * 30_000
    assert max(added_at.values()) <= 250
