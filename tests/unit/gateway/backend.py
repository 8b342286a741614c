"""A gateway in front of small in-memory services, over real gRPC and real HTTP."""

# ruff: noqa: N802 - methods are named by the generated interfaces
# mypy: disable-error-code="abstract"

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
from google.protobuf.empty_pb2 import Empty

from api_gateway import app, server
from api_gateway.context import Gateway, open_gateway
from api_gateway.settings import Settings
from proto import inventory_pb2, order_pb2, user_pb2
from proto.inventory_pb2_grpc import (
    InventoryServiceServicer,
    add_InventoryServiceServicer_to_server,
)
from proto.order_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from proto.user_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server
from service_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
)
from service_kit.grpc.server import serve_grpc
from service_kit.grpc.status import to_status
from tests.support.ports import free_ports

ADMIN_ID, CUSTOMER_ID, OTHER_ID = 1, 2, 3
PASSWORD = "correct horse battery"
ORDER = {"items": [{"product_id": 1, "quantity": 2}]}


class Users(UserServiceServicer):
    def __init__(self) -> None:
        self.users = {
            ADMIN_ID: _user(ADMIN_ID, "admin@example.com", user_pb2.ROLE_ADMIN),
            CUSTOMER_ID: _user(CUSTOMER_ID, "ada@example.com", user_pb2.ROLE_CUSTOMER),
            OTHER_ID: _user(OTHER_ID, "bob@example.com", user_pb2.ROLE_CUSTOMER),
        }

    def _by_email(self, email: str) -> Any:
        return next((user for user in self.users.values() if user.email == email.lower()), None)

    async def RegisterUser(self, request: Any, context: Any) -> Any:
        if self._by_email(request.email):
            raise AlreadyExists("EMAIL_TAKEN", "Taken.")
        user_id = max(self.users) + 1
        self.users[user_id] = _user(user_id, request.email, user_pb2.ROLE_CUSTOMER, request.name)
        return self.users[user_id]

    async def Authenticate(self, request: Any, context: Any) -> Any:
        user = self._by_email(request.email)
        if user is None or request.password != PASSWORD:
            raise Unauthenticated("INVALID_CREDENTIALS", "Wrong e-mail or password.")
        return user_pb2.AuthenticateResponse(user=user, refresh_token="first")

    async def GetUser(self, request: Any, context: Any) -> Any:
        if request.user_id not in self.users:
            raise NotFound("USER_NOT_FOUND", "The user does not exist.")
        return self.users[request.user_id]

    async def RotateRefreshToken(self, request: Any, context: Any) -> Any:
        if request.refresh_token != "first":
            raise Unauthenticated("INVALID_REFRESH_TOKEN", "Invalid refresh token.")
        return user_pb2.AuthenticateResponse(user=self.users[CUSTOMER_ID], refresh_token="second")

    async def RevokeRefreshToken(self, request: Any, context: Any) -> Any:
        if request.refresh_token != "first":
            raise Unauthenticated("INVALID_REFRESH_TOKEN", "Invalid refresh token.")
        return Empty()


class Inventory(InventoryServiceServicer):
    def __init__(self) -> None:
        self.products = {1: _product(1, "Laptop", 50_000, 10), 2: _product(2, "Mouse", 1_999, 5)}

    def _get(self, product_id: int) -> Any:
        if product_id not in self.products:
            raise NotFound("PRODUCT_NOT_FOUND", f"Product {product_id} does not exist.")
        return self.products[product_id]

    async def CreateProduct(self, request: Any, context: Any) -> Any:
        product_id = request.product_id or max(self.products) + 1
        if product_id in self.products:
            raise AlreadyExists("PRODUCT_EXISTS", f"Product {product_id} exists.")
        request.product.id = product_id
        self.products[product_id] = request.product
        return request.product

    async def GetProduct(self, request: Any, context: Any) -> Any:
        return self._get(request.product_id)

    async def ListProducts(self, request: Any, context: Any) -> Any:
        if request.page_token:
            raise InvalidArgument("INVALID_PAGE_TOKEN", "Invalid page token.")
        found = [p for p in self.products.values() if request.query.lower() in p.name.lower()]
        return inventory_pb2.ListProductsResponse(products=found[: request.page_size])

    async def UpdateProduct(self, request: Any, context: Any) -> Any:
        product = self._get(request.product.id)
        for path in request.update_mask.paths:
            setattr(product, path, getattr(request.product, path))
        return product

    async def CheckStock(self, request: Any, context: Any) -> Any:
        checks = []
        for item in request.items:
            found = self.products.get(item.product_id)
            checks.append(
                inventory_pb2.StockCheck(
                    product_id=item.product_id,
                    found=True,
                    stock=found.stock,
                    available=found.stock >= item.quantity,
                )
                if found
                else inventory_pb2.StockCheck(product_id=item.product_id)
            )
        return inventory_pb2.CheckStockResponse(checks=checks)

    async def AdjustStock(self, request: Any, context: Any) -> Any:
        product = self._get(request.product_id)
        if product.stock + request.delta < 0:
            raise FailedPrecondition(
                "INSUFFICIENT_STOCK",
                f"Only {product.stock} in stock.",
                product_id=product.id,
                requested=-request.delta,
                available=product.stock,
            )
        product.stock += request.delta
        return inventory_pb2.AdjustStockResponse(product_id=product.id, stock=product.stock)

    async def ListStockMovements(self, request: Any, context: Any) -> Any:
        product = self._get(request.product_id)
        movement = inventory_pb2.StockMovement(
            id=1, product_id=product.id, kind=inventory_pb2.STOCK_MOVEMENT_KIND_INITIAL, delta=10
        )
        return inventory_pb2.ListStockMovementsResponse(movements=[movement])


@dataclass
class Orders(OrderServiceServicer):
    inventory: Inventory
    orders: dict[str, Any] = field(default_factory=dict)
    keys: dict[tuple[int, str], Any] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    delay_seconds: float = 0.0
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def BatchCreateOrders(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(self.delay_seconds)
        self.batches.append(len(request.requests))
        self.contexts += [one.context for one in request.requests]
        return order_pb2.BatchCreateOrdersResponse(
            results=[self._create(one) for one in request.requests]
        )

    def _create(self, new: Any) -> Any:
        if new.idempotency_key and (new.user_id, new.idempotency_key) in self.keys:
            return order_pb2.CreateOrderResult(order=self.keys[new.user_id, new.idempotency_key])
        items = []
        for item in new.items:
            product = self.inventory.products.get(item.product_id)
            if product is None:
                error = InvalidArgument(
                    "UNKNOWN_PRODUCT", "Product 7 does not exist.", product_id=7
                )
                return order_pb2.CreateOrderResult(error=to_status(error))
            price = product.price_cents
            if item.HasField("unit_price_cents") and item.unit_price_cents != price:
                changed = FailedPrecondition(
                    "PRICE_CHANGED", "The price has changed.", unit_price_cents=price
                )
                return order_pb2.CreateOrderResult(error=to_status(changed))
            items.append(
                order_pb2.OrderItem(
                    product_id=product.id,
                    name=product.name,
                    quantity=item.quantity,
                    unit_price_cents=price,
                )
            )
        order = order_pb2.Order(
            id=str(uuid.uuid4()),
            user_id=new.user_id,
            status=order_pb2.ORDER_STATUS_PENDING,
            items=items,
            total_cents=sum(item.unit_price_cents * item.quantity for item in items),
        )
        order.create_time.GetCurrentTime()
        self.placed.set()
        self.orders[order.id] = self.keys[new.user_id, new.idempotency_key] = order
        return order_pb2.CreateOrderResult(order=order)

    def _get(self, request: Any) -> Any:
        order = self.orders.get(request.order_id)
        if order is None or request.user_id not in (0, order.user_id):
            raise NotFound("ORDER_NOT_FOUND", "The order does not exist.")
        return order

    async def GetOrder(self, request: Any, context: Any) -> Any:
        order = self._get(request)
        if request.wait.seconds:
            await self.settled.wait()
            order.status = order_pb2.ORDER_STATUS_CONFIRMED
        return order

    async def ListOrders(self, request: Any, context: Any) -> Any:
        found = [o for o in self.orders.values() if request.user_id in (0, o.user_id)]
        return order_pb2.ListOrdersResponse(orders=found)

    async def CancelOrder(self, request: Any, context: Any) -> Any:
        order = self._get(request)
        if order.status == order_pb2.ORDER_STATUS_REJECTED:
            raise FailedPrecondition("NOT_CANCELLABLE", "The order is REJECTED.", status="REJECTED")
        order.status = order_pb2.ORDER_STATUS_CANCELLED
        return order


@dataclass
class Shop:
    gateway: Gateway
    url: str
    client: httpx.AsyncClient
    users: Users
    inventory: Inventory
    orders: Orders
    stop: asyncio.Event
    services: AsyncExitStack
    http: AsyncExitStack

    def bearer(self, user_id: int = CUSTOMER_ID) -> dict[str, str]:
        role = "admin" if user_id == ADMIN_ID else "customer"
        return {"Authorization": f"Bearer {self.gateway.access_tokens.issue(user_id, role)}"}


@asynccontextmanager
async def running_shop(**settings: Any) -> AsyncIterator[Shop]:
    ports = free_ports(4)
    chosen: dict[str, Any] = {
        "jwt_secret": "s" * 32,
        "user_service_port": ports[0],
        "inventory_service_port": ports[1],
        "order_service_port": ports[2],
        "api_gateway_port": ports[3],
        "drain_delay_seconds": 0,
    }
    configured = Settings(**(chosen | settings))
    users, inventory = Users(), Inventory()
    orders = Orders(inventory)
    adds = (
        partial(add_UserServiceServicer_to_server, users),
        partial(add_InventoryServiceServicer_to_server, inventory),
        partial(add_OrderServiceServicer_to_server, orders),
    )
    stop = asyncio.Event()
    async with AsyncExitStack() as services, AsyncExitStack() as http:
        for port, add in zip(ports, adds, strict=False):
            await services.enter_async_context(serve_grpc(f"127.0.0.1:{port}", {"shop": add}))
        gateway = await http.enter_async_context(open_gateway(configured, stop))
        await http.enter_async_context(server.serve_http(app.build(gateway), configured))
        url = f"http://127.0.0.1:{configured.api_gateway_port}"
        client = await http.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        yield Shop(gateway, url, client, users, inventory, orders, stop, services, http)


def _user(user_id: int, email: str, role: Any, name: str = "Ada") -> Any:
    user = user_pb2.User(id=user_id, email=email, name=name, role=role, active=True)
    user.create_time.GetCurrentTime()
    return user


def _product(product_id: int, name: str, price: int, stock: int) -> Any:
    return inventory_pb2.Product(id=product_id, name=name, price_cents=price, stock=stock)
