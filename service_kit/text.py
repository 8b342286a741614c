"""Text as it is compared."""

import unicodedata


def canonical(text: str) -> str:
    """The same for all spellings that differ in case, composition or spaces around.

    The time that takes can grow with the square of the length: limit it first.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).lower())
