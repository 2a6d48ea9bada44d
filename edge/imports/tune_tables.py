"""TUNE's records in whatever form they come: API answers with what they `contain`, plain lists, CSV by field names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.errors import UserError
from edge.imports.exports import Record, Tables, as_text, keep, read_csv, read_json
from edge.tracking.parameters import to_id

MODELS = frozenset(
    """
    Offer Affiliate Advertiser Goal OfferUrl OfferFile OfferPayout OfferRevenue OfferWhitelist OfferConversionCap OfferPixel
    """.split()  # noqa: SIM905 -- the models as TUNE's pages list them
)


def read_files(paths: list[Path]) -> tuple[Tables, list[str]]:
    """The records of all files by model, and remarks; UserError names a file in which nothing is recognised."""
    tables: Tables = {}
    remarks: list[str] = []
    for path in paths:
        before = _count(tables)
        document = read_json(path)
        for part in read_csv(path) if document is None else [document]:
            _walk(part, tables, path.stem.lower())
        remarks += _pages(document, path)
        if _count(tables) == before:
            raise UserError(f"{path}: {_why_nothing(document)}")
    return tables, remarks


def _count(tables: Tables) -> int:
    return sum(map(len, tables.values()))


def _why_nothing(document: Any) -> str:
    answer = document.get("response") if isinstance(document, dict) else None
    if isinstance(answer, dict) and as_text(answer.get("status")) not in ("", "1"):
        return f"TUNE answered with an error: {as_text(answer.get('errorMessage')) or answer.get('errors')}"
    return (
        "holds no offers, affiliates or advertisers that are recognised; wanted: an answer of TUNE's API (JSON), or CSV with"
        " TUNE's field names as headers (affiliates.csv and advertisers.csv by these names)"
    )


def _pages(document: Any, path: Path) -> Iterator[str]:
    data = document.get("response", {}) if isinstance(document, dict) else {}
    data = data.get("data") if isinstance(data, dict) else None
    if isinstance(data, dict) and to_id(as_text(data.get("pageCount"))) > 1:
        yield f"{path.name} is page {as_text(data.get('page'))} of {as_text(data.get('pageCount'))}: give all pages"


def _walk(value: Any, tables: Tables, hint: str) -> None:
    """Collect the records in `value`, however deep."""
    if isinstance(value, list):
        for one in value:
            _walk(one, tables, hint)
    elif isinstance(value, dict):
        if dotted := _dotted(value):
            value = dotted
        model = guess_model(value, hint)
        if model:
            _collect(model, value, tables, hint)
            return
        for name, inner in value.items():
            if name in MODELS:
                _collect(name, inner, tables, hint)
            else:
                _walk(inner, tables, hint)


def _dotted(row: Mapping[str, Any]) -> dict[str, Record]:
    """`Offer.id` and the like, by model; empty where no header is of that form."""
    models: dict[str, Record] = {}
    for name, value in row.items():
        model, dot, field = name.partition(".")
        if dot and model in MODELS:
            models.setdefault(model, {})[field] = value
    return models


def _collect(model: str, value: Any, tables: Tables, hint: str) -> None:
    if isinstance(value, list):
        for one in value:
            _collect(model, one, tables, hint)
    elif isinstance(value, dict) and _key(model, value):
        keep(tables, model, _key(model, value), {name: one for name, one in value.items() if name not in MODELS})
        for name in MODELS & value.keys():
            _collect(name, value[name], tables, hint)
    elif isinstance(value, dict):
        for name, one in value.items():
            _collect(name if name in MODELS else model, one, tables, hint)


def _key(model: str, record: Mapping[str, Any]) -> str:
    """What tells a record from its like; "" for what is none."""
    number = as_text(record.get("id"))
    if number or model not in ("OfferPayout", "OfferRevenue", "OfferConversionCap"):
        return number
    parts = [as_text(record.get(name)) for name in ("offer_id", "affiliate_id", "goal_id")]
    return "/".join(parts) if all(parts[:2]) else ""


def guess_model(record: Mapping[str, Any], hint: str) -> str:
    """The model of a plain record, by its fields; affiliates and advertisers look alike, there the file's name counts."""
    names = record.keys()
    if "offer_id" in names and "affiliate_id" in names:
        fields = {"payout": "OfferPayout", "revenue": "OfferRevenue", "conversion_cap": "OfferConversionCap"}
        return next((model for field, model in fields.items() if field in names), "")
    if "id" not in names:
        return ""
    if "offer_url" in names:
        return "OfferUrl" if "offer_id" in names else "Offer"
    if {"offer_id", "name"} <= names and names & {"default_payout", "payout_type"}:
        return "Goal"
    if "company" in names:
        if names & {"conversion_security_token", "tmp_token"} or "advertiser" in hint:
            return "Advertiser"
        return "Affiliate" if "affiliate" in hint or "partner" in hint or names & {"affiliate_tier_id", "w9_filed"} else ""
    return ""
