"""Catalogs of any size, and clicks for them as the bytes that a browser sends."""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.traffic import PARTNERS, Traffic

BROWSER_HEADERS = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: {language}\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://blog{site}.example.com/\r\n"
)
LANGUAGES = ("en-US,en;q=0.9", "de-DE,de;q=0.9,en;q=0.8", "fr-FR,fr;q=0.9", "en-GB,en;q=0.9", "pt-BR,pt;q=0.9,en;q=0.7")


def catalog_of(offers: int, partners: int, *, edition: int = 1) -> str:
    """A catalog file with offers and partners numbered from 1; another edition changes every offer's URL."""
    parts = ['[[advertisers]]\nid = 1\nname = "Advertiser"\n']
    parts += [f'[[partners]]\nid = {number}\nname = "Partner {number}"\n' for number in range(1, partners + 1)]
    parts += [
        f'[[offers]]\nid = {number}\nadvertiser_id = 1\nname = "Offer {number}"\ncurrency = "USD"\n'
        f'url = "https://shop{number}.example.com/e{edition}?clickid={{transaction_id}}&p={{aff_id}}&s={{aff_sub}}"\n'
        'payout = "5.00"\nrevenue = "7.50"\n'
        for number in range(1, offers + 1)
    ]
    return "\n".join(parts)


@contextmanager
def catalog_editions(directory: Path, offers: int) -> Iterator[tuple[Path, Path]]:
    """Two catalog files that differ in every offer's URL."""
    paths = directory / f"clickedge-bench-{os.getpid()}-1.toml", directory / f"clickedge-bench-{os.getpid()}-2.toml"
    try:
        for edition, path in enumerate(paths, 1):
            path.write_text(catalog_of(offers, PARTNERS, edition=edition), encoding="utf-8")
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def clicks_of_traffic(count: int, seed: int = 20261121) -> list[bytes]:
    """So many different clicks on the traffic's 50 offers and 200 partners, few of which have most."""
    chance = random.Random(seed)
    return [_click(query, agent, chance) for query, agent, _ in Traffic(chance).queries(count)]


def clicks_on(
    offers: Sequence[int], partners: Sequence[int], agents: Sequence[str], count: int, seed: int = 1
) -> Iterator[bytes]:
    """So many different clicks, spread evenly over these offers and partners."""
    chance = random.Random(seed)
    for _ in range(count):
        query = (
            f"offer_id={chance.choice(offers)}&aff_id={chance.choice(partners)}&aff_sub={chance.randrange(500)}"
            f"&source=site{chance.randrange(300)}&aff_click_id={chance.getrandbits(96):024x}"
        )
        yield _click(query, chance.choice(agents), chance)


def _click(query: str, agent: str, chance: random.Random) -> bytes:
    # Browsers send another site the referring page's origin only; few sites have most of the clicks.
    headers = BROWSER_HEADERS.format(language=chance.choice(LANGUAGES), site=int(400 * chance.random() ** 3))
    return f"GET /aff_c?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {agent}\r\n{headers}\r\n".encode()
