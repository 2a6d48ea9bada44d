"""Clicks as networks send them, made up but always the same: campaigns, browsers, addresses and where these are."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

USER_AGENTS = 2_000
ADDRESSES = 50_000
OFFERS = 50
PARTNERS = 200
OFFERS_OF_A_PARTNER = 3


@dataclass
class Traffic:
    """Few campaigns, browsers and addresses have most of the clicks."""

    chance: random.Random = field(default_factory=lambda: random.Random(20261121))

    def __post_init__(self) -> None:
        self.user_agents = self._make_user_agents()
        self.addresses = self._make_addresses()
        self.campaigns = [
            (offer_id, aff_id)
            for aff_id in range(1, PARTNERS + 1)
            for offer_id in self.chance.sample(range(1, OFFERS + 1), OFFERS_OF_A_PARTNER)
        ]

    def queries(self, count: int) -> Iterator[tuple[str, str, str]]:
        """(query string, user agent, address) of so many clicks."""
        chance = self.chance
        campaigns = self._skewed(self.campaigns, count, 1.0)
        agents = self._skewed(self.user_agents, count, 1.0)
        addresses = self._skewed(self.addresses, count, 0.6)
        for (offer_id, aff_id), agent, address in zip(campaigns, agents, addresses, strict=True):
            query = (
                f"offer_id={offer_id}&aff_id={aff_id}&aff_sub={chance.randrange(500)}&aff_sub2=banner-{offer_id % 7}"
                f"&source=site{chance.randrange(300)}&aff_click_id={chance.getrandbits(96):024x}"
            )
            if chance.random() < 0.3:
                query += (
                    f"&gclid={chance.getrandbits(128):032x}&utm_source=google&utm_medium=cpc&utm_campaign=autumn+sale"
                )
            if chance.random() < 0.1:
                query += f"&cost=0.{chance.randrange(1, 100):02}"
            yield query, agent, address

    def write_places(self, path: Path) -> None:
        """A small city database that knows most of the addresses' networks."""
        writer = MMDBWriter(6, "Bench-City", languages=["en"], ipv4_compatible=True)
        countries = self._skewed([f"{a}{b}" for a in "ABCDEF" for b in "ABCDEFGH"], 4096, 1.0)
        networks = sorted({_network(address) for address in self.addresses})
        for network, country in zip(networks, countries * (len(networks) // 4096 + 1), strict=False):
            if self.chance.random() < 0.97:
                city = {"names": {"en": f"City {self.chance.randrange(400)}"}}
                region = [{"iso_code": f"R{self.chance.randrange(20)}"}]
                record = {"country": {"iso_code": country}, "subdivisions": region, "city": city}
                writer.insert_network(IPSet([network]), record)
        writer.to_db_file(str(path))

    def _skewed(self, choices: Sequence[Any], count: int, exponent: float) -> list[Any]:
        weights = [1 / rank**exponent for rank in range(1, len(choices) + 1)]
        return self.chance.choices(choices, weights, k=count)

    def _make_addresses(self) -> list[str]:
        """Nine in ten IPv4; several people to a network."""
        found: dict[str, None] = {}
        while len(found) < ADDRESSES:
            bits = int(self.chance.betavariate(1, 3) * 8000)
            if self.chance.random() < 0.9:
                found[f"{20 + bits % 150}.{bits // 150}.{self.chance.randrange(4)}.{self.chance.randrange(1, 255)}"] = (
                    None
                )
            else:
                found[f"2a02:{bits:x}::{self.chance.randrange(1, 65536):x}"] = None
        return list(found)

    def _make_user_agents(self) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < USER_AGENTS:
            found[self._make_user_agent()] = None
        return list(found)

    def _make_user_agent(self) -> str:
        pick, chance = self.chance.choice, self.chance
        chrome = f"Chrome/{chance.randrange(110, 143)}.0.{pick((0, 6778))}.{pick((0, 85, 108))}"
        webkit = "AppleWebKit/537.36 (KHTML, like Gecko)"
        phone = pick(("SM-S918B", "SM-A546E", "SM-G991U", "Pixel 8", "Pixel 6a", "moto g84", "2201117TG", "CPH2581"))
        ios = f"{chance.randrange(14, 20)}_{chance.randrange(7)}"
        apple = f"Mozilla/5.0 (iPhone; CPU iPhone OS {ios} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
        android = f"Mozilla/5.0 (Linux; Android {chance.randrange(9, 17)}; {phone})"
        made = (
            (30, f"{android} {webkit} {chrome} Mobile Safari/537.36"),
            (25, f"{apple} Version/{ios.replace('_', '.')} Mobile/15E148 Safari/604.1"),
            (20, f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {webkit} {chrome} Safari/537.36"),
            (6, f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_{chance.randrange(8)}) {webkit} {chrome} Safari/537.36"),
            (6, f"{apple} Mobile/15E148 [FBAN/FBIOS;FBAV/{chance.randrange(400, 540)}.0.0.{chance.randrange(60)}]"),
            (6, f"{android} {webkit} SamsungBrowser/{chance.randrange(18, 29)}.0 {chrome} Mobile Safari/537.36"),
            (
                4,
                f"Mozilla/5.0 (X11; Linux x86_64; rv:{(rv := chance.randrange(90, 146))}.0) Gecko/20100101 Firefox/{rv}.0",
            ),
            (
                3,
                f"Mozilla/5.0 (compatible; Googlebot/2.{chance.randrange(9)}; +http://www.google.com/bot.html) {chrome}",
            ),
        )
        return chance.choices([agent for _, agent in made], [weight for weight, _ in made])[0]


def _network(address: str) -> str:
    return ":".join(address.split(":")[:2]) + "::/32" if ":" in address else address.rpartition(".")[0] + ".0/24"


def catalog_text() -> str:
    """A catalog file with the offers and partners of the traffic; every fourth offer pays for clicks."""
    parts = ['[[advertisers]]\nid = 1\nname = "Advertiser"\n']
    parts += [f'[[partners]]\nid = {number}\nname = "Partner {number}"\n' for number in range(1, PARTNERS + 1)]
    for number in range(1, OFFERS + 1):
        kind, money = ("cpc", "0.12") if number % 4 == 0 else ("cpa_flat", "5.00")
        parts.append(
            f'[[offers]]\nid = {number}\nadvertiser_id = 1\nname = "Offer {number}"\ncurrency = "USD"\n'
            f'url = "https://shop{number}.example.com/?clickid={{transaction_id}}&p={{aff_id}}"\n'
            f'payout_type = "{kind}"\npayout = "{money}"\nrevenue_type = "{kind}"\nrevenue = "{money}"\n'
        )
    return "\n".join(parts)
