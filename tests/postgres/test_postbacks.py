"""Partners' postbacks from the verdict to the partner's ear: the drain queues, the real sender tells real servers."""

from tests.partners import PartnerServer
from tests.postgres.drains import Bench, until
from tests.postgres.senders import partners_toml, sending, states


async def test_a_partner_hears_of_an_approved_conversion(bench: Bench) -> None:
    """With the click's and the conversion's values in the places that the address gives them."""
    async with PartnerServer().listening() as partner:
        url = f"{partner.origin}/pb?cid={{aff_click_id}}&s={{aff_sub}}&p={{payout}}&id={{conversion_id}}&st={{status}}"
        await bench.apply(partners_toml(f'postback_url = "{url}"'))
        scribe = bench.scribe(revision=2)
        click_id = scribe.click(params={"aff_click_id": "a&b=ü", "aff_sub1": "x y"})
        conversion_id = scribe.convert(click_id)
        await bench.drain()
        async with sending(bench):
            await until(lambda: delivered(bench, 1))
    [heard] = partner.heard
    assert heard.target == f"/pb?cid=a%26b%3D%C3%BC&s=x%20y&p=5.00&id={conversion_id.hex()}&st=approved"
    assert await states(bench) == {"delivered": 1}


async def delivered(bench: Bench, count: int) -> bool:
    """Whether so many rows are done."""
    return (await states(bench)).get("delivered", 0) == count
