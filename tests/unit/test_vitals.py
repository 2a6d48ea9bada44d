"""edge/vitals.py: what a process tells of itself."""

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge import child, vitals
from edge.counters import Counters, cell
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.vitals import Vitals, list_descriptors
from tests.node import eventually

pytestmark = pytest.mark.both_loops

MEMORY = cell("edge_process_resident_memory_bytes")
OPEN, MOST = cell("edge_process_open_fds"), cell("edge_process_max_fds")
CPU = cell("edge_process_cpu_seconds_total")
FULL_COLLECTIONS = cell("edge_process_gc_collections_total", "2")


@contextmanager
def open_descriptors(count: int) -> Iterator[None]:
    """So many more of them."""
    descriptors = [os.dup(0) for _ in range(count)]
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_descriptors_are_counted_as_they_come_and_go() -> None:
    """Those that are open at the look, beside how many there may be."""
    counters = Counters.private()
    with open_descriptors(50):
        looking = Vitals(counters)
        many = counters.cells[OPEN]
    looking.look()
    assert many - counters.cells[OPEN] == 50
    assert counters.cells[OPEN] < counters.cells[MOST]
    looking.close()


def test_listing_descriptors_says_what_the_kernel_says() -> None:
    """Where the kernel does not count them, the list does, without the descriptor that reads it."""
    counted = os.stat("/proc/self/fd").st_size
    if counted:
        assert list_descriptors() == counted
    with open_descriptors(7):
        more = list_descriptors()
    assert more - list_descriptors() == 7


async def test_an_older_kernel_s_descriptors_are_listed_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.2 their number is not told."""
    monkeypatch.setattr(vitals, "LISTING_INTERVAL_S", 0.01)
    counters = Counters.private()
    looking = Vitals(counters)
    looking._is_counted = False
    counters.cells[OPEN] = 0
    watching = asyncio.create_task(looking.watch())

    async def is_listed() -> bool:
        return bool(counters.cells[OPEN])

    await eventually(is_listed, 10)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    looking.close()


def test_memory_is_what_is_resident() -> None:
    """Bytes that were written to count, and not any more once they are given back."""
    counters = Counters.private()
    looking = Vitals(counters)
    before = counters.cells[MEMORY]
    block = bytearray(os.urandom(1)) * (64 << 20)
    looking.look()
    assert counters.cells[MEMORY] - before > 60 << 20
    del block
    looking.close()
    assert counters.cells[MEMORY] - before < 30 << 20


def test_processor_time_and_collections_go_on_from_the_slot_s_earlier_process(request: pytest.FixtureRequest) -> None:
    """A successor's are added to what its predecessor used: neither counter ever falls, nor is anything counted twice."""
    counters = Counters.private()
    gc.disable()  # none but those asked for here
    request.addfinalizer(gc.enable)
    first = Vitals(counters)
    gc.collect()
    first.close()
    used_ns, collections = counters.cells[CPU], counters.cells[FULL_COLLECTIONS]
    assert used_ns <= time.process_time_ns()
    second = Vitals(counters)
    gc.collect()
    second.look()
    own_ns = counters.cells[CPU] - used_ns
    assert used_ns < own_ns <= time.process_time_ns()
    assert counters.cells[FULL_COLLECTIONS] - collections == collections + 1
    second.look()
    assert counters.cells[FULL_COLLECTIONS] - collections == collections + 1
    second.close()


async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being asked, until it is cancelled."""
    monkeypatch.setattr(vitals, "INTERVAL_S", 0.01)
    counters = Counters.private()
    looking = Vitals(counters)
    watching = asyncio.create_task(looking.watch())
    known = counters.cells[OPEN]
    with open_descriptors(20):

        async def has_seen_them() -> bool:
            return counters.cells[OPEN] >= known + 20

        await eventually(has_seen_them, 10)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    looking.close()


@pytest.mark.parametrize(("role", "is_counted"), [("admin", True), ("migration", False)])
async def test_who_only_migrates_is_not_counted_as_another(role: str, is_counted: bool) -> None:
    """It has the admin process's cells while that one lives: its memory and processor time are not that one's."""

    async def work(orders: ChildOrders, counters: Counters) -> None:
        await asyncio.sleep(0)

    counters = Counters.private()
    await child._run(work, ChildOrders(role, 0, Settings(data_dir=""), -1, []), counters)
    assert any(counters.cells) is is_counted
