"""Visitors who object to being tracked: by Global Privacy Control, or Do Not Track where that is honoured.

Their click goes where it would, and is flagged `opted_out`. No cookie is set for them, and none of before is read.
"""

from msgspec.structs import replace

from edge.tracking.headers import DNT, GPC, Headers
from edge.tracking.request import Request
from edge.tracking.state import EdgeState


def may_remember(state: EdgeState, headers: Headers) -> bool:
    """Whether cookies may be set and read."""
    objects = headers.opts_out
    return not objects or not ((objects & GPC and state.honour_gpc) or (objects & DNT and state.honour_dnt))


def forget_cookie(state: EdgeState, request: Request) -> Request:
    """The request, without its cookie if its visitor objects."""
    headers = request.headers
    if not headers.opts_out or not headers.cookie or may_remember(state, headers):
        return request
    return replace(request, headers=replace(headers, cookie=""))
