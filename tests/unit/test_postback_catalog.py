"""Partners' postbacks in the catalog file: read, refused, shown."""

import pytest

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import describe, find_changes, find_warnings
from edge.tracking.catalog_document import Postback, decode_item, encode_item
from edge.tracking.catalog_file import CatalogFaults, Document, read_catalog

HEAD = """
[[advertisers]]
id = 1
name = "a"
[[offers]]
id = 17
advertiser_id = 1
name = "o"
url = "https://x.example/"
[[partners]]
id = 2
name = "p"
"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def read(text: str, existing: Catalog | None = None) -> Document:
    """The document of HEAD with `text` as more of partner 2."""
    return read_catalog(HEAD + text, "c.toml", existing or Catalog.empty())


def faults(text: str) -> list[str]:
    """What is wrong, a line each."""
    with pytest.raises(CatalogFaults) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_a_partner_may_ask_at_several_addresses() -> None:
    """With offers, goals and statuses; the defaults are all offers, all goals, approved ones, GET. Stored as read."""
    partner = read(
        f'postback_secret = "{SECRET}"\n'
        '[[partners.postbacks]]\nurl = "https://p.example/1"\n'
        '[[partners.postbacks]]\nurl = "https://p.example/2"\nmethod = "POST"\noffer_ids = [17]\ngoal_ids = [0, 3]\n'
        'statuses = ["pending", "reversed"]\n'
    ).partners["2"]
    assert partner.postbacks == (
        Postback(url="https://p.example/1", method="GET", offer_ids=(), goal_ids=(), statuses=("approved",)),
        Postback(
            url="https://p.example/2", method="POST", offer_ids=(17,), goal_ids=(0, 3), statuses=("pending", "reversed")
        ),
    )
    assert decode_item("partners", encode_item(partner)) == partner


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("statuses = []", "is empty: it would never be sent"),
        ('statuses = ["sold"]', "allowed: a list of approved, pending, rejected, reversed"),
        ('statuses = "approved"', "postbacks[#1].statuses"),
        ("goal_ids = [-1]", "allowed: a list of goals' ids; 0: the base conversion"),
        ("offer_ids = [0]", "allowed: a list of ids, whole numbers from 1"),
        ("offer_ids = [99]", "postbacks[#1].offer_ids: there is no offers[99]"),
        ('method = "PUT"', "allowed: GET | POST"),
        ('when = "now"', "postbacks[#1].when: is no field of this table"),
    ],
)
def test_a_faulty_entry_is_refused_with_its_place(line: str, said: str) -> None:
    """Partner, position and field, and what is allowed."""
    [fault] = faults(f'[[partners.postbacks]]\nurl = "https://p.example/"\n{line}\n')
    assert fault.startswith("c.toml: partners[2].postbacks[#1]")
    assert said in fault


@pytest.mark.parametrize(
    "url",
    ["", "ftp://p.example/", "https://{aff_id}.p.example/", "https://user:pw@p.example/", "/pb", "https://p.example:99999/"],
)
def test_an_address_that_is_no_web_address_is_refused(url: str) -> None:
    """Above all a host that a click's values could choose."""
    [fault] = faults(f'[[partners.postbacks]]\nurl = "{url}"\n')
    assert "partners[2].postbacks[#1].url" in fault


@pytest.mark.parametrize(
    "secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_MfKQ9r8G KYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 88]
)  # fmt: skip
def test_a_signing_secret_has_its_form_and_is_not_repeated(secret: str) -> None:
    """whsec_ and the base64 of 24 to 64 bytes; the fault does not show the value."""
    [fault] = faults(f'postback_secret = "{secret}"\n')
    assert "partners[2].postback_secret: the value" in fault
    assert "whsec_ and the base64 of 24 to 64 bytes" in fault
    assert secret == "whsec_" or secret not in fault


def test_a_changed_secret_is_not_shown() -> None:
    """The diff says that it changed."""
    before = Catalog.empty().changed(1, [(kind, key, encode_item(item)) for kind, key, item in read("").items()])
    [change] = find_changes(read(f'postback_secret = "{SECRET}"\n', before), before, prune=False)
    assert list(describe(change)) == ["~ partners[2].postback_secret: changed"]


def test_macros_that_will_disappoint_are_warned_of() -> None:
    """Unknown ones, and the one that tells what we earn; nothing of postbacks is called unenforced."""
    document = read(
        'postback_url = "https://p.example/?a={nonsense}&b={payout}&c={conversion_id}"\n'
        '[[partners.postbacks]]\nurl = "https://p.example/?r={revenue}"\n'
    )
    assert find_warnings(document) == [
        "partners[2].postback_url: nobody knows the macro {nonsense}: it expands to nothing",
        "partners[2].postbacks[#1].url: {revenue} tells the partner what you earn",
    ]
