"""Every operation of the API with every scope: whom it answers, and what no answer of it holds.

A new operation fails here until RULES says who may call it and with which paths.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec
import pytest

from edge.admin.api import OPERATIONS
from edge.admin.api.operation import Operation
from edge.admin.catalog_documents import etag_of_shown
from storage.postgres.reports.dimensions import DIMENSIONS
from storage.postgres.reports.metrics import METRICS
from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.api import Client, bearer, open_api
from tests.postgres.tenants import FORBIDDEN, KEYS, Tenants, month, settle

ALL = "admin reports advertiser partner"
NETWORK = "admin reports"
DAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"


class Rule(NamedTuple):
    """`scopes`: who may call it. `paths`: values of the path's names, and the scopes to whom there is none such."""

    scopes: str
    paths: Mapping[str, str] = MappingProxyType({"": ""})
    query: str = ""
    is_stream: bool = False


_PARTS = {"17/{}": "", "18/{}": "advertiser", "99/{}": ALL}
_OFFERS = {"17": "", "18": "advertiser", "99": ALL}


def _part(number: int) -> Rule:
    return Rule(ALL, {f"17/{number}": "", "18/2": ALL if number == 1 else "advertiser", "17/9": ALL})


RULES = {
    "whoami": Rule(ALL),
    "get_report": Rule(ALL),
    "list_advertisers": Rule("admin reports advertiser"),
    "read_advertiser": Rule("admin reports advertiser", {"1": "", "2": "advertiser"}),
    "list_partners": Rule("admin reports partner"),
    "read_partner": Rule("admin reports partner", {"2": "", "3": "partner"}),
    "list_offers": Rule(ALL),
    "read_offer": Rule(ALL, _OFFERS),
    "list_aliases": Rule(NETWORK),
    "read_alias": Rule(NETWORK, {"SL2": ""}),
    "list_contacts": Rule(NETWORK),
    "show_contact": Rule(NETWORK, {"contact-of-two": ""}),
    "show_journey": Rule(NETWORK, {"contact-of-two": ""}),
    "list_cohorts": Rule(NETWORK),
    "list_costs": Rule(NETWORK),
    "conversion": Rule(ALL, {"{mine}": "", "{theirs}": "advertiser partner"}),
    "export_clicks": Rule(ALL, query=f"from={DAY}"),
    "export_impressions": Rule(ALL, query=f"from={DAY}"),
    "export_conversions": Rule(ALL, query=f"from={DAY}"),
    "export_changes": Rule(ALL, query=f"from={DAY}"),
    "export_costs": Rule(NETWORK, query=f"from={DAY}"),
    "export_contacts": Rule(NETWORK),
    "export_reports": Rule(ALL),
    "health": Rule(NETWORK),
    "list_audit": Rule("admin"),
    "list_erasures": Rule("admin"),
    "list_imports": Rule("admin"),
    "show_import": Rule("admin", {"1": "admin"}),
    "import_rejects": Rule("admin", {"1": "admin"}),
    "list_keys": Rule("admin"),
    "read_key": Rule("admin", {"1": ""}),
    "events": Rule(ALL, is_stream=True),
    "list_goals": Rule(ALL),
    "list_goals_of_offer": Rule(ALL, _OFFERS),
    "read_goal": Rule(ALL, {"17/1": "", "18/2": "advertiser", "17/9": ALL}),
    "list_landing_pages": Rule(ALL),
    "list_landing_pages_of_offer": Rule(ALL, _OFFERS),
    "read_landing_page": Rule(ALL, {"17/1": "", "18/1": ALL}),
    "list_creatives": Rule(ALL),
    "list_creatives_of_offer": Rule(ALL, _OFFERS),
    "read_creative": Rule(ALL, {"17/1": "", "18/1": ALL}),
    "list_rules": Rule(NETWORK),
    "list_rules_of_offer": Rule(NETWORK, _OFFERS),
    "read_rule": Rule(NETWORK, {"17/1": ""}),
    "list_closed_months": Rule(NETWORK),
    "postbacks": Rule(NETWORK),
    "postback": Rule(NETWORK, {"1": ""}),
    "list_clicks": Rule(ALL),
    "list_impressions": Rule(ALL),
    "list_conversions": Rule(ALL),
    "list_statements": Rule(ALL, query=f"month={month()}"),
    "show_statement": Rule(
        ALL,
        {
            f"partner/2/{month()}": "advertiser",
            f"partner/3/{month()}": "advertiser partner",
            f"advertiser/1/{month()}": "partner",
            f"advertiser/2/{month()}": "partner advertiser",
        },
    ),
    "explain": Rule(NETWORK, {"{click}": ""}),
}
"""Of what is read. What changes something is for admin alone: an operation of another method needs no rule."""

VALUES = {
    "advertiser": ("1", "2"), "partner": ("2", "3"), "offer": ("17", "18"), "offer_id": ("17", "18"), "aff_id": ("2", "3"),
    "advertiser_id": ("1", "2"), "goal": ("0", "2"), "contact": ("contact-of-two", "contact-of-three"), "list": ("vip-list",),
    "source": ("source-of-three",), "aff_sub1": ("sub-of-three",), "currency": ("USD",), "q": ("e",), "ref": ("ref-of-decor",),
    "dimensions": (*DIMENSIONS, "extra.shop_margin", "extra.own_word", "partner,contact,aff_sub1"), "metrics": tuple(METRICS),
    "from": (DAY, "2020-01-01"), "to": (f"{datetime.now(UTC):%Y-%m-%d}",), "sort": ("-revenue", "payout"), "limit": ("1",),
    "format": ("csv", "ndjson", "json", "html", "text"), "month": (month(),), "date": (f"{datetime.now(UTC):%Y-%m-%d}",),
    "columns": ("ip", "revenue", "payout", "extras", "user_agent", "adv_sub1", "conversion_unique_id", "note", "actor"),
    "metric": ("revenue", "payout", "cost", "conversions", "gross_clicks"), "extra.shop_margin": ("margin-of-decor",),
}  # fmt: skip
"""What each parameter is tried with; others once with a word that is nobody's."""


@pytest.fixture(scope="module")
def tenants(embedded_server: Server, short_directory: Path) -> Iterator[Tenants]:
    """One database for all tests of this file: nothing here changes it."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        yield asyncio.run(settle(short_directory / "tenants", url))


@pytest.fixture
async def client(tenants: Tenants, data_dir: Path) -> AsyncIterator[Client]:
    """The API on it, for any number of requests."""
    async with open_api(tenants.url, data_dir, api_rate_limit=0) as client:
        yield client


def paths_of(operation: Operation, rule: Rule, tenants: Tenants) -> Iterator[tuple[str, str]]:
    """Each address of the operation that the rule names, and to whom there is none such."""
    names = {"mine": tenants.mine[1], "theirs": tenants.theirs[1], "click": tenants.mine[0]}
    for values, missing in rule.paths.items():
        given = iter(values.format(**names).split("/"))
        words = [next(given) if word.startswith("{") else word for word in operation.path.split("/")]
        yield "/api/v1" + "/".join(words), missing


def queries_of(operation: Operation, rule: Rule) -> Iterator[str]:
    """The plain query, then each parameter by itself; filters that name nobody all together."""
    yield rule.query
    names = [field.encode_name for field in msgspec.structs.fields(operation.query_type)] if operation.query_type else []
    if operation.takes_any_query:
        names += ["extra.shop_margin", "extra.own_word"]
    yield "&".join([rule.query, *(f"{name}=nobody" for name in names if name in DIMENSIONS and name not in VALUES)])
    for name in dict.fromkeys(names):
        tried = VALUES.get(name) or _choices(operation, name) or (() if name in DIMENSIONS else ("nobody",))
        if name in ("dimensions", "metrics") and not operation.name.endswith(("report", "reports")):
            tried = tried[:1]
        kept = "&".join(one for one in rule.query.split("&") if one and not one.startswith(f"{name}="))
        more = f"&metrics=conversions,clicks&from={DAY}" if name == "dimensions" else ""
        for value in tried:
            yield f"{kept}&{name}={value}{more}".strip("&")


def _choices(operation: Operation, name: str) -> tuple[Any, ...]:
    kind: Any = next(
        (field.type for field in msgspec.structs.fields(operation.query_type) if field.encode_name == name), None
    ) if operation.query_type else None
    return get_args(kind) if get_origin(kind) is Literal else ()


def test_every_operation_that_reads_has_a_rule() -> None:
    """So that nobody adds one without saying whose it is."""
    assert {one.name for one in OPERATIONS if one.method == "GET"} == set(RULES)


@pytest.mark.parametrize("scope", list(KEYS))
async def test_each_scope_reaches_what_its_rule_says_and_no_more(client: Client, tenants: Tenants, scope: str) -> None:
    """200 for what is theirs, 404 for what is another's, 403 for operations that are not for them; writing is admin's."""
    found, expected = {}, {}
    for operation in OPERATIONS:
        rule = RULES.get(operation.name, Rule("admin", {"/".join("1" * operation.path.count("{")): ""}))
        if operation.method != "GET" and scope == "admin":
            continue
        for path, missing in paths_of(operation, rule, tenants):
            key = f"{operation.method} {path}"
            expected[key] = 403 if scope not in rule.scopes.split() else 404 if scope in missing.split() else 200
            async with client.request(operation.method, f"{path}?{rule.query}", headers=bearer(scope)) as answer:
                found[key] = answer.status
                if not rule.is_stream:
                    await answer.read()
    assert found == expected


@pytest.mark.parametrize("scope", ["partner", "advertiser", "reports"])
async def test_no_answer_holds_what_is_not_for_that_scope(client: Client, tenants: Tenants, scope: str) -> None:
    """By no parameter, in no form, not in an error either, and never a 5xx."""
    leaks, count = [], 0
    for operation in OPERATIONS:
        rule = RULES.get(operation.name)
        if rule is None or rule.is_stream or scope not in rule.scopes.split():
            continue
        for path, _ in paths_of(operation, rule, tenants):
            for query in queries_of(operation, rule):
                async with client.get(f"{path}?{query}", headers=bearer(scope)) as answer:
                    body = (await answer.read()).decode("utf-8", "replace") + str(answer.headers)
                    count += answer.status == 200
                    asked = [word for word in FORBIDDEN[scope] if word in query]
                    said = [word for word in FORBIDDEN[scope] if word in body and word not in asked]
                    if said or answer.status >= 500:
                        leaks.append(f"{answer.status} {path}?{query}: {', '.join(said)}")
    assert not leaks, "\n".join(leaks[:60]) + f"\n{len(leaks)} in all"
    assert count > 100


async def test_what_is_hidden_cannot_be_found_out_by_filtering_for_it(client: Client) -> None:
    """A partner that asks for one advertiser's offers, or for our reference of one, would learn whose they are."""
    for path in ("offers?advertiser_id=1", "offers?ref=ref-of-decor", "goals?advertiser_id=1", "landing_pages?advertiser_id=2"):
        page = await (await client.get(f"/api/v1/{path}", headers=bearer("partner"))).json()
        assert page["data"] == [], path
        assert (await (await client.get(f"/api/v1/{path.replace('=2', '=1')}", headers=bearer("admin"))).json())["data"], path


async def test_an_etag_says_nothing_of_what_is_hidden(client: Client, tenants: Tenants) -> None:
    """It changes for a partner with what a partner sees only: else a price could be guessed until the ETag fits."""
    admin, partner, reports = [
        {path: (await client.get(path, headers=bearer(scope))).headers["ETag"] for path in ETAGGED}
        for scope in ("admin", "partner", "reports")
    ]
    for path in ETAGGED:
        assert len({admin[path], partner[path], reports[path]}) == 3, path
        shown = await (await client.get(path, headers=bearer("partner"))).read()
        assert partner[path] == etag_of_shown(msgspec.json.Decoder(float_hook=Decimal).decode(shown)), path


ETAGGED = ("/api/v1/offers/17", "/api/v1/offers/17/goals/1", "/api/v1/offers/17/landing_pages/1")


async def test_a_goal_of_another_advertiser_lends_no_name(client: Client, tenants: Tenants) -> None:
    """An offer of one's own whose goal has no name by now is not shown with somebody else's."""
    names = [
        (await (await client.get(f"/api/v1/reports?dimensions=goal&goal=0&goal=2&from={DAY}", headers=bearer(scope))).json())["labels"]
        for scope in ("advertiser", "admin")
    ]
    assert names[0] in ({}, {"goal": {}})
