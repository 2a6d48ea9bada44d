"""What one item of a catalog file says of another: aliases, stored items, ids, redirects from offer to offer."""

import pytest

from tests.unit.catalog_texts import ADVERTISER, OFFER, PARTNER, faults_in, read, stored


@pytest.mark.parametrize(
    ("alias", "place"),
    [
        ('path = "aff_c"\nkind = "click"\nparams = { offer_id = 17 }', "aliases[aff_c].path"),
        ('path = "a/b"\nkind = "click"\nparams = { offer_id = 17 }', "aliases[a/b].path"),
        ('path = "S"\nkind = "click"', "aliases[S].params.offer_id"),
        ('path = "S"\nkind = "click"\nparams = { offer_id = 99 }', "aliases[S].params.offer_id"),
        ('path = "S"\nkind = "click"\nparams = { offer_id = "x" }', "aliases[S].params.offer_id"),
        ('path = "S"\nkind = "pixel"\nparams = { aff_id = 3 }', "aliases[S].params.aff_id"),
        ('path = "S"\nkind = "pixel"\nparams = { "a b" = 3 }', "aliases[S].params"),
        ('path = "S"\nkind = "clck"', "aliases[S].kind"),
    ],
)
def test_an_alias_must_be_reachable_and_lead_somewhere(alias: str, place: str) -> None:
    """Own paths, odd paths, missing and unknown ids are faults of the alias."""
    assert list(faults_in(OFFER + "[[aliases]]\n" + alias)) == [place]


def test_an_aliass_parameters_have_the_requests_names() -> None:
    """`aff_sub` is stored in `aff_sub1`, in a short link as in a query."""
    text = OFFER + '[[aliases]]\npath = "S"\nkind = "click"\nparams = { offer_id = 17, aff_sub = "x y" }'
    assert read(text).aliases["S"].params == {"offer_id": "17", "aff_sub1": "x y"}


def test_references_may_lead_to_what_is_stored() -> None:
    """A file that names one offer relies on the advertiser applied before; with nothing stored that is a fault."""
    offer = OFFER.removeprefix(ADVERTISER)
    assert read(offer, stored(ADVERTISER)).offers["17"]
    assert list(faults_in(offer)) == ["offers[17].advertiser_id"]


def test_an_id_twice_is_a_fault() -> None:
    """Two items of one id: which one counts would be chance."""
    assert "must be unique" in faults_in(PARTNER + PARTNER)["partners[2]"]


def chain(*pairs: tuple[int, int]) -> str:
    """Offers that redirect to one another."""
    rows = (
        f'[[offers]]\nid = {a}\nadvertiser_id = 1\nname = "O"\nurl = "https://a.example/"\nredirect_offer_id = {b}\n'
        for a, b in pairs
    )
    return ADVERTISER + "".join(rows)


def test_redirects_go_three_steps_and_never_in_a_circle() -> None:
    """Three steps are taken, a fourth and every circle refused, also through offers stored before."""
    assert read(chain((1, 2), (2, 3), (3, 4), (4, 0)))
    assert list(faults_in(chain((1, 2), (2, 3), (3, 4), (4, 5), (5, 0)))) == ["offers[1].redirect_offer_id"]
    assert "circle: 1 -> 1" in faults_in(chain((1, 1)))["offers[1].redirect_offer_id"]
    assert set(faults_in(chain((1, 2), (2, 1)))) == {"offers[1].redirect_offer_id", "offers[2].redirect_offer_id"}
    before = stored(chain((1, 2), (2, 0)))
    assert "1 -> 2 -> 1" in faults_in(chain((2, 1)), before)["offers[1].redirect_offer_id"]
