"""What the API reads: pydantic models, from which the OpenAPI document is made too.

Unknown fields are ignored, so that newer clients may call older gateways; known fields are read
strictly (no "1" or 1.0 for 1).
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from api_gateway.money import MAX_PRICE, MAX_TOTAL, to_cents

MAX_ID = 2**63 - 1
MAX_CHOSEN_ID = 2**53 - 1
"""The largest id a client may choose: every JSON reader can hold it."""
MAX_AMOUNT = 10**12
DEFAULT_PAGE_SIZE = 20

_NO_NUL = r"^[^\x00]*$"
_NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]"


def _cents(maximum: int) -> BeforeValidator:
    def read(value: object) -> int:
        cents = to_cents(value)
        if cents > maximum:
            raise ValueError(f"must not exceed {maximum // 100}")
        return cents

    return BeforeValidator(read)


def _money(maximum: int, pattern: str) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": maximum // 100, "multipleOf": 0.01}
    return WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": pattern}, number],
            "description": "An amount of money: a decimal string, or a number; exact.",
            "examples": ["500.00"],
        }
    )


def _page_size(text: str) -> int:
    if text == "":
        return DEFAULT_PAGE_SIZE
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _not_zero(number: int) -> int:
    if number == 0:
        raise ValueError("must not be 0")
    return number


_TEN_DIGITS = r"^([0-9]{1,10}(\.[0-9]{1,2})?|10000000000(\.00?)?)$"
_THIRTEEN_DIGITS = r"^([0-9]{1,13}(\.[0-9]{1,2})?|10000000000000(\.00?)?)$"

Id = Annotated[int, Field(strict=True, ge=1, le=MAX_ID, examples=[1])]
ChosenId = Annotated[int, Field(strict=True, ge=1, le=MAX_CHOSEN_ID, examples=[2001])]
Quantity = Annotated[int, Field(strict=True, ge=1, le=1_000_000, examples=[2])]
StockLevel = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT, examples=[100])]
Delta = Annotated[
    int,
    Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT, json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_not_zero),
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
NewPassword = Annotated[
    str,
    StringConstraints(min_length=10, max_length=128, pattern=_NO_NUL),
    Field(examples=["correct horse battery"]),
]
Opaque = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=_NO_NUL)]
PageToken = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_\-]*$")]
PageSize = Annotated[
    int,
    Field(ge=1, le=100),
    BeforeValidator(_page_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 100}, {"const": ""}]}),
]
OrderStatus = Literal["PENDING", "CONFIRMED", "REJECTED", "CANCELLED"]
Price = Annotated[int, _cents(MAX_PRICE), _money(MAX_PRICE, _TEN_DIGITS)]
Total = Annotated[int, _cents(MAX_TOTAL), _money(MAX_TOTAL, _THIRTEEN_DIGITS)]


class Registration(BaseModel):
    """A new account."""

    email: Email
    password: NewPassword
    name: PersonName


class Credentials(BaseModel):
    """What a user logs in with."""

    email: Annotated[str, StringConstraints(min_length=1, max_length=254, pattern=_NO_NUL)] = Field(
        examples=["ada@example.com"]
    )
    password: Opaque = Field(examples=["correct horse battery"])


class RefreshToken(BaseModel):
    """A refresh token; it serves once."""

    refresh_token: Opaque


class NewProduct(BaseModel):
    """A product to add; without `id` the service chooses one."""

    name: Name = Field(examples=["Laptop"])
    price: Price
    stock: StockLevel
    id: ChosenId | None = None
    description: Description = ""


def _required_one(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"required": [name]} for name in schema["properties"]]
    for field in schema["properties"].values():
        del field["default"]


class ProductChanges(BaseModel):
    """The fields to change; stock moves by stock adjustments only."""

    model_config = ConfigDict(json_schema_extra=_required_one)

    name: Name = ""
    price: Price = 0
    description: Description = ""

    @model_validator(mode="after")
    def _changes_something(self) -> "ProductChanges":
        if not self.model_fields_set:
            raise ValueError("must have name, price or description")
        return self


class StockAdjustment(BaseModel):
    """A stock movement by hand; negative takes out of stock."""

    delta: Delta = Field(examples=[50])
    reason: Reason = Field(examples=["delivery"])


class StockItem(BaseModel):
    """So many units of a product."""

    product_id: Id
    quantity: Quantity


class NewOrderItem(StockItem):
    """An item to order; with `unit_price`, only at that price."""

    unit_price: Price | None = None


class NewOrder(BaseModel):
    """An order to place; repeated products are added up."""

    items: Annotated[list[NewOrderItem], Field(min_length=1, max_length=100)]


class PricedItem(StockItem):
    """An item with the prices the client reckons with."""

    unit_price: Price
    total_price: Total


class OrderForUser(BaseModel):
    """An order under its short name: whose it is, and what it costs."""

    user_id: Id
    items: Annotated[list[PricedItem], Field(min_length=1, max_length=100)]


class Page(BaseModel):
    """Which page of a list; `page_token` is the last answer's `next_page_token`.

    An empty parameter is one that was left out.
    """

    page_size: PageSize = DEFAULT_PAGE_SIZE
    page_token: PageToken = ""


class ProductQuery(Page):
    """Which products: those whose name contains `query`, regardless of case."""

    query: Annotated[str, StringConstraints(max_length=200, pattern=_NO_NUL)] = ""


class OrderQuery(Page):
    """Which orders: those of a status, or all."""

    status: Literal[OrderStatus, ""] = ""
