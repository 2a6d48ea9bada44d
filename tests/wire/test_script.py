"""`GET /edge.js`: small, kept by browsers for minutes, asked for again cheaply."""

from pathlib import Path

import pytest

from edge.http.script import ETAG, SCRIPT
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
        assert (again.status, again.body, again.get("etag")) == (304, b"", ETAG)
        assert (await port.get("/edge.js", 'If-None-Match: "old"')).status == 200
        assert (await port.get("/edge.js", method="HEAD")).get("content-length") == str(len(SCRIPT))
        refused = await port.post("/edge.js", b"")
        assert (refused.status, refused.get("allow")) == (405, "GET, HEAD")
        assert port.events() == []


def test_the_script_is_small_and_has_no_comment() -> None:
    """At most 4 KiB of ASCII, for pages that wait for it; the file beside it has the comments."""
    assert len(SCRIPT) <= 4096
    assert SCRIPT.isascii()
    assert not [line for line in SCRIPT.splitlines() if line.startswith((b"//", b" ")) or not line]
