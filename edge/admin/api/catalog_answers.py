"""What the catalog's operations have in common: whose eyes, what is answered, and what went wrong in HTTP's words."""

from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import msgspec

from edge.admin.api.operation import Call, Reply
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.catalog_documents import Json, etag_of_shown
from edge.admin.catalog_edit import Edited, EditRefused, ItemExists, ItemInUse, ItemMoved, NoSuchItem
from edge.admin.catalog_views import show_item
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Item
from edge.tracking.catalog_fields import MAX_ID

T = TypeVar("T")
Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]


class Preview(msgspec.Struct, frozen=True):
    """What a change would do: `diff` and `warnings` as lines; `revision`: the one in force, which stays."""

    diff: list[str]
    warnings: list[str]
    revision: int


class EditQuery(msgspec.Struct, frozen=True):
    """The query of what changes something."""

    dry_run: Annotated[bool, msgspec.Meta(description="Only tell what would change.")] = False


async def current(call: Call) -> Catalog:
    """The catalog in force."""
    async with call.backend.connection() as conn:
        return await call.backend.catalogs.current(conn)


def shown_to(call: Call, item: Item | None) -> Json:
    """The item as the caller sees it; Problem 404 if there is none for this one."""
    caller = call.caller
    shown = None if item is None else show_item(item, caller.scope, caller.advertiser_id, caller.aff_id)
    if shown is None:
        raise not_found("item")
    return shown


def etag_for(call: Call, etag: str, shown: Json) -> str:
    """The ETag that the caller is told: `etag` of the whole item is for those alone who may change it.

    It is made of what others do not see, a price or a token, which they could guess until it fits. Theirs is of what is `shown`.
    """
    return etag if call.caller.scope == "admin" else etag_of_shown(shown)


async def translated(change: Awaitable[T]) -> T:
    """The change's result; what is wrong with it as a Problem."""
    try:
        return await change
    except EditRefused as error:
        raise bad_fields(error.faults) from error
    except NoSuchItem as error:
        raise not_found("item") from error
    except ItemExists as error:
        raise Problem(409, str(error)) from error
    except ItemInUse as error:
        faults = [("", f"{user} names it") for user in error.users[:100]]
        raise Problem(409, "something else in the catalog names it: change that first", faults) from error
    except ItemMoved as error:
        detail = "somebody changed it since: `changes` says how" if error.changes else "no such version of it is known"
        raise Problem(412, detail, headers={"ETag": error.etag}, changes=error.changes) from error


def answer_of(edited: Edited, dry_run: bool, value: Any, etag: str, location: str = "") -> Any:
    """What a change answers: a preview, or the thing as it is now with its ETag; 201 where there is a `location`."""
    if dry_run:
        return Reply(Preview(edited.diff, edited.warnings, edited.revision))
    if value is None:
        return Reply(None, 204)
    headers = {"ETag": etag}
    return Reply(value, 201, {**headers, "Location": location}) if location else Reply(value, 200, headers)
