"""One journal, record or waiting conversion that is at fault costs itself only: the others are stored, and none is lost."""

import pytest

from tests.postgres.drains import Bench, until


@pytest.fixture
def bench(embedded_bench: Bench) -> Bench:
    """One server is enough: nothing here depends on its version."""
    return embedded_bench


async def test_a_journal_that_cannot_be_read_does_not_keep_the_drain_from_the_others(bench: Bench) -> None:
    """The disk fails under the oldest one: it is tried again and again, and nothing of it is passed over."""
    unreadable, other = bench.scribe(worker=0), bench.scribe(worker=1)
    first = unreadable.click()
    segment = unreadable.writer.directory / "00000001.log"
    segment.rename(bench.data_dir / "aside")
    segment.mkdir()
    async with bench.station().running():
        second = other.click()
        await until(lambda: _holds(bench, second))
        assert await bench.ids() == [second]
        segment.rmdir()
        (bench.data_dir / "aside").rename(segment)
        await until(lambda: _holds(bench, first))
    assert await bench.value("SELECT count(*) FROM quarantine") == 0


async def _holds(bench: Bench, click_id: bytes) -> bool:
    return click_id in await bench.ids()
