"""What the API reads: the models of bodies and query strings.

Unknown fields are ignored, so that newer clients may call older gateways; known fields are read
strictly (no "1" or 1.0 for 1).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api_gateway.schemas.fields import (
    ClientAssignedId,
    Delta,
    Description,
    Email,
    Id,
    LoginEmail,
    Name,
    NewPassword,
    OpaqueText,
    OrderStatus,
    PageSize,
    PageToken,
    PersonName,
    Price,
    Quantity,
    Reason,
    SearchText,
    StockLevel,
    Total,
)
from proto.limits import MAX_ORDER_ITEMS
from service_kit.pagination import DEFAULT_PAGE_SIZE


class Registration(BaseModel):
    """A new account."""

    email: Email
    password: NewPassword
    name: PersonName


class Credentials(BaseModel):
    """The e-mail and password of an account."""

    email: LoginEmail
    password: OpaqueText = Field(examples=["correct horse battery"])


class RefreshToken(BaseModel):
    """A refresh token; it can be used once."""

    refresh_token: OpaqueText


class NewProduct(BaseModel):
    """A product to create; without `id` the service assigns one."""

    name: Name = Field(examples=["Laptop"])
    price: Price
    stock: StockLevel
    id: ClientAssignedId | None = None
    description: Description = ""


def _require_any_field(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"required": [name]} for name in schema["properties"]]
    for field in schema["properties"].values():
        del field["default"]


class ProductChanges(BaseModel):
    """The fields to update; stock changes only through stock adjustments."""

    model_config = ConfigDict(json_schema_extra=_require_any_field)

    name: Name = ""
    price: Price = 0
    description: Description = ""

    @model_validator(mode="after")
    def _has_a_change(self) -> "ProductChanges":
        if not self.model_fields_set:
            raise ValueError("must have name, price or description")
        return self


class StockAdjustment(BaseModel):
    """A manual change of stock; a negative `delta` takes units out of stock."""

    delta: Delta = Field(examples=[50])
    reason: Reason = Field(examples=["delivery"])


class StockItem(BaseModel):
    """A quantity of a product."""

    product_id: Id
    quantity: Quantity


class NewOrderItem(StockItem):
    """An item to order; with `unit_price`, only at this price."""

    unit_price: Price | None = None


class NewOrder(BaseModel):
    """An order to place; the quantities of repeated products are summed."""

    items: Annotated[list[NewOrderItem], Field(min_length=1, max_length=MAX_ORDER_ITEMS)]


class LegacyOrderItem(StockItem):
    """An item at the prices that the client expects."""

    unit_price: Price
    total_price: Total


class LegacyOrder(BaseModel):
    """An order to place for a user, at the given prices."""

    user_id: Id
    items: Annotated[list[LegacyOrderItem], Field(min_length=1, max_length=MAX_ORDER_ITEMS)]


class PageQuery(BaseModel):
    """A page of a list; `page_token` is the previous response's `next_page_token`.

    An empty parameter counts as absent.
    """

    page_size: PageSize = DEFAULT_PAGE_SIZE
    page_token: PageToken = ""


class ProductQuery(PageQuery):
    """Products whose name contains `query`, regardless of case."""

    query: SearchText = ""


class OrderQuery(PageQuery):
    """Orders in a status; without one, all."""

    status: Literal[OrderStatus, ""] = ""
