"""Keyset pagination with opaque page tokens (https://google.aip.dev/158)."""

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from service_kit.errors import InvalidArgument

T = TypeVar("T")

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_DIGITS = 19
"""The digits of the largest int64."""


def page_size(
    requested: int, default: int = DEFAULT_PAGE_SIZE, largest: int = MAX_PAGE_SIZE
) -> int:
    """The size of a page: 20 if not given, 100 at most; InvalidArgument if negative."""
    if requested < 0:
        raise InvalidArgument("INVALID_PAGE_SIZE", "The page size must not be negative.")
    return min(requested or default, largest)


def encode_token(last_key: object) -> str:
    """The token of the page that follows `last_key`."""
    return base64.urlsafe_b64encode(str(last_key).encode()).decode().rstrip("=")


def decode_token(token: str) -> str | None:
    """The key that the page follows; None for the first page. InvalidArgument if it is no token."""
    if not token:
        return None
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise invalid_token() from error


def decode_int_token(token: str) -> int | None:
    """As `decode_token`, for an int64 key."""
    key = decode_token(token)
    if key is None:
        return None
    # The length first: Python refuses to convert thousands of digits.
    if len(key) > MAX_DIGITS or not (key.isascii() and key.isdigit()) or int(key) >= 2**63:
        raise invalid_token()
    return int(key)


def decode_uuid_token(token: str) -> uuid.UUID | None:
    """As `decode_token`, for a UUID key."""
    key = decode_token(token)
    try:
        return None if key is None else uuid.UUID(key)
    except ValueError as error:
        raise invalid_token() from error


def split_page(rows: Sequence[T], size: int, key: Callable[[T], object]) -> tuple[Sequence[T], str]:
    """The first `size` rows, and the token of the next page; "" if there are no further rows.

    Read one row more than the page has; `key` gives the value by which they are ordered.
    """
    page = rows[:size]
    return page, encode_token(key(page[-1])) if len(rows) > size else ""


def invalid_token() -> InvalidArgument:
    """The error for a page token that no list returned."""
    return InvalidArgument("INVALID_PAGE_TOKEN", "Invalid page token.")
