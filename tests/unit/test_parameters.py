"""edge/tracking/parameters.py: a query string into clean parameters, whatever it holds."""

from urllib.parse import parse_qsl, quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.parameters import (
    MAX_NAME_CHARS,
    MAX_PARAMETERS,
    clean,
    clean_form,
    parse_query,
    split_form,
    to_id,
)
from tests.steps import count_steps

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too."""


def is_clean(text: str) -> bool:
    """No control character, and UTF-8 can write it."""
    return not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text) and bool(text.encode() or not text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("offer_id=17&aff_id=2", {"offer_id": "17", "aff_id": "2"}),
        ("source=spring+sale&x=a%20b%2Bc", {"source": "spring sale", "x": "a b+c"}),
        ("source=a=b=c", {"source": "a=b=c"}),
        ("aff_sub=x", {"aff_sub1": "x"}),
        ("aff_sub1=x", {"aff_sub1": "x"}),
        ("adv_sub=x&adv_sub2=y", {"adv_sub1": "x", "adv_sub2": "y"}),
        ("aff%5Fsub=x", {"aff_sub1": "x"}),
        ("aff_sub=", {}),
        ("aff_sub", {}),
        ("=x&&&", {}),
        ("aff_sub=x&aff_sub=", {"aff_sub1": "x"}),
        ("aff_sub=x&aff_sub=y", {"aff_sub1": "y"}),
        ("aff_sub1=x&aff_sub=y", {"aff_sub1": "y"}),
        ("x=%", {"x": "%"}),
        ("x=%zz%4", {"x": "%zz%4"}),
        ("x=%41%zz", {"x": "A%zz"}),
        ("x=%C3%BC&y=%E2%82%AC", {"x": "ü", "y": "€"}),
        ("x=%ff%fe", {"x": "\ufffd\ufffd"}),
        ("x=%ED%A0%80", {"x": "\ufffd\ufffd\ufffd"}),
        ("x=a%00b", {"x": "ab"}),
        ("x=%00", {}),
        ("x=a%0D%0ASet-Cookie:+b", {"x": "aSet-Cookie: b"}),
        ("x=%1b%5B31m%7F%C2%85%E2%80%A8", {"x": "[31m"}),
        ("%00=x", {}),
        ("a%00b=x", {"ab": "x"}),
        ("a;b=x", {"a;b": "x"}),
        ("x=\udcfc", {"x": "\ufffd"}),
        ("x=\ud800%20", {"x": "\ufffd "}),
    ],
)
def test_a_query_becomes_parameters(query: str, expected: dict[str, str]) -> None:
    """Spaces, aliases, empty and repeated parameters, bad encoding."""
    assert parse_query(query) == expected


def test_only_so_many_parameters_are_read() -> None:
    """What comes after the hundredth is left, and a name is cut to its bound."""
    query = "&".join(f"p{number}=x" for number in range(MAX_PARAMETERS + 5))
    assert list(parse_query(query)) == [f"p{number}" for number in range(MAX_PARAMETERS)]
    assert list(parse_query("n" * 500 + "=x")) == ["n" * MAX_NAME_CHARS]


@given(ANY_TEXT)
def test_no_query_makes_it_fail_and_all_that_comes_out_is_clean(query: str) -> None:
    """No control byte, no lone surrogate, no empty name or value, whatever comes in."""
    for name, value in parse_query(query).items():
        assert name
        assert value
        assert is_clean(name)
        assert is_clean(value)
        assert clean(value) == value


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=MAX_NAME_CHARS),
        st.text(min_size=1).filter(lambda text: clean(text) == text),
        max_size=9,
    )
)
def test_what_was_encoded_is_read_back(values: dict[str, str]) -> None:
    """Every value that is clean survives percent-encoding."""
    assert parse_query("&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())) == values


@given(ANY_TEXT)
def test_cleaning_is_final(text: str) -> None:
    """What was cleaned once needs no second time."""
    assert is_clean(clean(text))
    assert clean(clean(text)) == clean(text)


def test_a_surrogate_pair_is_the_character_that_it_writes() -> None:
    """Only lone halves are replaced."""
    assert clean("\ud83d\ude00 \ude00\n") == "😀 \ufffd"


def test_a_form_keeps_numbers_and_leaves_out_what_is_no_text() -> None:
    """Nested values, booleans and null are no parameters; names and values are cleaned as in a query."""
    pairs: list[tuple[str, object]] = [
        ("adv_sub", "a\0b"), ("amount", "49.90"), ("goal_id", 3), ("rate", 1.5), ("yes", True), ("no", None),
        ("list", [1]), ("object", {}), ("empty", ""), ("", "x"), ("\n", "x"), ("n" * 99, "x"), ("s\ud800", "\udcff"),
    ]  # fmt: skip
    assert clean_form(pairs) == {
        "adv_sub1": "ab", "amount": "49.90", "goal_id": "3", "rate": "1.5", "n" * 64: "x", "s\ufffd": "\ufffd",
    }  # fmt: skip
    assert len(clean_form([(f"p{number}", "x") for number in range(500)])) == MAX_PARAMETERS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17", 17), ("0017", 17), ("2147483647", 2**31 - 1), ("2147483648", 0), ("9999999999", 0), ("0", 0), ("", 0),
        ("-1", 0), ("+1", 0), (" 1", 0), ("1\n", 0), ("1.0", 0), ("1e3", 0), ("٣", 0), ("²", 0), ("1" * 5000, 0),
    ],
)  # fmt: skip
def test_an_id_is_a_positive_int4_or_nothing(text: str, expected: int) -> None:
    """What Postgres could not store as an id is no id."""
    assert to_id(text) == expected


@given(st.text("%4aFg é", max_size=30))
def test_a_percent_sign_that_encodes_nothing_stays(value: str) -> None:
    """As the library reads it, whatever stands beside it."""
    read = parse_query(f"a={value}").get("a", "")
    assert read == clean(unquote_to_bytes(value).decode("utf-8", "replace"))


@given(st.lists(st.text("%4aF+=; é", max_size=12), max_size=6))
def test_a_form_is_read_as_the_library_reads_it(pairs: list[str]) -> None:
    """Field by field; one without a value is none."""
    body = "&".join(pairs)
    assert split_form(body) == parse_qsl(body)
    with pytest.raises(ValueError, match="too many"):
        split_form(body + "&" * 100)


def test_a_body_of_percent_signs_holds_nobody_up() -> None:
    """Each of them was a step of its own: 27 ms, in which no click was answered."""
    assert len(split_form("a=" + "%" * 65_000)[0][1]) == 65_000  # type: ignore[arg-type]
    assert len(parse_query("a=" + "%" * 8000)["a"]) == 8000
    assert count_steps(lambda: split_form("a=" + "%" * 65_000)) < 100
    assert count_steps(lambda: parse_query("a=" + "%" * 8000)) < 100
