"""TUNE's replies to postbacks, byte for byte; an id is echoed only if it cannot be anything but an id."""

import re

import orjson

from edge.tracking.request import Answer

_ECHOABLE = re.compile(r"[A-Za-z0-9-]{1,64}\Z", re.ASCII)
_JSON = "application/json"

_SUCCESS = Answer(200, b"success=true;")
_SUCCESS_JSON = Answer(200, b'{"success":true}', _JSON)
SCRIPT = Answer(200, b"/* success=true; */\n", "text/javascript; charset=utf-8")


class Refusal(Answer, frozen=True, gc=False, kw_only=True):
    """A refusal in TUNE's words; `problem` is what a dialect with words of its own puts into them."""

    problem: str


def success(*, as_json: bool) -> Answer:
    """Durably recorded; whether it is approved is decided later."""
    return _SUCCESS_JSON if as_json else _SUCCESS


def failure(problem: str, sent: str, *, as_json: bool) -> Answer:
    """`problem` with the id that was sent, if it is well formed: `Invalid Trans. ID #1027c8.`"""
    message = f"{problem} #{sent if _ECHOABLE.match(sent) else ''}."
    if as_json:
        return Refusal(200, orjson.dumps({"success": False, "err_msg": message}), _JSON, problem=message)
    return Refusal(200, f"success=false; err_msg={message};".encode(), problem=message)
