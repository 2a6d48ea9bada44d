"""The fields of the edit forms, and the way from an item to a form and from a form to a document.

A form has the common fields; the text (TOML, as a catalog file would say it) has all of them. Both end as text, which is
what is reviewed and stored. A stored secret is in neither: what is not given stays as it is.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import tomli_w

from edge.admin.catalog_documents import SET, to_shown, with_secrets_of
from edge.tracking.catalog_document import TABLES, Offer, Part

Kind = Literal["offers", "partners", "advertisers"]
Look = Literal["text", "wide", "number", "choice", "secret", "flag", "lines", "advertiser"]
SINGULAR: dict[Kind, str] = {"offers": "offer", "partners": "partner", "advertisers": "advertiser"}
MAX_TEXT_BYTES = 512 * 1024
Json = dict[str, Any]


class Field(NamedTuple):
    """One field of a form. `hint`: what to write, in words."""

    name: str
    label: str
    look: Look = "text"
    hint: str = ""


class Section(NamedTuple):
    """Fields that belong together."""

    title: str
    fields: Sequence[Field]


SECTIONS: dict[Kind, Sequence[Section]] = {
    "offers": (
        Section(
            "Offer",
            (
                Field("name", "Name"),
                Field("advertiser_id", "Advertiser", "advertiser"),
                Field("status", "Status", "choice"),
                Field("url", "URL", "wide", "with macros such as {transaction_id}, {aff_id}, {aff_sub}"),
                Field("preview_url", "Preview URL", "wide"),
                Field("redirect_offer_id", "Stand-in offer", "number", "takes the clicks while this one does not; 0: none"),
                Field("ref", "Reference", hint="your own id of it"),
            ),
        ),
        Section(
            "Money",
            (
                Field("payout_type", "Payout type", "choice"),
                Field("payout", "Payout", hint="what the partner earns"),
                Field("payout_percent", "Payout %", hint="of the conversion's amount"),
                Field("revenue_type", "Revenue type", "choice"),
                Field("revenue", "Revenue", hint="what the advertiser pays"),
                Field("revenue_percent", "Revenue %", hint="of the conversion's amount"),
                Field("currency", "Currency", hint="three letters"),
            ),
        ),
        Section(
            "Conversions",
            (
                Field("approval", "Approval", "choice", "manual: conversions start as pending"),
                Field("attribution", "Attribution", "choice"),
                Field("duplicates", "A second conversion of a click", "choice"),
                Field("click_window", "Click window", hint='such as "30d" or "12h"'),
                Field("impression_window", "Impression window", hint="0: views earn nothing"),
                Field("min_seconds_to_convert", "Least seconds to convert", "number"),
                Field("pixels", "Browser pixels count", "flag"),
                Field("cookies", "Cookies", "flag", "off: none is set or read, and edge.js keeps nothing"),
            ),
        ),
    ),
    "partners": (
        Section(
            "Partner",
            (
                Field("name", "Name"),
                Field("status", "Status", "choice"),
                Field("ref", "Reference", hint="your own id of it"),
                Field("postback_url", "Postback URL", "wide", "with macros such as {aff_click_id}, {payout}; empty: none"),
                Field("postback_secret", "Postback secret", "secret", "signs postbacks; empty: it stays as it is"),
            ),
        ),
    ),
    "advertisers": (
        Section(
            "Advertiser",
            (
                Field("name", "Name"),
                Field("ref", "Reference", hint="your own id of it"),
                Field("security_token", "Security token", "secret", "required of its postbacks; empty: it stays as it is"),
                Field("signing_secret", "Signing secret", "secret", "of signed webhooks; empty: it stays as it is"),
                Field("allowed_ips", "Allowed addresses", "lines", "one a line: address, a-b range or CIDR; empty: any"),
            ),
        ),
    ),
}


class Unreadable(Exception):
    """A text that is no TOML; what is wrong, with its line."""


def choices(kind: Kind, name: str) -> tuple[str, ...]:
    """What a field of a few words may be."""
    return get_args(next(one.type for one in msgspec.structs.fields(TABLES[kind]) if one.encode_name == name))


def all_fields(kind: Kind) -> Iterator[Field]:
    """Every field of the form."""
    for section in SECTIONS[kind]:
        yield from section.fields


def blank(kind: Kind) -> Json:
    """A new item's document: the defaults."""
    if kind != "offers":
        return {}
    offer = to_shown(Offer(id=1, advertiser_id=1, name="-", url="https://example.com/"))
    return {name: value for name, value in offer.items() if name not in ("id", "advertiser_id", "name", "url")}


def to_text(document: Mapping[str, Any]) -> str:
    """The document as TOML."""
    return tomli_w.dumps(_plain(dict(document)), multiline_strings=False)


def read_text(text: str) -> Json:
    """The document in a text; Unreadable."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise Unreadable(f"it is longer than {MAX_TEXT_BYTES // 1024} KiB")
    try:
        return tomllib.loads(text.replace("\r\n", "\n"), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def with_stored_secrets(document: Json, before: Part | None, kind: Kind) -> Json:
    """The document with the item's secrets where it gives none."""
    return with_secrets_of(document, before, TABLES[kind])


def from_form(kind: Kind, shown: Json, form: Mapping[str, Any]) -> Json:
    """`shown`, with what the form says of the fields it has. A value that is no number is left for the checks to name."""
    document = {name: value for name, value in shown.items() if not name.endswith(SET)}
    for field in all_fields(kind):
        if field.look == "flag":
            document[field.name] = field.name in form
            continue
        value = str(form.get(field.name, "")).strip()
        if field.look == "secret":
            if value or f"{field.name}_clear" in form:
                document[field.name] = value
        elif field.look == "lines":
            document[field.name] = value.split()
        elif field.look in ("number", "advertiser"):
            _put(document, field.name, int(value) if value.isascii() and value.isdigit() and len(value) < 18 else value)
        else:
            _put(document, field.name, 0 if value == "0" and field.name.endswith("_window") else value)
    if "id" not in document and str(form.get("id", "")).strip():
        given = str(form["id"]).strip()
        document["id"] = int(given) if given.isascii() and given.isdigit() and len(given) < 18 else given
    return document


def _put(document: Json, name: str, value: Any) -> None:
    """An empty field is one that is not given."""
    if value == "":
        document.pop(name, None)
    else:
        document[name] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
