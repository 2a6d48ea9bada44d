"""Which of an offer's landing pages a visitor is shown: by weight, and the same one again at the next click."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple

from edge.tracking.catalog_document import LandingPage
from edge.tracking.visitors import place_in

PURPOSE = "page of offer {0}"


class Rotation(NamedTuple):
    """Landing pages by weight: page n is shown from `ends[n - 1]` up to, not including, `ends[n]`."""

    page_ids: tuple[int, ...]
    ends: tuple[int, ...]
    purpose: str

    def choose(self, seed: Callable[[], bytes]) -> int:
        """The landing page's id; `seed` gives the visitor's, asked for only where there is a choice."""
        if len(self.page_ids) == 1:
            return self.page_ids[0]
        return self.page_ids[bisect_right(self.ends, place_in(self.ends[-1], seed(), self.purpose))]


def compile_rotation(offer_id: int, pages: Iterable[LandingPage]) -> Rotation | None:
    """The rotation of an offer; None where no page has a weight: there the offer's own URL is shown."""
    weighted = [page for page in pages if page.weight]
    if not weighted:
        return None
    ends = tuple(accumulate(page.weight for page in weighted))
    return Rotation(tuple(page.id for page in weighted), ends, PURPOSE.format(offer_id))
