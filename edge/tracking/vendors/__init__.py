"""One table per vendor. Where two share a path the order counts: of the rows that fit the first one is meant."""

from edge.tracking.vendors.binom import BINOM
from edge.tracking.vendors.cake import CAKE
from edge.tracking.vendors.dub import DUB
from edge.tracking.vendors.everflow import EVERFLOW
from edge.tracking.vendors.impact import IMPACT
from edge.tracking.vendors.keitaro import KEITARO
from edge.tracking.vendors.post_affiliate_pro import POST_AFFILIATE_PRO
from edge.tracking.vendors.prosper202 import PROSPER202
from edge.tracking.vendors.redtrack import REDTRACK
from edge.tracking.vendors.row import Vendor
from edge.tracking.vendors.tune import TUNE
from edge.tracking.vendors.voluum import VOLUUM

# Everflow last: a bare `/?transaction_id=` and a bare `/{}/{}` are its own only if nobody else's.
VENDORS: tuple[Vendor, ...] = (
    VOLUUM, REDTRACK, KEITARO, BINOM, CAKE, IMPACT, POST_AFFILIATE_PRO, PROSPER202, DUB, EVERFLOW, TUNE,
)  # fmt: skip
