"""Custom ids of a batch's clicks: what each stands for from now on."""

from collections.abc import Iterable

from edge.tracking.crediting import is_external_id
from storage.journal.events import Click, Impression


def external_ids_of(clicks: Iterable[Click | Impression]) -> dict[str, bytes]:
    """The `ad_id` of each click that went to an offer, with its click id; the first of a batch keeps it.

    Fetches ahead do not count: they come with the same id, and before the visitor.
    """
    found: dict[str, bytes] = {}
    for event in clicks:
        ad_id = event.params.get("ad_id")
        if ad_id and event.outcome == "redirected" and "prefetch" not in event.flags and is_external_id(ad_id):
            found.setdefault(ad_id, event.session.click_id)
    return found
