"""What is known of a click besides its request: device and place by name, asked for only where a rule or macro needs them.

Reading patterns and databases is somebody else's work (`edge/enrich.py`); here is what they say.
"""

from typing import Protocol

import msgspec


class Device(msgspec.Struct, frozen=True, gc=False):
    """What a user agent says of itself; "" is unknown."""

    device_type: str = ""
    """desktop, mobile, tablet, bot, other (televisions, consoles, tools), or "" without a user agent."""
    device_brand: str = ""
    os: str = ""
    browser: str = ""
    is_bot: bool = False
    device_model: str = ""
    os_version: str = ""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an address is: ISO country, subdivision's ISO code (or its name), city in English; "" is unknown."""

    country: str = ""
    region: str = ""
    city: str = ""


UNKNOWN_DEVICE = Device()
UNKNOWN_PLACE = Place()


class Enrichment(Protocol):
    """Tells device and place. Never raises; what it does not know is unknown."""

    def device(self, user_agent: str) -> Device:
        """The device that `user_agent` names."""

    def place(self, ip: str) -> Place:
        """Where `ip` is."""


class NoEnrichment:
    """Knows nothing."""

    def device(self, user_agent: str) -> Device:
        """Unknown."""
        return UNKNOWN_DEVICE

    def place(self, ip: str) -> Place:
        """Unknown."""
        return UNKNOWN_PLACE
