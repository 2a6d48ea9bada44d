"""`replicated` seen by a client: what waits for the stream, what does not, and that answers keep their order."""

from pathlib import Path

import pytest

from storage.journal.commit import DISK, REPLICATED
from storage.journal.reader import JournalReader
from storage.journal.segments import Position, list_journal_paths
from tests.node import eventually
from tests.wire.port import serving

SILENCE_S = 0.1


@pytest.fixture(autouse=True)
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledgement counts as late because the machine is busy."""
    monkeypatch.setattr("storage.journal.replicas.PATIENCE_S", 20.0)


def end_of(data_dir: Path) -> Position:
    """How far a shipper can read the one journal that there is."""
    [path] = list_journal_paths(data_dir / "journal")
    reader = JournalReader(path)
    try:
        return reader.read(1_000_000, 2**30).end
    finally:
        reader.close()


@pytest.mark.parametrize("is_lane_on", [True, False])
async def test_a_conversion_is_answered_when_the_stream_has_it_and_a_click_at_once(
    tmp_path: Path, is_lane_on: bool
) -> None:
    """The lane and aiohttp alike: the client hears nothing before the acknowledgement, other clients do not wait."""
    async with serving(tmp_path, durable_conversions=REPLICATED, is_lane_on=is_lane_on) as port:
        click_id = await port.click()
        port.journal.replicas.go_up()
        async with port.wire() as wire:
            wire.get(f"/aff_lsr?transaction_id={click_id}")
            assert await wire.is_silent(SILENCE_S)
            assert (await port.get("/aff_c?offer_id=17&aff_id=2")).status == 302
            port.journal.replicas.reach(end_of(tmp_path))
            assert (await wire.reply()).body == b"success=true;"


async def test_answers_of_one_connection_keep_their_order(tmp_path: Path) -> None:
    """A click that was journalled at once leaves after the conversion before it; the next conversion waits for its own."""
    async with serving(tmp_path, durable_conversions=REPLICATED) as port:
        click_id = await port.click()
        port.journal.replicas.go_up()
        async with port.wire() as wire:
            wire.get(f"/aff_lsr?transaction_id={click_id}&adv_sub=1")
            wire.get("/aff_c?offer_id=17&aff_id=2")

            async def are_journalled() -> bool:
                return len(port.events()) == 3

            await eventually(are_journalled, 20)
            first = end_of(tmp_path)
            wire.get(f"/aff_lsr?transaction_id={click_id}&adv_sub=2")
            assert await wire.is_silent(SILENCE_S)
            port.journal.replicas.reach(first)
            assert [(await wire.reply()).status for _ in range(2)] == [200, 302]
            assert await wire.is_silent(SILENCE_S)
            port.journal.replicas.reach(end_of(tmp_path))
            assert (await wire.reply()).body == b"success=true;"


async def test_clicks_may_wait_for_the_stream_while_conversions_wait_for_the_disk(tmp_path: Path) -> None:
    """Each of the two settings is its own; a click that fell back before must be acknowledged before others wait."""
    async with serving(tmp_path, durable_clicks=REPLICATED, durable_conversions=DISK) as port:
        click_id = await port.click()
        port.journal.replicas.reach(end_of(tmp_path))
        port.journal.replicas.go_up()
        async with port.wire() as wire:
            wire.get("/aff_c?offer_id=17&aff_id=2")
            assert await wire.is_silent(SILENCE_S)
            assert (await port.get(f"/aff_lsr?transaction_id={click_id}")).body == b"success=true;"
            port.journal.replicas.reach(end_of(tmp_path))
            assert (await wire.reply()).status == 302
