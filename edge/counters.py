"""What the processes count: plain 64-bit cells in memory that the supervisor owns, one block per process slot.

A process adds to its slot's cells in place, so a count outlives `kill -9`, and the admin process sums the slots for
`/metrics`. A slot's memory outlives the process in it: totals stay monotonic over a restart. The layout is fixed
by the order of `metric_families.METRICS`; all processes of one `serve` run the same code.
"""

import mmap
import os
from bisect import bisect_left

from edge.metric_families import METRICS


def _lay_out() -> tuple[dict[tuple[str, ...], int], int]:
    places: dict[tuple[str, ...], int] = {}
    position = 0
    for metric in METRICS:
        for values in metric.combinations():
            places[(metric.name, *values)] = position
            position += metric.width
    return places, position


_PLACES, CELL_COUNT = _lay_out()
BLOCK_BYTES = -(-CELL_COUNT * 8 // mmap.PAGESIZE) * mmap.PAGESIZE


def cell(name: str, *label_values: str) -> int:
    """The index of a counter or gauge, or of a histogram's first bucket. Resolve it once, at import."""
    return _PLACES[(name, *label_values)]


class Counters:
    """One slot's cells. `cells[i] += n` is the whole interface of the hot path."""

    def __init__(self, block: mmap.mmap | bytearray) -> None:
        self.cells = memoryview(block).cast("Q")

    @classmethod
    def private(cls) -> "Counters":
        """Cells of nobody else's, for a process without a supervisor (tests, tools)."""
        return cls(bytearray(BLOCK_BYTES))

    @classmethod
    def of_fd(cls, fd: int) -> "Counters":
        """The slot's cells; room is made where a supervisor of an earlier release knew fewer of them."""
        if os.fstat(fd).st_size < BLOCK_BYTES:
            os.ftruncate(fd, BLOCK_BYTES)
        return cls(mmap.mmap(fd, BLOCK_BYTES))

    def observe(self, name_cell: int, buckets_us: tuple[int, ...], duration_us: float, count: int = 1) -> None:
        """Add a duration, so many times, to the histogram whose first cell is `name_cell`."""
        cells = self.cells
        cells[name_cell + bisect_left(buckets_us, duration_us)] += count
        cells[name_cell + len(buckets_us) + 1] += round(duration_us * count)


def new_block() -> int:
    """A file descriptor of zeroed shared memory for one slot; it lives as long as somebody holds it."""
    fd = os.memfd_create("clickedge-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, BLOCK_BYTES)
    return fd
