"""edge/tracking/dialects.py: which path means what, and which methods it takes."""

import pytest

from edge.metric_families import KINDS as COUNTED_KINDS
from edge.metric_families import OUTCOMES
from edge.tracking.catalog_document import AliasKind
from edge.tracking.catalog_fields import RESERVED_PATHS as NOT_FOR_ALIASES
from edge.tracking.dialects import KINDS, RESERVED_PATHS, dispatch
from edge.tracking.request import Kind
from storage.journal.events import Click, decode
from tests.wire.edge_state import build_catalog, build_state, request_of

CATALOG = build_catalog()
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


@pytest.mark.parametrize(
    ("path", "query", "kind", "methods"),
    [
        ("/aff_c", "offer_id=17", Kind.CLICK, {"GET", "HEAD"}),
        ("/aff_i", "offer_id=17", Kind.IMPRESSION, {"GET"}),
        ("/aff_lsr", "", Kind.POSTBACK, {"GET", "POST"}),
        ("/aff_goal", "a=lsr", Kind.POSTBACK, {"GET", "POST"}),
        ("/aff_goal", "a=l", Kind.PIXEL, {"GET"}),
        ("/aff_l", "", Kind.PIXEL, {"GET"}),
        ("/clk", "offer_id=17", Kind.CLICK, {"GET"}),
        ("/hop", "", Kind.OTHER, {"GET", "HEAD"}),
        ("/SL2", "", Kind.CLICK, {"GET", "HEAD"}),
        ("/IM1", "", Kind.IMPRESSION, {"GET"}),
        ("/SP1", "", Kind.POSTBACK, {"GET", "POST"}),
        ("/PX1", "", Kind.PIXEL, {"GET"}),
        ("/GP1", "", Kind.POSTBACK, {"GET", "POST"}),
        ("/GL1", "", Kind.PIXEL, {"GET"}),
    ],
)
def test_a_path_has_one_meaning_and_its_methods(path: str, query: str, kind: Kind, methods: set[str]) -> None:
    """Any other method gets 405 with the allowed ones, and nothing is recorded."""
    state = build_state(CATALOG)
    for method in METHODS:
        handled = dispatch(state, request_of(query, path=path, method=method))
        assert handled.kind == kind
        assert (handled.answer.status != 405) == (method in methods)
        if method not in methods:
            assert set(handled.answer.allow.split(", ")) == methods
            assert (handled.event, handled.outcome) == (b"", "bad_request")


@pytest.mark.parametrize("path", ["/", "", "/aff_c/", "/AFF_C", "/sl2", "/SL2/", "//SL2", "/%53L2", "*", "/\udcff"])
def test_any_other_path_is_not_found(path: str) -> None:
    """No prefix, no other case, no decoding."""
    handled = dispatch(build_state(CATALOG), request_of("offer_id=17", path=path))
    assert (handled.kind, handled.answer.status, handled.event) == (Kind.OTHER, 404, b"")
    assert handled.answer.body == b"not found\n"


@pytest.mark.parametrize("query", ["", "a=x", "a=LSR", "goal_id=1"])
def test_a_goal_request_must_say_what_it_is(query: str) -> None:
    """`a` tells a pixel from a postback; without it nothing is guessed."""
    handled = dispatch(build_state(CATALOG), request_of(query, path="/aff_goal"))
    assert (handled.answer.status, handled.event) == (400, b"")


def test_an_aliass_frozen_parameters_win_and_others_are_merged_in() -> None:
    """A partner may add to a short link, not turn it."""
    handled = dispatch(
        build_state(CATALOG), request_of("aff_sub=mine&aff_sub2=added&offer_id=18&aff_id=3", path="/SL2")
    )
    event = decode(handled.event)
    assert isinstance(event, Click)
    assert event.params == {"offer_id": "17", "aff_id": "2", "aff_sub1": "frozen", "aff_sub2": "added"}
    assert event.alias == "SL2"
    assert handled.answer.location.endswith("&p=2&s=frozen")


def test_every_kind_of_alias_has_a_handler_and_no_alias_hides_a_path_of_ours() -> None:
    """What the catalog allows, the port can answer; what an answer may say, the counters can count."""
    assert set(AliasKind.__args__) <= set(KINDS) - {"hop"}  # type: ignore[attr-defined]
    assert {path for path in RESERVED_PATHS if "." not in path} <= NOT_FOR_ALIASES
    assert [kind.name.lower() for kind in Kind] == list(COUNTED_KINDS)
    assert {"redirected", "fallback", "rejected", "recorded", "refused", "bad_request"} <= set(OUTCOMES)
