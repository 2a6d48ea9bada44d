"""API keys over the API: made, listed, renamed, revoked. A token is in one answer, the first."""

from typing import Annotated, Any

import msgspec

from edge.admin.api.operation import Call, Operation, Reply
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.keys import KeyOrder, KeyRefused, find_expiry_faults, find_name_faults, issue_key
from edge.tracking.catalog_fields import MAX_TEXT_CHARS
from storage.postgres.api_keys import ApiKey, Moment, change_key, load_key, load_keys, revoke_key
from storage.postgres.connection import Connection

MAX_KEY_ID = 2**31 - 1


class KeyPath(msgspec.Struct, frozen=True):
    """Which key."""

    key_id: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEY_ID)]


class FindKeys(msgspec.Struct, frozen=True):
    """All keys, revoked and expired ones too."""

    limit: Limit = 50
    cursor: Cursor = ""


class NewKey(ApiKey, frozen=True, kw_only=True):
    """A key with its token; a repeated request (Idempotency-Key) is answered without."""

    token: str = ""


class KeyPage(msgspec.Struct, frozen=True):
    """One page of keys."""

    data: list[ApiKey]
    next_cursor: str | None


class NewKeyBody(KeyOrder, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key is to be; `advertiser_id` and `aff_id` go with the scope of that name (`partner`: `aff_id`)."""


class KeyPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to change; `expires_at` null: it does not end."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS)] | msgspec.UnsetType = msgspec.UNSET
    expires_at: Moment | msgspec.UnsetType | None = msgspec.UNSET


async def find(call: Call) -> Page:
    """One page of the keys."""
    after = place_of(call.query.cursor, Annotated[int, msgspec.Meta(ge=0, le=MAX_KEY_ID)]) or 0
    async with call.backend.connection() as conn:
        keys = await load_keys(conn, after=after, limit=call.query.limit + 1)
    data = keys[: call.query.limit]
    return Page(data, cursor_after(data[-1].key_id) if len(keys) > len(data) else None)


async def read(call: Call) -> ApiKey:
    """One key."""
    async with call.backend.connection() as conn:
        return await _key(conn, call)


async def create(call: Call) -> Reply:
    """Make a key."""
    order = KeyOrder(**msgspec.structs.asdict(call.body))
    async with call.backend.connection() as conn:
        try:
            issued = await issue_key(conn, order, call.caller.actor)
        except KeyRefused as error:
            raise bad_fields((f"/{field}", what) for field, what in error.faults) from error
    made = NewKey(**msgspec.structs.asdict(issued.key), token=issued.token)
    return Reply(made, 201, {"Location": f"/api/v1/keys/{made.key_id}"})


async def change(call: Call) -> ApiKey:
    """Rename a key, or let it end at another time."""
    async with call.backend.connection() as conn:
        key = await _key(conn, call)
        name = key.name if call.body.name is msgspec.UNSET else call.body.name
        expires_at = key.expires_at if call.body.expires_at is msgspec.UNSET else call.body.expires_at
        faults = [*find_name_faults(name), *(find_expiry_faults(expires_at) if expires_at != key.expires_at else [])]
        if faults:
            raise bad_fields((f"/{field}", what) for field, what in faults)
        changed = await change_key(conn, key.key_id, name=name, expires_at=expires_at)
    call.backend.keys.forget(key.key_id)
    if changed is None:
        raise not_found("key")
    return changed


async def revoke(call: Call) -> None:
    """End a key."""
    if call.path.key_id == call.caller.key_id:
        raise Problem(409, "a key cannot revoke itself: use another one, or `clickedge key revoke`")
    async with call.backend.connection() as conn:
        revoked = await revoke_key(conn, call.path.key_id)
    if revoked is None:
        raise not_found("key")
    call.backend.keys.forget(revoked.key_id)


async def _key(conn: Connection, call: Call) -> ApiKey:
    key = await load_key(conn, call.path.key_id)
    if key is None:
        raise not_found("key")
    return key


_ONE: dict[str, Any] = {"path_type": KeyPath}
_EXAMPLE = {"name": "Deal Blog's dashboard", "scope": "partner", "aff_id": 2, "expires_at": "2027-12-31T00:00:00Z"}
OPERATIONS = (
    Operation("GET", "/keys", "list_keys", "List the keys", find, query_type=FindKeys, answer_type=KeyPage),
    Operation(
        "POST", "/keys", "create_key", "Make a key; its token is told once", create,
        body_type=NewKeyBody, answer_type=NewKey, status=201, secrets=("token",), example=_EXAMPLE,
    ),
    Operation("GET", "/keys/{key_id}", "read_key", "Read a key", read, answer_type=ApiKey, **_ONE),
    Operation(
        "PATCH", "/keys/{key_id}", "change_key", "Rename a key, or let it end at another time", change,
        body_type=KeyPatch, answer_type=ApiKey, example={"name": "Old dashboard"}, **_ONE,
    ),
    Operation(
        "DELETE", "/keys/{key_id}", "revoke_key", "Revoke a key for good", revoke, status=204, statuses=(409,), **_ONE
    ),
)  # fmt: skip
