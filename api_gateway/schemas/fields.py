"""The types of the fields that requests have, with their limits."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from api_gateway.schemas.money import MAX_PRICE_CENTS, MAX_TOTAL_CENTS, parse_cents
from proto.limits import MAX_QUANTITY
from service_kit.pagination import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE

MAX_ID = 2**63 - 1
MAX_CLIENT_ASSIGNED_ID = 2**53 - 1
"""The largest id that a client may assign: every JSON parser can hold it."""
MAX_STOCK = 10**12

_NO_NUL = r"^[^\x00]*$"
_NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]"


def _parsed_cents(maximum: int) -> BeforeValidator:
    def parse(value: object) -> int:
        cents = parse_cents(value)
        if cents > maximum:
            raise ValueError(f"must not exceed {maximum // 100}")
        return cents

    return BeforeValidator(parse)


def _money_schema(maximum: int, pattern: str) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": maximum // 100, "multipleOf": 0.01}
    return WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": pattern}, number],
            "description": "An exact amount of money: a decimal string or a number.",
            "examples": ["500.00"],
        }
    )


def _parsed_page_size(text: str) -> int:
    if text == "":
        return DEFAULT_PAGE_SIZE
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _nonzero(number: int) -> int:
    if number == 0:
        raise ValueError("must not be 0")
    return number


_TEN_DIGITS = r"^([0-9]{1,10}(\.[0-9]{1,2})?|10000000000(\.00?)?)$"
_THIRTEEN_DIGITS = r"^([0-9]{1,13}(\.[0-9]{1,2})?|10000000000000(\.00?)?)$"

Id = Annotated[int, Field(strict=True, ge=1, le=MAX_ID, examples=[1])]
ClientAssignedId = Annotated[
    int, Field(strict=True, ge=1, le=MAX_CLIENT_ASSIGNED_ID, examples=[2001])
]
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY, examples=[2])]
StockLevel = Annotated[int, Field(strict=True, ge=0, le=MAX_STOCK, examples=[100])]
Delta = Annotated[
    int,
    Field(strict=True, ge=-MAX_STOCK, le=MAX_STOCK, json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_nonzero),
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NOT_BLANK)]
Description = Annotated[str, StringConstraints(max_length=5_000, pattern=_NO_NUL)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_NOT_BLANK)]
Email = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^\s*[^@\s\x00]+@[^@.\s\x00]+(\.[^@.\s\x00]+)*\s*$"),
    Field(examples=["ada@example.com"]),
]
PersonName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=100,
        pattern=rf"^{_PRINTABLE}*[^\s\x00-\x1f\x7f-\x9f\u2028\u2029]{_PRINTABLE}*$",
    ),
    Field(examples=["Ada Lovelace"]),
]
LoginEmail = Annotated[
    str,
    StringConstraints(min_length=1, max_length=254, pattern=_NO_NUL),
    Field(examples=["ada@example.com"]),
]
NewPassword = Annotated[
    str,
    StringConstraints(min_length=10, max_length=128, pattern=_NO_NUL),
    Field(examples=["correct horse battery"]),
]
OpaqueText = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_NO_NUL)]
SearchText = Annotated[str, StringConstraints(max_length=200, pattern=_NO_NUL)]
PageToken = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_\-]*$")]
PageSize = Annotated[
    int,
    Field(ge=1, le=MAX_PAGE_SIZE),
    BeforeValidator(_parsed_page_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}, {"const": ""}]}
    ),
]
OrderStatus = Literal["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"]
Price = Annotated[int, _parsed_cents(MAX_PRICE_CENTS), _money_schema(MAX_PRICE_CENTS, _TEN_DIGITS)]
Total = Annotated[
    int, _parsed_cents(MAX_TOTAL_CENTS), _money_schema(MAX_TOTAL_CENTS, _THIRTEEN_DIGITS)
]
