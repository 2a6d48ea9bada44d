"""Signed postbacks: what is signed, for how long it counts, and that nothing else passes."""

import hashlib
import hmac
import random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.catalog_document import Advertiser
from edge.tracking.parameters import parse_query
from edge.tracking.signatures import canonical, find_fault, replay_claims, sign
from edge.tracking.verdict import ConversionFacts

SECRET = "shared with Outletforce"
SIGNING = Advertiser(id=7, name="Outletforce", signing_secret=SECRET)
NOW_S = 1_790_000_000
PARAMS = {"transaction_id": "0" * 32, "amount": "19.90", "adv_sub1": "order #7 ü", "timestamp": str(NOW_S)}


def sent(params: dict[str, str], *, received_s: int = NOW_S, via: Any = "postback") -> ConversionFacts:
    return ConversionFacts(bytes(16), received_s * 1000, via, "", 0, params, "")


def signed(**changes: str) -> dict[str, str]:
    """The parameters, signed, then changed."""
    return PARAMS | {"signature": sign(PARAMS, SECRET)} | changes


def test_a_signature_made_by_the_documented_three_lines_is_right() -> None:
    """The recipe of docs/trust.md, with nothing of ours in it; what a query carries is what was signed."""
    params = {"transaction_id": "0" * 32, "amount": "19.90", "adv_sub": "order #7 ü", "timestamp": str(NOW_S)}
    text = "&".join(sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in params.items()))
    signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    assert find_fault(sent(parse_query(f"{text}&signature={signature}")), SIGNING) == ""


def test_the_canonical_text_is_sorted_encoded_and_without_the_signature() -> None:
    """Byte order of the encoded names, RFC 3986, empty parameters left out."""
    assert canonical({"b": "1", "a.b": "x y&z", "signature": "no", "a": "~/", "empty": ""}) == "a.b=x%20y%26z&a=~%2F&b=1"


def test_upper_case_hex_is_right_too() -> None:
    """Some languages write it so; it is the same signature to the replay check."""
    upper = sent(signed(signature=sign(PARAMS, SECRET).upper()))
    assert find_fault(upper, SIGNING) == ""
    assert replay_claims(upper, SIGNING) == replay_claims(sent(signed()), SIGNING) == (f"s:7:{sign(PARAMS, SECRET)}",)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"signature": ""}, "no signature was sent"),
        ({"signature": "0" * 64}, "the signature is wrong"),
        ({"signature": "\ud800ü"}, "the signature is wrong"),
        ({"amount": "199.00"}, "the signature is wrong"),
        ({"goal_id": "1"}, "the signature is wrong"),
        ({"timestamp": ""}, "no timestamp in Unix seconds was sent"),
        ({"timestamp": "٣"}, "no timestamp in Unix seconds was sent"),
        ({"timestamp": "9" * 12}, "no timestamp in Unix seconds was sent"),
        ({"timestamp": str(NOW_S + 1)}, "the signature is wrong"),
    ],
)
@pytest.mark.reliability(number=26)
def test_whatever_was_changed_after_signing_is_found(changes: dict[str, str], fault: str) -> None:
    """A parameter changed, added or taken away; a signature or timestamp that is none."""
    assert find_fault(sent(signed(**changes)), SIGNING) == fault


def test_another_secret_does_not_sign() -> None:
    """Only who holds the advertiser's own can."""
    assert find_fault(sent(PARAMS | {"signature": sign(PARAMS, "guessed")}), SIGNING) == "the signature is wrong"


@pytest.mark.parametrize(("off_s", "is_fresh"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_signature_counts_for_five_minutes_either_way(off_s: int, is_fresh: bool) -> None:
    """Clocks differ; an old request, sent again, is refused."""
    assert (find_fault(sent(signed(), received_s=NOW_S + off_s), SIGNING) == "") is is_fresh


def test_without_a_secret_and_from_pixels_none_is_asked_for() -> None:
    """A browser cannot keep a secret; `signature` may be anybody's own parameter."""
    plain = Advertiser(id=7, name="Outletforce")
    for facts, advertiser in ((sent({"signature": "mine"}), plain), (sent({}, via="pixel"), SIGNING)):
        assert find_fault(facts, advertiser) == ""
        assert replay_claims(facts, advertiser) == ()


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_no_parameters_make_it_fail(params: dict[str, str]) -> None:
    """Whatever a client sends has a verdict, and never passes unsigned."""
    assert find_fault(sent(params), SIGNING)
    assert canonical(params).isascii()


@pytest.mark.reliability(number=26)
def test_of_ten_thousand_expired_or_altered_postbacks_none_is_right() -> None:
    """Too old, from the future, a digit of the signature changed, a parameter changed by one character."""
    chance, wrong = random.Random(26), []
    for number in range(10_000):
        params, received_s = signed(), NOW_S
        if number % 3 == 0:
            received_s += chance.choice((-1, 1)) * chance.randrange(301, 10**9)
        elif number % 3 == 1:
            place = chance.randrange(64)
            digit = "0" if params["signature"][place] != "0" else "1"
            params["signature"] = params["signature"][:place] + digit + params["signature"][place + 1 :]
        else:
            name = chance.choice(("transaction_id", "amount", "adv_sub1"))
            params[name] = chance.choice((params[name] + "0", params[name][:-1], "1" + params[name]))
        if find_fault(sent(params, received_s=received_s), SIGNING) == "":
            wrong.append((params, received_s))
    assert wrong == []
