"""What the API answers: typed dictionaries, serialised as they are and described by OpenAPI."""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from api_gateway.schemas import OrderStatus

MovementKind = Literal["INITIAL", "ADJUSTMENT", "DEDUCT", "RESTORE"]
Money = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]{2}$", examples=["500.00"])]


class User(TypedDict):
    """An account."""

    id: int
    email: str
    name: str
    role: Literal["customer", "admin"]
    active: bool
    create_time: datetime


class TokenPair(TypedDict):
    """An access token (JWT), for how many seconds it serves, and its successor's key."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str


class Product(TypedDict):
    """A product of the catalogue."""

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
    """A product's stock after a movement."""

    product_id: int
    stock: int


class Availability(TypedDict):
    """Whether the stock covers the quantity asked for."""

    available: bool
    stock: int


class StockMovement(TypedDict):
    """A row of the ledger; `order_id` is empty for movements by hand."""

    id: int
    product_id: int
    kind: MovementKind
    delta: int
    order_id: str
    reason: str
    create_time: datetime


class StockMovementPage(TypedDict):
    """The ledger, newest first; `next_page_token` is empty on the last page."""

    movements: list[StockMovement]
    next_page_token: str


class OrderItem(TypedDict):
    """An item as it was when the order was placed."""

    product_id: int
    name: str
    quantity: int
    unit_price: Money
    total_price: Money


class Shortage(TypedDict):
    """What was short of a rejected order."""

    product_id: int
    requested: int
    available: int


class StatusChange(TypedDict):
    """When the order came to a status."""

    status: OrderStatus
    time: datetime


class Order(TypedDict):
    """An order; `history` (oldest first) comes with a single order only."""

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
    """Requests can be served; every service behind answers."""

    status: Literal["ready"]
    neighbours: dict[str, Literal["serving"]]


class Fault(TypedDict):
    """One thing wrong with a request; `pointer` (RFC 6901) says where."""

    pointer: str
    detail: str


class ProblemDocument(TypedDict):
    """RFC 9457; `code` is stable, `detail` is for people."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: NotRequired[list[Fault]]
    metadata: NotRequired[dict[str, Any]]
