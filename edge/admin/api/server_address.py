"""Where a request came from."""

from aiohttp import web

from edge.admin.backend import Backend
from edge.http.client_address import client_address


def asked_from(backend: Backend, request: web.Request) -> str:
    """Who asks, as far as trusted proxies say."""
    # A proxy may add a line of its own below the one that the client made up.
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
    return client_address(request.remote or "", forwarded, backend.settings.trusted_networks)
