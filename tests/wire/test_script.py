"""`GET /edge.js`: small, kept by browsers for minutes, asked for again cheaply."""

from pathlib import Path

import pytest

from edge.http.script import DNT_SCRIPT, SCRIPT, etag_of
from tests.wire.edge_state import CATALOG
from tests.wire.port import serving

pytestmark = pytest.mark.both_loops


@pytest.mark.parametrize("is_lane_on", [True, False])
async def test_the_script_is_cached_for_minutes_and_named_by_its_content(tmp_path: Path, is_lane_on: bool) -> None:
    """Any site may load it, with a query to renew it too; who has this version gets 304. Nothing is recorded."""
    async with serving(tmp_path, is_lane_on=is_lane_on) as port:
        reply = await port.get("/edge.js?v=2")
        assert (reply.status, reply.body) == (200, SCRIPT)
        assert reply.get("content-type") == "text/javascript; charset=utf-8"
        assert reply.get("cache-control") == "public, max-age=300"
        assert reply.get("access-control-allow-origin") == "*"
        assert reply.get("set-cookie") == ""
        again = await port.get("/edge.js", f'If-None-Match: W/"old", {reply.get("etag")}')
        assert (again.status, again.body, again.get("etag")) == (304, b"", etag_of(SCRIPT))
        assert (await port.get("/edge.js", 'If-None-Match: "old"')).status == 200
        assert (await port.get("/edge.js", method="HEAD")).get("content-length") == str(len(SCRIPT))
        refused = await port.post("/edge.js", b"")
        assert (refused.status, refused.get("allow")) == (405, "GET, HEAD")
        assert port.events() == []


async def test_the_script_asks_whether_an_offer_goes_with_cookies(tmp_path: Path) -> None:
    """Any page may ask, and keep the answer for minutes; of an offer that nobody knows nothing is kept."""
    catalog = CATALOG + '[[offers]]\nid = 90\nadvertiser_id = 1\nname = "Quiet"\nurl = "https://a.example/"\ncookies = false\n'
    async with serving(tmp_path, catalog=catalog) as port:
        for offer, body in (("17", b'{"cookies":true}'), ("90", b'{"cookies":false}'), ("99", b'{"cookies":false}')):
            reply = await port.get(f"/edge.js/{offer}")
            assert (reply.status, reply.body, reply.get("content-type")) == (200, body, "application/json")
            assert reply.get("access-control-allow-origin") == "*"
            assert reply.get("cache-control") == "public, max-age=300"
        for path in ("/edge.js/", "/edge.js/17/18", "/edge.js/%00", "/edge.js/-1"):
            assert (await port.get(path)).body == b'{"cookies":false}'
        assert (await port.post("/edge.js/17", b"")).status == 405
        assert port.events() == []


async def test_the_script_honours_do_not_track_where_the_network_does(tmp_path: Path) -> None:
    """EDGE_HONOUR_DNT: another script, with another name for caches; by default `doNotTrack` is not asked for."""
    assert b"doNotTrack" not in SCRIPT
    async with serving(tmp_path, honour_dnt=True) as port:
        reply = await port.get("/edge.js")
        assert b'navigator.globalPrivacyControl||navigator.doNotTrack=="1",' in reply.body
        assert reply.get("etag") == etag_of(DNT_SCRIPT) != etag_of(SCRIPT)
        assert (await port.get("/edge.js", f"If-None-Match: {etag_of(SCRIPT)}")).status == 200


def test_the_script_is_small_and_has_no_comment() -> None:
    """At most 4.5 KiB of ASCII, for pages that wait for it; the file beside it has the comments."""
    assert len(DNT_SCRIPT) <= 4608
    assert SCRIPT.isascii()
    assert not [line for line in SCRIPT.splitlines() if line.startswith((b"//", b" ")) or not line]
