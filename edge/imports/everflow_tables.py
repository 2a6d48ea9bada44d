"""Everflow's records in whatever form they come: API answers with their relationships, plain lists, CSV.

A record is known by the fields that it has; what stands in another's `relationship` is found there too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.errors import UserError
from edge.imports.exports import Record, Tables, as_text, is_empty, keep, read_csv, read_json

_KEYS = {
    "custom": "network_custom_payout_revenue_setting_id",
    "pixels": "network_pixel_id",
    "urls": "network_offer_url_id",
    "payouts": "network_offer_payout_revenue_id",
    "offers": "network_offer_id",
    "affiliates": "network_affiliate_id",
    "advertisers": "network_advertiser_id",
}
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_ID_BEHIND_NAME = re.compile(r"(?P<name>.*\S)\s*\((?P<id>[0-9]{1,10})\)", re.DOTALL)
# How the pages' own CSV calls what the API calls otherwise.
_HEADINGS = {
    "offer_id": "network_offer_id",
    "partner_id": "network_affiliate_id",
    "affiliate_id": "network_affiliate_id",
    "advertiser_id": "network_advertiser_id",
    "advertiser": "network_advertiser_id",
    "offer_url": "destination_url",
    "landing_page_url": "destination_url",
    "currency": "currency_id",
    "payout": "payout_amount",
    "revenue": "revenue_amount",
    "base_payout": "payout_amount",
    "base_revenue": "revenue_amount",
}


def read_files(paths: list[Path]) -> tuple[Tables, list[str]]:
    """The records of all files by table, and remarks; UserError names a file in which nothing is recognised."""
    tables: Tables = {}
    remarks: list[str] = []
    for path in paths:
        document, found = read_json(path), 0
        for part in _csv_records(path) if document is None else [document]:
            found += _walk(part, tables)
        remarks += _pages(document, path)
        if not found:
            raise UserError(f"{path}: {_why_nothing(document)}")
    return tables, remarks


def _why_nothing(document: Any) -> str:
    if isinstance(document, dict) and (error := as_text(document.get("Error")) or as_text(document.get("error"))):
        return f"Everflow answered with an error: {error}"
    return (
        "holds no offers, affiliates or advertisers that are recognised; wanted: an answer of Everflow's API (JSON), or CSV"
        " with network_offer_id, network_affiliate_id or network_advertiser_id"
    )


def _pages(document: Any, path: Path) -> Iterator[str]:
    paging = document.get("paging") if isinstance(document, dict) else None
    if not isinstance(paging, dict):
        return
    size, total = (as_text(paging.get(name)) or "0" for name in ("page_size", "total_count"))
    if size.isdigit() and total.isdigit() and 0 < int(size) < int(total):
        yield f"{path.name} is page {as_text(paging.get('page'))} of {-(-int(total) // int(size))}: give all pages"


def _walk(value: Any, tables: Tables) -> int:
    """Collect the records in `value`, however deep; how many."""
    if isinstance(value, list):
        return sum(_walk(one, tables) for one in value)
    if not isinstance(value, dict):
        return 0
    found = 0
    if table := guess_table(value):
        keep(tables, table, as_text(value[_KEYS[table]]), value)
        found = 1
    return found + sum(_walk(one, tables) for one in value.values() if isinstance(one, dict | list))


def guess_table(record: Mapping[str, Any]) -> str:
    """The table of a record, by its fields; "" for none."""
    names = {name for name, value in record.items() if not is_empty(value)}
    if _KEYS["custom"] in names:
        return "custom"
    if _KEYS["pixels"] in names:
        return "pixels"
    if _KEYS["urls"] in names:
        return "urls"
    if _KEYS["payouts"] in names:
        return "payouts" if "payout_type" in record else ""
    if _KEYS["offers"] in names:
        return "offers" if "destination_url" in record else ""
    for table in ("affiliates", "advertisers"):
        if _KEYS[table] in names and "name" in names and record.keys() & {"account_status", "verification_token"}:
            return table
    return ""


def _csv_records(path: Path) -> Iterator[Record]:
    for row in read_csv(path):
        record: Record = {}
        for heading, value in row.items():
            word = _NOT_WORD.sub("_", heading.strip().lower()).strip("_")
            record.setdefault(_HEADINGS.get(word, word), value)
        yield _with_ids(record, path.stem.lower())


def _with_ids(record: Record, hint: str) -> Record:
    """`Outletforce (5)` as the id 5; a bare `id` and `status` as what the file, or its name, is about."""
    advertiser = _ID_BEHIND_NAME.fullmatch(as_text(record.get("network_advertiser_id")))
    if advertiser:
        record["network_advertiser_id"] = advertiser["id"]
    if "destination_url" in record:
        table, status = "offers", "offer_status"
    elif "advertiser" in hint or "verification_token" in record:
        table, status = "advertisers", "account_status"
    else:
        table, status = "affiliates", "account_status"
    for name, bare in ((_KEYS[table], "id"), (status, "status")):
        if bare in record:
            record.setdefault(name, record.pop(bare))
    return record
