"""What `apply` prints before it changes anything: the diff to what is stored, and warnings."""

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import describe, find_changes, find_warnings
from tests.unit.catalog_texts import ADVERTISER, OFFER, PARTNER, read, stored


def test_a_rule_behind_one_for_every_click_is_warned_of() -> None:
    """It would never be asked; a macro that nobody knows is found in a rule's URL too."""
    last = '{ then = { url = "https://a.example/?x={clickid}" } }'
    document = read(PARTNER + OFFER + f'rules = [{{ then = {{ reject = "all" }} }}, {last}]\n')
    assert find_warnings(document) == [
        "offers[17].rules[#2].then.url: nobody knows the macro {clickid}: it expands to nothing",
        "offers[17].rules[#2]: is never asked, nor any after it: rule #1 matches every click",
    ]
    part = '{ when = { percentage = 50 }, then = { reject = "half" } }'
    assert find_warnings(read(PARTNER + OFFER + f'rules = [{part}, {{ then = {{ reject = "rest" }} }}]\n')) == []


def diff(before: str, after: str, *, prune: bool = False) -> list[str]:
    """The lines that `apply` prints."""
    existing = stored(before) if before else Catalog.empty()
    document = read(after, Catalog.empty() if prune else existing)
    return [line for change in find_changes(document, existing, prune=prune) for line in describe(change)]


def test_the_diff_says_what_comes_changes_and_goes() -> None:
    """A line per item that comes or goes, a line per field that changes."""
    assert diff("", OFFER) == ["+ advertisers[1] A", "+ offers[17] O"]
    assert diff(OFFER, OFFER + 'payout = "6.00"\n') == ["~ offers[17].payout: 0 -> 6.00"]
    assert diff(OFFER, ADVERTISER) == []
    assert diff(OFFER, ADVERTISER, prune=True) == ["- offers[17] O"]


def test_the_diff_goes_into_lists_of_tables() -> None:
    """Goals and the like are compared by their id, not by their place."""
    before = OFFER + 'goals = [{ id = 1, name = "a" }, { id = 2, name = "b" }]\ncaps = { daily_clicks = 1 }\n'
    after = (
        OFFER + 'goals = [{ id = 3, name = "c" }, { id = 2, name = "b", payout = 1 }]\ncaps = { daily_clicks = 2 }\n'
    )
    assert diff(before, after) == [
        "~ offers[17].caps.daily_clicks: 1 -> 2",
        "- offers[17].goals[1]",
        "+ offers[17].goals[3]",
        "~ offers[17].goals[2].payout: none -> 1",
    ]


def test_another_order_is_told() -> None:
    """Order matters to rules, so it is a change, and it has its line."""
    pages = ['{ id = 1, url = "https://a.example/" }', '{ id = 2, url = "https://b.example/" }']
    before, after = (f"landing_pages = [{', '.join(rows)}]\n" for rows in (pages, pages[::-1]))
    assert diff(OFFER + before, OFFER + after) == ["~ offers[17].landing_pages: in another order"]


def test_the_diff_shows_no_secret() -> None:
    """That a token changed is said, neither the old nor the new one."""
    before, after = (ADVERTISER + f'security_token = "{token}"\n' for token in ("old-one", "new-one"))
    assert diff(before, after) == ["~ advertisers[1].security_token: changed"]


def test_the_same_said_otherwise_is_no_change() -> None:
    """Trailing zeros, explicit defaults and another order of parameters change nothing."""
    alias = '[[aliases]]\npath = "S"\nkind = "click"\nparams = { %s }\n'
    before = OFFER + 'payout = "5.0"\n' + alias % "offer_id = 17, source = 'x'"
    after = OFFER + 'payout = 5.00\nstatus = "active"\n' + alias % "source = 'x', offer_id = 17"
    assert diff(before, after) == []


def test_a_macro_that_nobody_knows_is_warned_about() -> None:
    """A typing error in a URL is told when it is made, not when reports look odd."""
    document = read(OFFER.replace("example.com/", "example.com/?c={clikid}"))
    assert find_warnings(document) == [
        "offers[17].url: nobody knows the macro {clikid}: it expands to nothing",
    ]
