"""The neighbours, as they look from here: answers are dictionaries ready to serialise."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api_gateway import answers, encoding, schemas
from proto import inventory_pb2, order_pb2, user_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from proto.order_pb2_grpc import OrderServiceStub
from proto.user_pb2_grpc import UserServiceStub
from service_kit import context
from service_kit.batching import Batcher
from service_kit.errors import DeadlineExceeded, NotFound, ServiceError
from service_kit.grpc.client import call, open_channel
from service_kit.grpc.status import from_status

CALL_SECONDS = 5.0
LOGIN_SECONDS = 10.0
"""Passwords are slow to hash, on purpose."""
HEALTH_SECONDS = 1.0
SINGLE_CALLS = 64
"""Orders under way at once if each is a call of its own."""


@dataclass(frozen=True, slots=True)
class Session:
    """A user who has proved who they are, and their refresh token."""

    user: answers.User
    refresh_token: str


class Neighbour:
    """A service at an address; `idempotent` methods are tried again while it is away."""

    def __init__(self, address: str, service: str, idempotent: Sequence[str]) -> None:
        self._channel = open_channel(address, service, idempotent)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def is_serving(self) -> bool:
        """Whether its health check answers SERVING within a second."""
        try:
            answer = await call(
                self._health.Check, health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS
            )
        except ServiceError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class UserClient(Neighbour):
    """user_service."""

    def __init__(self, address: str) -> None:
        service = user_pb2.DESCRIPTOR.services_by_name["UserService"].full_name
        super().__init__(address, service, ("GetUser", "RevokeRefreshToken"))
        self._stub = UserServiceStub(self._channel)

    async def register(self, email: str, password: str, name: str) -> answers.User:
        """The new account; AlreadyExists (EMAIL_TAKEN)."""
        request = user_pb2.RegisterUserRequest(email=email, password=password, name=name)
        return encoding.user(await call(self._stub.RegisterUser, request, timeout=LOGIN_SECONDS))

    async def authenticate(self, email: str, password: str) -> Session:
        """Check a password; Unauthenticated (INVALID_CREDENTIALS)."""
        request = user_pb2.AuthenticateRequest(email=email, password=password)
        return _session(await call(self._stub.Authenticate, request, timeout=LOGIN_SECONDS))

    async def rotate(self, refresh_token: str) -> Session:
        """Exchange a refresh token; Unauthenticated (INVALID_REFRESH_TOKEN)."""
        request = user_pb2.RotateRefreshTokenRequest(refresh_token=refresh_token)
        return _session(await call(self._stub.RotateRefreshToken, request, timeout=CALL_SECONDS))

    async def revoke(self, refresh_token: str) -> None:
        """Revoke a refresh token's family; Unauthenticated (INVALID_REFRESH_TOKEN)."""
        request = user_pb2.RevokeRefreshTokenRequest(refresh_token=refresh_token)
        await call(self._stub.RevokeRefreshToken, request, timeout=CALL_SECONDS)

    async def get(self, user_id: int) -> answers.User:
        """The account; NotFound."""
        request = user_pb2.GetUserRequest(user_id=user_id)
        return encoding.user(await call(self._stub.GetUser, request, timeout=CALL_SECONDS))

    async def is_admin(self, user_id: int) -> bool:
        """Whether this is an administrator's account now, and active."""
        try:
            user = await self.get(user_id)
        except NotFound:
            return False
        return user["active"] and user["role"] == "admin"


class InventoryClient(Neighbour):
    """inventory_service."""

    def __init__(self, address: str) -> None:
        service = inventory_pb2.DESCRIPTOR.services_by_name["InventoryService"].full_name
        idempotent = (
            "GetProduct",
            "ListProducts",
            "UpdateProduct",
            "CheckStock",
            "ListStockMovements",
        )
        super().__init__(address, service, idempotent)
        self._stub = InventoryServiceStub(self._channel)

    async def create(self, new: schemas.NewProduct) -> answers.Product:
        """The new product; AlreadyExists (PRODUCT_EXISTS)."""
        product = inventory_pb2.Product(
            name=new.name, description=new.description, price_cents=new.price, stock=new.stock
        )
        request = inventory_pb2.CreateProductRequest(product=product, product_id=new.id)
        return encoding.product(await call(self._stub.CreateProduct, request, timeout=CALL_SECONDS))

    async def get(self, product_id: int) -> answers.Product:
        """The product; NotFound."""
        request = inventory_pb2.GetProductRequest(product_id=product_id)
        return encoding.product(await call(self._stub.GetProduct, request, timeout=CALL_SECONDS))

    async def list(self, query: schemas.ProductQuery) -> answers.ProductPage:
        """A page of the products whose name contains the query."""
        request = inventory_pb2.ListProductsRequest(
            page_size=query.page_size, page_token=query.page_token, query=query.query
        )
        answer = await call(self._stub.ListProducts, request, timeout=CALL_SECONDS)
        return answers.ProductPage(
            products=[encoding.product(product) for product in answer.products],
            next_page_token=answer.next_page_token,
        )

    async def update(self, product_id: int, changes: schemas.ProductChanges) -> answers.Product:
        """The product after the changes; NotFound."""
        product = inventory_pb2.Product(
            id=product_id,
            name=changes.name,
            description=changes.description,
            price_cents=changes.price,
        )
        paths = ["price_cents" if f == "price" else f for f in sorted(changes.model_fields_set)]
        request = inventory_pb2.UpdateProductRequest(
            product=product, update_mask=FieldMask(paths=paths)
        )
        return encoding.product(await call(self._stub.UpdateProduct, request, timeout=CALL_SECONDS))

    async def check(self, product_id: int, quantity: int) -> answers.Availability:
        """Whether the stock covers the quantity; NotFound."""
        item = inventory_pb2.StockItem(product_id=product_id, quantity=quantity)
        request = inventory_pb2.CheckStockRequest(items=[item])
        answer = await call(self._stub.CheckStock, request, timeout=CALL_SECONDS)
        found = answer.checks[0]
        if not found.found:
            raise NotFound("PRODUCT_NOT_FOUND", f"there is no product {product_id}")
        return answers.Availability(available=found.available, stock=found.stock)

    async def adjust(self, product_id: int, delta: int, reason: str) -> answers.Stock:
        """Move stock by hand; FailedPrecondition (INSUFFICIENT_STOCK), NotFound."""
        request = inventory_pb2.AdjustStockRequest(
            product_id=product_id, delta=delta, reason=reason
        )
        answer = await call(self._stub.AdjustStock, request, timeout=CALL_SECONDS)
        return answers.Stock(product_id=answer.product_id, stock=answer.stock)

    async def movements(self, product_id: int, page: schemas.Page) -> answers.StockMovementPage:
        """A page of a product's ledger; NotFound."""
        request = inventory_pb2.ListStockMovementsRequest(
            product_id=product_id, page_size=page.page_size, page_token=page.page_token
        )
        answer = await call(self._stub.ListStockMovements, request, timeout=CALL_SECONDS)
        return answers.StockMovementPage(
            movements=[encoding.movement(movement) for movement in answer.movements],
            next_page_token=answer.next_page_token,
        )


class OrderClient(Neighbour):
    """order_service; orders placed at the same time travel in one call."""

    def __init__(self, address: str, batch_max_items: int, batch_linger: float) -> None:
        service = order_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name
        super().__init__(address, service, ("GetOrder", "ListOrders", "CancelOrder"))
        self._stub = OrderServiceStub(self._channel)
        self._batcher: Batcher[order_pb2.CreateOrderRequest, answers.Order] = Batcher(
            self._create_all,
            max_items=batch_max_items,
            # Batches of one are calls as others make them, which do not wait for each other.
            max_in_flight=1 if batch_max_items > 1 else SINGLE_CALLS,
            linger=batch_linger,
        )

    async def create(
        self, user_id: int, items: Sequence[schemas.NewOrderItem], idempotency_key: str
    ) -> answers.Order:
        """The order, stored; the first one again for a key used before with the same items.

        Raises the refusals of OrderService.CreateOrder.
        """
        caller = context.current()
        request = order_pb2.CreateOrderRequest(
            user_id=user_id,
            idempotency_key=idempotency_key,
            context=order_pb2.CallContext(
                request_id=caller.request_id, traceparent=caller.traceparent
            ),
        )
        for item in items:
            request.items.add(
                product_id=item.product_id,
                quantity=item.quantity,
                unit_price_cents=item.unit_price,
            )
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._batcher.submit(request)
        except TimeoutError as error:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "no answer in time") from error

    async def _create_all(
        self, requests: Sequence[order_pb2.CreateOrderRequest]
    ) -> list[answers.Order | ServiceError]:
        batch = order_pb2.BatchCreateOrdersRequest(requests=requests)
        answer = await call(self._stub.BatchCreateOrders, batch, timeout=CALL_SECONDS)
        return [
            encoding.order(result.order) if result.HasField("order") else from_status(result.error)
            for result in answer.results
        ]

    async def get(self, order_id: str, user_id: int, wait_seconds: int = 0) -> answers.Order:
        """The user's order (0: anyone's), once settled or after `wait_seconds`; NotFound."""
        request = order_pb2.GetOrderRequest(
            order_id=order_id, user_id=user_id, wait=Duration(seconds=wait_seconds)
        )
        answer = await call(self._stub.GetOrder, request, timeout=CALL_SECONDS + wait_seconds)
        return encoding.order(answer)

    async def list(self, user_id: int, query: schemas.OrderQuery) -> answers.OrderPage:
        """A page of the user's orders (0: anyone's)."""
        request = order_pb2.ListOrdersRequest(
            user_id=user_id,
            status=order_pb2.OrderStatus.Value(f"ORDER_STATUS_{query.status or 'UNSPECIFIED'}"),
            page_size=query.page_size,
            page_token=query.page_token,
        )
        answer = await call(self._stub.ListOrders, request, timeout=CALL_SECONDS)
        return answers.OrderPage(
            orders=[encoding.order(order) for order in answer.orders],
            next_page_token=answer.next_page_token,
        )

    async def cancel(self, order_id: str, user_id: int) -> answers.Order:
        """The user's order (0: anyone's), cancelled; NotFound, NOT_CANCELLABLE."""
        request = order_pb2.CancelOrderRequest(order_id=order_id, user_id=user_id)
        return encoding.order(await call(self._stub.CancelOrder, request, timeout=CALL_SECONDS))

    async def close(self) -> None:
        """Finish the batches taken, then close the channel."""
        await self._batcher.close()
        await super().close()


def _session(answer: user_pb2.AuthenticateResponse) -> Session:
    return Session(encoding.user(answer.user), answer.refresh_token)
