"""Errors as RFC 9457 says them: `application/problem+json`, with the fields at fault."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

MEDIA = "application/problem+json"


class FieldFault(msgspec.Struct, frozen=True):
    """`field`: a parameter's name, or the JSON pointer of a body's member."""

    field: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is sent."""

    title: str
    status: int
    detail: str = ""
    type: str = "about:blank"
    errors: list[FieldFault] = []
    changes: list[str] = []
    request_id: str = ""


class Problem(Exception):
    """Raised by operations: this request ends with this status and text."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        changes: Iterable[str] = (),
    ) -> None:
        """`changes`: what somebody else did meanwhile, as lines."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = [FieldFault(*error) for error in errors]
        self.headers = headers or {}
        self.changes = list(changes)

    def response(self, request_id: str = "") -> web.Response:
        """The answer."""
        title = HTTPStatus(self.status).phrase
        body = ProblemBody(
            title, self.status, self.detail, errors=self.errors, changes=self.changes, request_id=request_id
        )
        return web.Response(
            status=self.status, body=msgspec.json.encode(body), content_type=MEDIA, headers=dict(self.headers)
        )


def bad_fields(errors: Iterable[tuple[str, str]]) -> Problem:
    """A request whose fields say what cannot be."""
    return Problem(422, "some fields are not allowed", errors)


def not_found(what: str) -> Problem:
    """There is none, or none for this caller: which of both is not said."""
    return Problem(404, f"there is no such {what}")
