"""Names for ids, as templates show them; what the catalog does not know has its id only."""

from edge.tracking.catalog import Catalog


class Names:
    """Looks names up in one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def has_offer(self, offer_id: int) -> bool:
        """Whether there is a page about it."""
        return self._catalog.offer(offer_id) is not None

    def has_partner(self, aff_id: int) -> bool:
        """Whether there is a page about it."""
        return self._catalog.partner(aff_id) is not None

    def offer(self, offer_id: int) -> str:
        """The offer's name."""
        offer = self._catalog.offer(offer_id)
        return offer.name if offer else f"offer {offer_id}" if offer_id else "no offer"

    def partner(self, aff_id: int) -> str:
        """The partner's name."""
        partner = self._catalog.partner(aff_id)
        return partner.name if partner else f"partner {aff_id}" if aff_id else "no partner"

    def advertiser(self, advertiser_id: int) -> str:
        """The advertiser's name."""
        advertiser = self._catalog.advertiser(advertiser_id)
        return advertiser.name if advertiser else f"advertiser {advertiser_id}"

    def goal(self, offer_id: int, goal_id: int) -> str:
        """The goal's name; "" for the offer itself."""
        offer = self._catalog.offer(offer_id)
        goal = offer.goals_by_id.get(goal_id) if offer else None
        return goal.name if goal else f"goal {goal_id}" if goal_id else ""
