"""A normal form of text, for comparisons."""

import unicodedata


def normalize_text(text: str) -> str:
    """`text` in Unicode normal form C, in lower case, without surrounding spaces.

    Equal for spellings that differ only in these. Limit the length first: the time can grow with
    its square.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.strip()).lower())
