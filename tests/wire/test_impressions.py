"""Impressions through the public port: the same 43 bytes for everybody, and an event."""

from pathlib import Path

import pytest

from edge.tracking.request import PIXEL_GIF
from storage.journal.events import Impression
from tests.wire.port import serving, session_of

pytestmark = pytest.mark.both_loops


@pytest.mark.parametrize(
    ("query", "offer_id", "outcome", "reason"),
    [
        ("offer_id=17&aff_id=2&file_id=5&source=s", 17, "recorded", ""),
        ("offer_id=17&aff_id=3", 17, "recorded", "partner_blocked"),
        ("offer_id=24&aff_id=2", 24, "recorded", "offer_paused"),
        ("offer_id=99&aff_id=2", 99, "rejected", "unknown_offer"),
        ("", 0, "rejected", "unknown_offer"),
    ],
)
async def test_an_impression_is_a_gif_that_nobody_keeps(
    tmp_path: Path, query: str, offer_id: int, outcome: str, reason: str
) -> None:
    """No page shows a broken image, whatever is wrong; the event says what was."""
    async with serving(tmp_path) as port:
        reply = await port.get(f"/aff_i?{query}", "User-Agent: Mozilla/5.0")
        assert (reply.status, reply.body) == (200, PIXEL_GIF)
        assert len(reply.body) == 43
        assert (reply.get("content-type"), reply.get("cache-control")) == ("image/gif", "no-store")
        assert reply.get("set-cookie").startswith("cv_17=") == (outcome == "recorded" and not reason)
        event = port.last(Impression)
        session = session_of(event)
        assert (event.outcome, event.reason, session.offer_id) == (outcome, reason, offer_id)
        assert port.state.ids.parse(session.click_id.hex()) == session.click_id
        assert port.count("edge_requests_total", "impression", outcome) == 1


async def test_an_impression_takes_get_only(tmp_path: Path) -> None:
    """Anything else is told so, and not recorded."""
    async with serving(tmp_path) as port:
        reply = await port.post("/aff_i", b"offer_id=17")
        assert (reply.status, reply.get("allow"), port.events()) == (405, "GET", [])
