"""Issuing API keys: what a request or a command asks for, checked, and the token that is told once."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec

from edge.errors import UserError
from edge.tracking.catalog_fields import MAX_ID, MAX_TEXT_CHARS
from edge.tracking.parameters import clean
from storage.postgres.api_keys import ApiKey, Connection, Moment, Scope, create_key, new_token
from storage.postgres.catalog import holds_item

LONGEST = timedelta(days=3650)


class KeyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key is to be."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
    scope: Scope
    advertiser_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)] = 0
    aff_id: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)] = 0
    expires_at: Moment | None = None


class KeyRefused(UserError):
    """A key that cannot be made. `faults`: (field, what is wrong with it)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        """`faults`: at least one."""
        self.faults = faults
        super().__init__("\n".join(f"{field}: {problem}" for field, problem in faults))


class IssuedKey(NamedTuple):
    """A new key and its token, which is stored nowhere."""

    key: ApiKey
    token: str


async def issue_key(conn: Connection, order: KeyOrder, created_by: str) -> IssuedKey:
    """Make the key that was ordered; KeyRefused names every fault of the order."""
    faults = [*find_name_faults(order.name), *find_expiry_faults(order.expires_at), *_find_owner_faults(order)]
    for field, kind, item_id in (
        ("advertiser_id", "advertisers", order.advertiser_id),
        ("aff_id", "partners", order.aff_id),
    ):
        is_asked = item_id > 0 and not any(name == field for name, _ in faults)
        if is_asked and not await holds_item(conn, kind, str(item_id)):
            faults.append((field, f"there is no {kind}[{item_id}]"))
    if faults:
        raise KeyRefused(faults)
    token = new_token()
    key = await create_key(conn, token, **msgspec.structs.asdict(order), created_by=created_by)
    return IssuedKey(key, token)


def find_name_faults(name: str) -> list[tuple[str, str]]:
    """What is wrong with a key's name."""
    if clean(name) == name and len(name.strip()) > 0 and len(name) <= MAX_TEXT_CHARS:
        return []
    return [("name", f"allowed: 1 to {MAX_TEXT_CHARS} characters, none of them a control character")]


def find_expiry_faults(expires_at: datetime | None) -> list[tuple[str, str]]:
    """What is wrong with the moment at which a key ends."""
    if expires_at is None:
        return []
    if expires_at.tzinfo is None:
        return [("expires_at", "needs an offset, such as 2027-01-31T00:00:00Z")]
    now = datetime.now(UTC)
    if not now < expires_at < now + LONGEST:
        return [("expires_at", f"allowed: a moment in the next {LONGEST.days} days")]
    return []


def _find_owner_faults(order: KeyOrder) -> list[tuple[str, str]]:
    faults = []
    for field, scope, value in (
        ("advertiser_id", "advertiser", order.advertiser_id),
        ("aff_id", "partner", order.aff_id),
    ):
        if order.scope == scope and value <= 0:
            faults.append((field, f"is needed: a key of the scope {scope} sees one {scope}'s figures"))
        elif order.scope != scope and value != 0:
            faults.append((field, f"belongs to the scope {scope} only"))
        elif value > MAX_ID:
            faults.append((field, f"allowed: an id, up to {MAX_ID}"))
    return faults
