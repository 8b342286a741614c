"""What the API returns: typed dictionaries, serialised as they are."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from api_gateway.schemas.fields import OrderStatus

MovementKind = Literal["INITIAL", "ADJUSTMENT", "DEDUCT", "RESTORE"]
Money = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]{2}$", examples=["500.00"])]


class User(TypedDict):
    """A user account."""

    id: int
    email: str
    name: str
    role: Literal["customer", "admin"]
    active: bool
    create_time: datetime


class TokenPair(TypedDict):
    """An access token (JWT), its lifetime in seconds, and the refresh token that renews it."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str


class Product(TypedDict):
    """A product in the catalogue."""

    id: int
    name: str
    description: str
    price: Money
    stock: int
    create_time: datetime
    update_time: datetime


class ProductPage(TypedDict):
    """Products by ascending id; `next_page_token` is empty on the last page."""

    products: list[Product]
    next_page_token: str


class Stock(TypedDict):
    """A product's stock after an adjustment."""

    product_id: int
    stock: int


class Availability(TypedDict):
    """Whether the stock covers the requested quantity."""

    available: bool
    stock: int


class StockMovement(TypedDict):
    """A row of the stock ledger; `order_id` is empty for manual adjustments."""

    id: int
    product_id: int
    kind: MovementKind
    delta: int
    order_id: str
    reason: str
    create_time: datetime


class StockMovementPage(TypedDict):
    """Stock movements, newest first; `next_page_token` is empty on the last page."""

    movements: list[StockMovement]
    next_page_token: str


class OrderItem(TypedDict):
    """An order item, with name and price at the time of ordering."""

    product_id: int
    name: str
    quantity: int
    unit_price: Money
    total_price: Money


class Shortage(TypedDict):
    """A product whose stock did not cover a rejected order."""

    product_id: int
    requested: int
    available: int


class StatusChange(TypedDict):
    """When the order entered a status."""

    status: OrderStatus
    time: datetime


class Order(TypedDict):
    """An order; lists leave out `history` (oldest first)."""

    id: str
    user_id: int
    status: OrderStatus
    items: list[OrderItem]
    total_price: Money
    shortages: list[Shortage]
    create_time: datetime
    update_time: datetime
    history: NotRequired[list[StatusChange]]


class OrderPage(TypedDict):
    """Orders, newest first; `next_page_token` is empty on the last page."""

    orders: list[Order]
    next_page_token: str


class Health(TypedDict):
    """The process is alive."""

    status: Literal["alive"]


class Readiness(TypedDict):
    """The gateway can serve requests; every dependency is serving."""

    status: Literal["ready"]
    dependencies: dict[str, Literal["serving"]]


class FieldError(TypedDict):
    """An invalid part of a request; `pointer` (RFC 6901) locates it."""

    pointer: str
    detail: str


class ProblemDocument(TypedDict):
    """Problem details (RFC 9457); `code` is stable, `detail` is for people."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: NotRequired[list[FieldError]]
    metadata: NotRequired[dict[str, Any]]
