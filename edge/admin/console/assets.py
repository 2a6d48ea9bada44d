"""What browsers keep: style sheets and scripts under names that carry a hash of their content."""

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

DIRECTORY = Path(__file__).parent / "static"
PREFIX = "/static/"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"
_HASH_CHARS = 10


class Asset(NamedTuple):
    """A file, ready to be sent."""

    content_type: str
    plain: bytes
    packed: bytes


class Assets:
    """All files of the folder, read once."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._served: dict[str, Asset] = {}
        self._names: dict[str, str] = {}
        for path in sorted(directory.rglob("*")):
            if path.suffix in _TYPES:
                self._add(path.name, path.read_bytes(), _TYPES[path.suffix])

    def _add(self, name: str, data: bytes, content_type: str) -> None:
        stem, _, suffix = name.rpartition(".")
        hashed = f"{stem}.{hashlib.sha256(data).hexdigest()[:_HASH_CHARS]}.{suffix}"
        self._names[name] = PREFIX + hashed
        self._served[hashed] = Asset(content_type, data, gzip.compress(data, 9, mtime=0))

    def url(self, name: str) -> str:
        """Where a file of that name is served; KeyError if there is none."""
        return self._names[name]

    async def answer(self, request: web.Request) -> web.Response:
        """A file under its hashed name: it never changes, so it is kept for ever."""
        asset = self._served.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound(text="no such file\n")
        headers: Mapping[str, str] = {"Cache-Control": _FOR_EVER, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers = {**headers, "Content-Encoding": "gzip"}
            return web.Response(body=asset.packed, content_type=asset.content_type, headers=headers)
        return web.Response(body=asset.plain, content_type=asset.content_type, headers=headers)
