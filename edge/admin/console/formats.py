"""Figures, money and times as the console's templates write them."""

from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

NOTHING = "\N{EN DASH}"
_TWO, _FOUR = Decimal("0.01"), Decimal("0.0001")


def count(value: int | None) -> str:
    """12,345; a dash for None."""
    return NOTHING if value is None else f"{value:,}"


def money(value: Decimal | None) -> str:
    """1,234.50, with up to four decimals where they say something: 0.0125."""
    if value is None:
        return NOTHING
    rounded = value.quantize(_FOUR)
    return f"{rounded:,.2f}" if rounded == rounded.quantize(_TWO) else f"{rounded:,.4f}".rstrip("0")


def cash(value: Decimal | None) -> str:
    """1,234.50: rounded to cents, for figures that are read at a glance."""
    return NOTHING if value is None else f"{value.quantize(_TWO):,}"


def percent(value: Decimal | None) -> str:
    """4.25 %; a dash for None."""
    return NOTHING if value is None else f"{value.quantize(_TWO):,} %"


def change(now: Decimal | int | None, before: Decimal | int | None) -> str:
    """How much more or less than before, such as +12 % or -3 %; "" where nothing can be said."""
    if now is None or not before:
        return ""
    share = (Decimal(now) - Decimal(before)) / abs(Decimal(before)) * 100
    # Of a loss nothing is so many times as much: the sign would be lost, or turned round.
    return f"{Decimal(now) / Decimal(before):,.0f} times" if share >= 1000 and before > 0 else f"{share:+,.0f} %"


def moment(value: datetime | None, zone: ZoneInfo) -> str:
    """2026-11-22 14:03:05 in the reports' time zone."""
    return NOTHING if value is None else f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def clock(value: datetime, zone: ZoneInfo) -> str:
    """14:03:05."""
    return f"{value.astimezone(zone):%H:%M:%S}"


def duration(seconds: float) -> str:
    """0.2 s, 45 s, 3 min, 2 h 5 min, 4 d 1 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    span = timedelta(seconds=int(seconds))
    hours, minutes = span.seconds // 3600, span.seconds % 3600 // 60
    if span.days:
        return f"{span.days} d {hours} h" if hours else f"{span.days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def size(count_of_bytes: float) -> str:
    """512 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count_of_bytes < 1024:
            return f"{count_of_bytes:.0f} B" if unit == "B" else f"{count_of_bytes:.1f} {unit}"
        count_of_bytes /= 1024
    return f"{count_of_bytes:.1f} TiB"
