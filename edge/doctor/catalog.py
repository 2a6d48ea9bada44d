"""The catalog that workers start from: whether all of it compiles, and who may send its offers conversions."""

import asyncio
from collections.abc import Iterator

import msgspec

from edge.catalog_follower import SNAPSHOT, read_snapshot
from edge.doctor.findings import Finding, fail, format_duration, ok, warn
from edge.doctor.installation import Installation
from edge.tracking.catalog import Catalog, OfferView
from storage.errors import StorageError

SHOWN = 5


def check_catalog(found: Installation) -> Iterator[Finding]:
    """The snapshot in the data dir."""
    path = found.data_dir / SNAPSHOT
    if not path.exists():
        yield ok("catalog", "no snapshot yet: serve writes it once it has a database")
        return
    try:
        catalog = asyncio.run(read_snapshot(path, Catalog.empty()))
    except (StorageError, OSError) as error:
        yield fail("catalog", str(error), "workers keep what they have, and a new one cannot start, until it is whole")
        return
    offers, broken = _compile(catalog)
    if broken:
        yield fail(
            "catalog", f"items that do not compile: {_some(broken)}", "apply the catalog again with this release"
        )
    elif not offers:
        yield warn("catalog", "it has no offer", "clickedge apply FILE")
    else:
        yield ok("catalog", f"revision {catalog.revision}, {len(offers)} offers, all compile")
    yield from _check_offers(catalog, offers, found.settings.click_retention_s)


def _compile(catalog: Catalog) -> tuple[list[OfferView], list[str]]:
    """All offers, and what of all kinds does not compile."""
    offers, broken = [], []
    looks = {
        "advertisers": catalog.advertiser,
        "partners": catalog.partner,
        "offers": catalog.offer,
        "aliases": catalog.alias,
    }
    for kind, look in looks.items():
        for item_id in catalog.bodies(kind):
            try:
                view = look(item_id)
            except (msgspec.MsgspecError, ValueError, LookupError, TypeError) as error:
                broken.append(f"{kind} {item_id} ({error})")
                continue
            if isinstance(view, OfferView):
                offers.append(view)
    return offers, broken


def _check_offers(catalog: Catalog, offers: list[OfferView], retention_s: int) -> Iterator[Finding]:
    open_ones = [str(offer.id) for offer in offers if offer.status == "active" and not _is_guarded(catalog, offer)]
    if open_ones:
        yield warn(
            "catalog",
            f"offers whose postbacks need neither token nor address: {_some(open_ones)}",
            "give their advertisers a security_token or allowed_ips: whoever has clicked knows an id",
        )
    longest = max(offers, key=lambda offer: offer.click_window_s, default=None)
    if longest and longest.click_window_s > retention_s:
        yield warn(
            "catalog",
            f"offer {longest.id} counts conversions for {format_duration(longest.click_window_s)}, longer than clicks are kept",
            "raise EDGE_CLICK_RETENTION, or shorten its click_window",
        )


def _is_guarded(catalog: Catalog, offer: OfferView) -> bool:
    advertiser = catalog.advertiser(offer.advertiser_id)
    return bool(advertiser and (advertiser.security_token or advertiser.signing_secret or advertiser.allowed_ips))


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
