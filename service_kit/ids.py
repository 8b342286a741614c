"""Ids as they come over the wire."""

import uuid

from service_kit.errors import InvalidArgument


def parse_uuid(text: str, field: str) -> uuid.UUID:
    """The UUID that `text` writes; InvalidArgument (INVALID_… and the field's name) if none."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise InvalidArgument(f"INVALID_{field.upper()}", f"{field} must be a UUID") from error
