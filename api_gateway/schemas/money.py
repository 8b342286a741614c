"""Money: exact cents inside, a decimal string in JSON."""

import re
from decimal import Decimal

MAX_PRICE_CENTS = 10**12
MAX_TOTAL_CENTS = 10**15
"""The largest total of an order item: a JSON number can still hold every cent of it."""

_DECIMAL = re.compile(r"([0-9]{1,14})(?:\.([0-9]{1,2}))?")


def parse_cents(value: object) -> int:
    """The cents of a string or number with at most two decimals; ValueError for anything else.

    A float counts as the shortest decimal that stands for it: 19.99 is 1999 cents, 19.999 is
    refused.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("must be a decimal string or a number")  # noqa: TRY004 - for pydantic
    # 0.0 is added because JSON's -0.0 is a zero like any other.
    text = repr(value + 0.0) if isinstance(value, float) else str(value)
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError('must be an amount like "500.00": not negative, at most two decimals')
    units, decimals = match.groups()
    return int(units) * 100 + int((decimals or "").ljust(2, "0"))


def format_cents(cents: int) -> str:
    """The decimal string of `cents` (not negative): 50000 is "500.00"."""
    return f"{cents // 100}.{cents % 100:02d}"
